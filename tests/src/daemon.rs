//! A real davitd in a temporary directory.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use davit_client::{Client, v1};
use tempfile::TempDir;

use crate::{
    Registry,
    binary::{Output, binary, command, run},
    image::{ImageSpec, busybox_layout},
    residue::Residue,
    until,
};

/// How a daemon is to be started.
#[derive(Debug, Clone, Default)]
pub struct DaemonBuilder {
    config: String,
    runtime: Option<String>,
    failpoints: Option<String>,
    disk: Option<u64>,
}

impl DaemonBuilder {
    /// Further lines for the configuration file (top-level keys first).
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        self.config.push_str(text);
        self
    }

    /// The default runtime: "builtin", "runc", "crun".
    #[must_use]
    pub fn runtime(mut self, name: &str) -> Self {
        self.runtime = Some(name.into());
        self
    }

    /// A disk of its own for the root, of so many megabytes.
    #[must_use]
    pub fn disk(mut self, megabytes: u64) -> Self {
        self.disk = Some(megabytes);
        self
    }

    /// Failpoints for the first start, in the `fail` crate's words.
    #[must_use]
    pub fn failpoints(mut self, text: &str) -> Self {
        self.failpoints = Some(text.into());
        self
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let mut daemon = self.launch();
        daemon.wait_ready();
        daemon
    }

    /// Starts the daemon and waits until it answers or has ended, for
    /// failpoints on the way up.
    #[track_caller]
    pub fn try_start(self) -> Daemon {
        let mut daemon = self.launch();
        daemon.ready_or_ended();
        daemon
    }

    #[track_caller]
    fn launch(self) -> Daemon {
        // Short, since a Unix socket's path has 108 bytes.
        let dir = tempfile::Builder::new()
            .prefix("davit-")
            .rand_bytes(8)
            .tempdir_in("/tmp")
            .expect("a temporary directory");
        let marker = dir
            .path()
            .file_name()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        let runtime = self.runtime.as_deref().unwrap_or("builtin");
        let config = format!(
            "{}\n[containers]\ndefault_runtime = \"{runtime}\"\ncgroup_parent = \"/{marker}\"\n",
            self.config
        );
        fs::write(dir.path().join("config.toml"), config)
            .expect("the configuration can be written");
        let mut daemon = Daemon {
            dir,
            marker,
            child: None,
            disk: None,
        };
        if let Some(megabytes) = self.disk {
            daemon.disk = Some(Disk::mount(daemon.root(), megabytes));
        }
        daemon.spawn(self.failpoints.as_deref());
        daemon
    }
}

/// A running daemon. Dropping it removes all its containers, stops it, and
/// fails the test when something is left behind.
#[derive(Debug)]
pub struct Daemon {
    dir: TempDir,
    marker: String,
    child: Option<Child>,
    disk: Option<Disk>,
}

/// A small file system of its own.
#[derive(Debug)]
struct Disk(PathBuf);

impl Disk {
    #[track_caller]
    fn mount(at: PathBuf, megabytes: u64) -> Self {
        fs::create_dir(&at).expect("a mount point");
        let options = format!("size={megabytes}m");
        nix::mount::mount(
            Some("davit-tests"),
            &at,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("a tmpfs can be mounted");
        Self(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

impl Daemon {
    /// Starts a daemon with the defaults.
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A daemon that is still to be configured.
    pub fn builder() -> DaemonBuilder {
        DaemonBuilder::default()
    }

    /// The daemon's temporary directory: root, state and sockets.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory that survives a reboot.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("r")
    }

    /// The directory that does not.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// The socket of the gRPC API.
    pub fn address(&self) -> PathBuf {
        self.state().join("davit.sock")
    }

    /// The socket of the Docker API.
    pub fn docker_address(&self) -> PathBuf {
        self.state().join("docker.sock")
    }

    /// Process id; panics when the daemon does not run.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// What the daemon logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A client on the daemon's socket, which connects again after a restart.
    pub fn client(&self) -> Client {
        Client::lazy(self.address())
    }

    /// The command line `davit`, pointed at this daemon.
    pub fn davit_command(&self) -> Command {
        let mut command = command(binary("davit"));
        command.arg("--address").arg(self.address());
        command
    }

    /// Runs `davit args…`.
    #[track_caller]
    pub fn davit(&self, args: &[&str]) -> Output {
        run(self.davit_command().args(args), None)
    }

    /// The real docker CLI, pointed at this daemon's gateway.
    pub fn docker_command(&self) -> Command {
        let mut command = command("docker");
        command
            .arg("-H")
            .arg(format!("unix://{}", self.docker_address().display()))
            .env("DOCKER_CONFIG", self.dir.path().join("docker-config"))
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// Runs `docker args…`.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Output {
        run(self.docker_command().args(args), None)
    }

    /// Makes a busybox image, pushes it to `registry` as `name`, and pulls it
    /// from there. Gives its reference.
    #[track_caller]
    pub fn pull_busybox(&self, registry: &Registry, name: &str, spec: &ImageSpec) -> String {
        let dir = TempDir::new().expect("a temporary directory");
        busybox_layout(dir.path(), spec);
        let layout = format!("{}:latest", dir.path().join("layout").display());
        let reference = registry.push_layout(&layout, name);
        self.davit(&["pull", "--quiet", &reference]).ok();
        reference
    }

    /// Sends a signal to the daemon's process only.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid().cast_signed());
        nix::sys::signal::kill(pid, signal).expect("the daemon can be signalled");
    }

    /// Kills the daemon with SIGKILL and reaps it.
    #[track_caller]
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("the daemon can be killed");
        child.wait().expect("the daemon can be reaped");
    }

    /// Waits until the daemon has ended by itself, and gives its exit code.
    #[track_caller]
    pub fn wait_ended(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("the daemon runs");
        until("the daemon to end", || {
            child.try_wait().expect("a child can be waited for")
        })
        .code()
    }

    /// Whether the daemon's process lives.
    pub fn alive(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Forgets a daemon that has ended by itself.
    pub fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().expect("the daemon can be reaped");
        }
    }

