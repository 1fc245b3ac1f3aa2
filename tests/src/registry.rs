//! A real registry (Debian's docker-registry) on a loopback port of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Stdio},
};

use tempfile::TempDir;

use crate::{binary::command, run_ok, until};

/// A running registry; it ends with this value.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    dir: TempDir,
    port: u16,
    credentials: Option<(String, String)>,
}

impl Registry {
    /// Starts a registry that lets everybody in.
    #[track_caller]
    pub fn start() -> Self {
        Self::launch(None)
    }

    /// Starts a registry that wants this user and password (basic auth).
    #[track_caller]
    pub fn start_with_auth(user: &str, password: &str) -> Self {
        Self::launch(Some((user.into(), password.into())))
    }

    /// "127.0.0.1:port", as it stands in references.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A reference of `name` in this registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Where the registry keeps its blobs.
    pub fn data(&self) -> &Path {
        self.dir.path()
    }

    /// Copies the image of an OCI layout directory ("dir:tag") to `name` here.
    #[track_caller]
    pub fn push_layout(&self, layout: &str, name: &str) -> String {
        let target = format!("docker://{}", self.reference(name));
        let source = format!("oci:{layout}");
        let mut args = vec!["copy", "-q", "--dest-tls-verify=false"];
        let credentials = self
            .credentials
            .as_ref()
            .map(|(user, password)| format!("{user}:{password}"));
        if let Some(credentials) = &credentials {
            args.extend(["--dest-creds", credentials]);
        }
        args.extend([source.as_str(), target.as_str()]);
        run_ok("skopeo", &args);
        self.reference(name)
    }

    #[track_caller]
    fn launch(credentials: Option<(String, String)>) -> Self {
        // Another process may take the port between our look and the
        // registry's bind; then the registry ends at once and we try again.
        for _ in 0..10 {
            if let Some(registry) = Self::try_launch(credentials.clone()) {
                return registry;
            }
        }
        panic!("docker-registry did not start in ten attempts");
    }

    fn try_launch(credentials: Option<(String, String)>) -> Option<Self> {
        let dir = TempDir::with_prefix("davit-reg-").expect("a temporary directory");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free loopback port")
            .port();
        let auth = credentials
            .as_ref()
            .map_or_else(String::new, |(user, password)| {
                let line = run_ok("htpasswd", &["-Bbn", user, password]);
                let file = dir.path().join("htpasswd");
                fs::write(&file, line).expect("the password file can be written");
                format!(
                    "auth:\n  htpasswd:\n    realm: davit-tests\n    path: {}\n",
                    file.display()
                )
            });
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem:\n    rootdirectory: {0}/data\n  \
             delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}",
            dir.path().display()
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, config).expect("the configuration can be written");
        let mut child = command("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed (make deps)");
        let log = child.stderr.take().expect("stderr is piped");
        std::thread::spawn(move || {
            // Drained, so that the registry never blocks on a full pipe.
            BufReader::new(log).lines().for_each(drop);
        });
        let up = until("the registry to answer or to end", || {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(true);
            }
            matches!(child.try_wait(), Ok(Some(_))).then_some(false)
        });
        up.then_some(Self {
            child,
            dir,
            port,
            credentials,
        })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
