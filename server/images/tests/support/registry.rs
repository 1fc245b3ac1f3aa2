//! Debian's docker-registry on a loopback port of its own.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::run;

pub struct Registry {
    child: Child,
    pub port: u16,
    dir: TempDir,
}

impl Registry {
    pub fn start() -> Self {
        Self::with(|_| String::new())
    }

    /// One that wants this user and password.
    pub fn with_login(user: &str, password: &str) -> Self {
        Self::with(|dir| {
            let file = dir.path().join("htpasswd");
            fs::write(&file, run("htpasswd", &["-Bbn", user, password])).unwrap();
            format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                file.display()
            )
        })
    }

    /// One with more lines in its configuration.
    pub fn with(more: impl Fn(&TempDir) -> String) -> Self {
        for _ in 0..10 {
            if let Some(registry) = Self::launch(&more) {
                return registry;
            }
        }
        panic!("docker-registry did not start");
    }

    fn launch(more: &impl Fn(&TempDir) -> String) -> Option<Self> {
        let dir = TempDir::with_prefix("davit-registry-").unwrap();
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem:\n    rootdirectory: {0}/data\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n{1}",
            dir.path().display(),
            more(&dir)
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, port, dir };
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(registry);
            }
            if !matches!(registry.child.try_wait(), Ok(None)) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Copies an OCI layout ("dir:tag") here, all platforms of it.
    pub fn push(&self, layout: &str, name: &str) -> String {
        let to = format!("docker://{}", self.reference(name));
        run(
            "skopeo",
            &[
                "copy",
                "-q",
                "--all",
                "--dest-tls-verify=false",
                &format!("oci:{layout}"),
                &to,
            ],
        );
        self.reference(name)
    }

    /// Digest of a manifest here, as an independent client sees it.
    pub fn digest(&self, name: &str) -> String {
        let from = format!("docker://{}", self.reference(name));
        let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &from]);
        davit_images::Digest::of(raw.as_bytes()).to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