    /// Starts the daemon again on the same directories.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.spawn(None);
        self.wait_ready();
    }

    /// Starts the daemon again with failpoints.
    #[track_caller]
    pub fn start_again_with_failpoints(&mut self, failpoints: &str) {
        self.spawn(Some(failpoints));
        self.wait_ready();
    }

    /// Starts the daemon again with failpoints on the way up.
    #[track_caller]
    pub fn try_start_again_with_failpoints(&mut self, failpoints: &str) {
        self.spawn(Some(failpoints));
        self.ready_or_ended();
    }

    /// Overwrites the files of a stopped daemon's store with rubbish.
    #[track_caller]
    pub fn damage_store(&self) {
        assert!(
            self.child.is_none(),
            "a running daemon's store is not damaged"
        );
        let mut damaged = 0;
        let mut open = vec![self.root().join("store")];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).expect("the store's directory").flatten() {
                let metadata = entry.metadata().expect("an entry of the store");
                if metadata.is_dir() {
                    open.push(entry.path());
                } else if metadata.len() > 4096 {
                    fs::write(entry.path(), vec![0xa5; 100_000]).expect("a file of the store");
                    damaged += 1;
                }
            }
        }
        assert!(damaged > 0, "there was no store");
    }

    /// Kills with -9 and starts again.
    #[track_caller]
    pub fn crash_and_restart(&mut self) {
        self.kill9();
        self.start_again();
    }

    /// Stops with SIGTERM and waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.wait_ended()
    }

    /// What mentions this daemon in processes, mounts and cgroups.
    pub fn residue(&self) -> Residue {
        Residue::of(self.dir.path(), &self.marker)
    }

    /// The host's links that are this daemon's: gone when it has stopped and
    /// nothing runs.
    pub fn links(&self) -> std::collections::BTreeSet<String> {
        crate::residue::links(&self.root())
    }

    /// The marker in the cgroups of this daemon's containers.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// Starts a second process with the same arguments, to see it refused.
    pub fn second(&self) -> Output {
        run(&mut self.daemon_command(), None)
    }

    fn daemon_command(&self) -> Command {
        let mut command = command(binary("davitd"));
        command
            .arg("--config")
            .arg(self.dir.path().join("config.toml"))
            .arg("--root")
            .arg(self.root())
            .arg("--state")
            .arg(self.state())
            .args(["--log-level", "info,davit_engine=debug,davitd=debug"]);
        command
    }

    #[track_caller]
    fn spawn(&mut self, failpoints: Option<&str>) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("the log can be opened");
        let mut command = self.daemon_command();
        if let Some(failpoints) = failpoints {
            command.env("FAILPOINTS", failpoints);
        }
        let child = command
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("davitd can be started");
        self.child = Some(child);
    }

    /// Waits until the daemon serves both its sockets.
    #[track_caller]
    fn wait_ready(&mut self) {
        if let Some(status) = self.ready_or_ended() {
            panic!("davitd ended with {status}:\n{}", self.log());
        }
    }

    #[track_caller]
    fn ready_or_ended(&mut self) -> Option<std::process::ExitStatus> {
        let sockets = [self.address(), self.docker_address()];
        let mut ended = None;
        until("davitd to be ready", || {
            ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            let ready = sockets
                .iter()
                .all(|path| std::os::unix::net::UnixStream::connect(path).is_ok());
            (ready || ended.is_some()).then_some(())
        });
        ended
    }

    fn remove_all(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for the clean-up");
        runtime.block_on(async {
            // Made in here: a connection belongs to a runtime.
            let client = self.client();
            let namespaces = client
                .system()
                .list_namespaces(v1::ListNamespacesRequest {})
                .await
                .map(|reply| reply.into_inner().namespaces)
                .unwrap_or_default();
            for namespace in namespaces {
                let Ok(client) = client.with_namespace(&namespace) else {
                    continue;
                };
                let list = v1::ListContainersRequest {
                    all: true,
                    ..Default::default()
                };
                let Ok(reply) = client.containers().list(list).await else {
                    continue;
                };
                for container in reply.into_inner().containers {
                    let request = v1::RemoveContainerRequest {
                        container: container.id,
                        force: true,
                        volumes: true,
                    };
                    if let Err(status) = client.containers().remove(request).await
                        && status.code() != tonic::Code::NotFound
                    {
                        eprintln!("clean-up: {status}");
                    }
                }
            }
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_none() {
            // A test that ends with a dead daemon still has to clean up what
            // runs; the next daemon does that.
            self.spawn(None);
            self.wait_ready();
        }
        // Blocking on a runtime inside a runtime is refused, so on a thread.
        std::thread::scope(|scope| {
            scope.spawn(|| self.remove_all());
        });
        let _ = self.stop();
        if std::thread::panicking() {
            eprintln!("--- davitd's log ---\n{}", self.log());
            return;
        }
        self.disk = None;
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !(self.residue().is_empty() && self.links().is_empty())
            && std::time::Instant::now() < end
        {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        assert!(
            self.links().is_empty(),
            "left on the host: {:?}\n{}",
            self.links(),
            self.log()
        );
        let residue = self.residue();
        assert!(
            residue.is_empty(),
            "left behind: {residue:#?}
{}",
            self.log()
        );
    }
}
