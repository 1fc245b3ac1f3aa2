//! A whole engine in a temporary directory: real store, images and shim.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use davit_engine::{Engine, EngineConfig, model::*};
use davit_images::{Images, ImagesConfig, image::CreateFromTarOptions};
use davit_store::{Event, From, Item, Options, Store, options::ContainerOptions};

pub(crate) const NS: &str = "default";

/// An engine and what it lives in.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    pub(crate) images: Images,
    pub(crate) config: EngineConfig,
    dir: Option<tempfile::TempDir>,
}

/// The shim's binary, built once.
fn shim() -> PathBuf {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "-q", "-p", "davit-shim"]);
        if cfg!(feature = "failpoints") {
            // The same binary serves the crash tests of other crates.
            build.args(["--features", "failpoints"]);
        }
        let status = build.status().unwrap();
        assert!(status.success(), "the shim does not build");
        let test = std::env::current_exe().unwrap();
        test.parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("containerd-shim-davit-v2")
    })
    .clone()
}

fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!(
        "davit-engine-test-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    )
}

impl Rig {
    /// An engine whose containers run with `runtime` unless they say other.
    pub(crate) async fn new(runtime: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            EngineConfig::new(dir.path().join("root"), dir.path().join("state"), shim());
        config.default_runtime = runtime.to_owned();
        config.cgroup_parent = unique();
        std::fs::create_dir_all(&config.root).unwrap();
        let (store, images, engine) = open(&config).await;
        let rig = Self {
            engine,
            store,
            images,
            config,
            dir: Some(dir),
        };
        let options = CreateFromTarOptions {
            name: "busybox".to_owned(),
            changes: vec!["CMD [\"sh\"]".to_owned()],
            ..Default::default()
        };
        rig.images
            .create_from_tar(NS, options, std::io::Cursor::new(busybox()))
            .await
            .unwrap();
        rig
    }

    /// Ends the engine as SIGTERM would, and opens the next one.
    pub(crate) async fn reopen(self) -> Self {
        self.close().await;
        self.reopen_closed().await
    }

    /// Opens the next engine after [`Rig::close`].
    pub(crate) async fn reopen_closed(self) -> Self {
        self.reopen_timed().await.0
    }

    /// The same; tells how long the engine alone took.
    pub(crate) async fn reopen_timed(mut self) -> (Self, Duration) {
        let dir = self.dir.take();
        let config = self.config.clone();
        drop(self);
        let (store, images) = open_below(&config).await;
        let begin = Instant::now();
        let engine = Engine::open(config.clone(), store.clone(), images.clone())
            .await
            .unwrap();
        let took = begin.elapsed();
        (
            Self {
                engine,
                store,
                images,
                config,
                dir,
            },
            took,
        )
    }

    /// After [`Rig::close`]: deletes a container's record behind the back of
    /// the next engine.
    pub(crate) async fn forget_record(mut self, id: &str) -> Self {
        let dir = self.dir.take();
        let config = self.config.clone();
        drop(self);
        let (store, images) = open_below(&config).await;
        store
            .transaction(|tx| tx.delete::<davit_store::table::Containers>((NS, id)))
            .unwrap();
        let engine = Engine::open(config.clone(), store.clone(), images.clone())
            .await
            .unwrap();
        Self {
            engine,
            store,
            images,
            config,
            dir,
        }
    }

    /// Ends the engine, removes its store, and opens the next one.
    pub(crate) async fn lose_store(mut self) -> Self {
        self.close().await;
        let dir = self.dir.take();
        let config = self.config.clone();
        drop(self);
        std::fs::remove_dir_all(config.root.join("store")).unwrap();
        let (store, images) = open_below(&config).await;
        let engine = Engine::open(config.clone(), store.clone(), images.clone())
            .await
            .unwrap();
        Self {
            engine,
            store,
            images,
            config,
            dir,
        }
    }

    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.config.state.join("shims").join(NS).join(id)
    }

    /// The first process of a container, as its bundle says.
    pub(crate) fn bundle_pid(&self, id: &str) -> u32 {
        let run = std::fs::read(self.bundle(id).join("run.json")).unwrap();
        let run: serde_json::Value = serde_json::from_slice(&run).unwrap();
        u32::try_from(run["pid"].as_u64().unwrap()).unwrap()
    }

    /// Ends the engine; the containers run on.
    pub(crate) async fn close(&self) {
        self.engine.close().await;
        self.store.close().unwrap();
    }

    /// A container of the test image that runs a shell line.
    pub(crate) async fn create(&self, line: &str) -> String {
        self.create_with(line, ContainerOptions::default()).await
    }

    /// The same with options.
    pub(crate) async fn create_with(&self, line: &str, options: ContainerOptions) -> String {
        let args = ["sh", "-c", line].map(str::to_owned).to_vec();
        let options = ContainerOptions {
            args: Some(args),
            network_mode: "none".to_owned(),
            stop_timeout: options.stop_timeout.or(Some(5)),
            ..options
        };
        let request = CreateContainerRequest {
            image: "busybox".to_owned(),
            options,
            ..Default::default()
        };
        self.engine
            .containers()
            .create(NS, request)
            .await
            .unwrap()
            .id
    }

    pub(crate) async fn start(&self, id: &str) {
        let started = self.engine.tasks().start(NS, id).await.unwrap();
        assert!(started.pid > 0);
    }

    pub(crate) fn get(&self, id: &str) -> Container {
        self.engine.containers().get(NS, id).unwrap()
    }

    pub(crate) async fn wait(&self, id: &str) -> ExitStatus {
        let waiter = self
            .engine
            .tasks()
            .wait(NS, id, WaitCondition::NotRunning)
            .unwrap();
        tokio::time::timeout(Duration::from_secs(30), waiter.wait())
            .await
            .expect("the container ends")
            .unwrap()
    }

    pub(crate) async fn remove(&self, id: &str) {
        let options = RemoveOptions {
            force: true,
            volumes: true,
        };
        self.engine
            .containers()
            .remove(NS, id, options)
            .await
            .unwrap();
    }

    /// Everything in the log, as text.
    pub(crate) async fn logs(&self, id: &str) -> String {
        use futures::StreamExt;
        let request = LogsRequest {
            stdout: true,
            stderr: true,
            ..Default::default()
        };
        let mut entries = self.engine.tasks().logs(NS, id, request).await.unwrap();
        let mut text = String::new();
        while let Some(entry) = entries.next().await {
            text.push_str(&String::from_utf8_lossy(&entry.unwrap().line));
        }
        text
    }

    /// Waits until the log is this.
    pub(crate) async fn logged(&self, id: &str, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.logs(id).await != text {
            assert!(Instant::now() < deadline, "not in the log: {text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Runs a shell line in a container; its exit code and output.
    pub(crate) async fn exec(&self, id: &str, line: &str) -> (i32, String) {
        let options = ExecOptions {
            args: ["sh", "-c", line].map(str::to_owned).to_vec(),
            attach_stdout: true,
            attach_stderr: true,
            ..Default::default()
        };
        let target = ExecTarget::New {
            container: id.to_owned(),
            options,
        };
        let session = self.engine.tasks().exec(NS, target, None).await.unwrap();
        let (output, exit) = drain(session).await;
        (exit.expect("an exit"), output)
    }

    /// Actions of a container's events so far, in order.
    pub(crate) async fn actions(&self, id: &str) -> Vec<String> {
        self.events()
            .await
            .into_iter()
            .filter(|event| event.id == id)
            .map(|event| event.action.clone())
            .collect()
    }

    pub(crate) async fn events(&self) -> Vec<std::sync::Arc<Event>> {
        let log = self.store.events();
        let last = log.last_number();
        let mut stream = log.subscribe(From::Start).unwrap();
        let mut events = Vec::new();
        while events
            .last()
            .is_none_or(|event: &std::sync::Arc<Event>| event.number < last)
        {
            match stream.next().await {
                Some(Item::Event(event)) => events.push(event),
                other => panic!("{other:?}"),
            }
        }
        events
    }

    /// Removes every container and checks that nothing is left.
    pub(crate) async fn finish(self) {
        for container in self
            .engine
            .containers()
            .list(
                NS,
                ListContainersRequest {
                    all: true,
                    ..Default::default()
                },
            )
            .await
            .unwrap()
        {
            self.remove(&container.id).await;
        }
        let left = |path: PathBuf| -> Vec<PathBuf> {
            let Ok(entries) = std::fs::read_dir(path) else {
                return Vec::new();
            };
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        assert_eq!(
            left(self.config.state.join("shims").join(NS)),
            Vec::<PathBuf>::new()
        );
        assert_eq!(left(self.config.state.join("s")), Vec::<PathBuf>::new());
        assert_eq!(
            left(self.config.root.join("containers").join(NS)),
            Vec::<PathBuf>::new()
        );
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.config.root.parent().unwrap().to_str().unwrap();
        assert!(!mounts.contains(root), "mounts are left");
        eventually("shims are gone", || shims(&self.config.state).is_empty()).await;
        eventually("cgroups are gone", || {
            cgroups(&self.config.cgroup_parent).is_empty()
        })
        .await;
        self.close().await;
        forget_cgroups(&self.config.cgroup_parent);
    }
}

impl Drop for Rig {
    /// A test that failed leaves nothing behind either.
    fn drop(&mut self) {
        if self.dir.is_none() || !std::thread::panicking() {
            return;
        }
        let bundles = std::fs::read_dir(self.config.state.join("shims").join(NS))
            .into_iter()
            .flatten()
            .flatten();
        for bundle in bundles.map(|entry| entry.path()) {
            let run: Option<serde_json::Value> = std::fs::read(bundle.join("run.json"))
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let pid = run.and_then(|run| i32::try_from(run["pid"].as_i64()?).ok());
            for pid in pid
                .into_iter()
                .chain(shims(&self.config.state).into_iter().map(u32::cast_signed))
            {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            let _ = nix::mount::umount2(&bundle.join("rootfs"), nix::mount::MntFlags::MNT_DETACH);
        }
        for cgroup in cgroups(&self.config.cgroup_parent) {
            let _ = std::fs::remove_dir(cgroup);
        }
        forget_cgroups(&self.config.cgroup_parent);
    }
}

async fn open_below(config: &EngineConfig) -> (Store, Images) {
    let store = Store::open(config.root.join("store"), Options::default())
        .unwrap()
        .store;
    let images = Images::open(
        ImagesConfig::new(&config.root, &config.state),
        store.clone(),
    )
    .await
    .unwrap();
    (store, images)
}

async fn open(config: &EngineConfig) -> (Store, Images, Engine) {
    let (store, images) = open_below(config).await;
    let engine = Engine::open(config.clone(), store.clone(), images.clone())
        .await
        .unwrap();
    (store, images, engine)
}

/// Output and exit code of a session, read to its end.
pub(crate) async fn drain(session: Session) -> (String, Option<i32>) {
    let mut output = session.output;
    let (mut text, mut code) = (Vec::new(), None);
    let read = async {
        while let Some(item) = output.recv().await {
            match item.unwrap() {
                Output::Stdout(bytes) | Output::Stderr(bytes) => text.extend_from_slice(&bytes),
                Output::Exit(exit) => code = Some(exit.exit_code),
                Output::Detached => break,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), read)
        .await
        .expect("the session ends");
    (String::from_utf8_lossy(&text).into_owned(), code)
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Process ids of the shims whose bundles are below `state`.
pub(crate) fn shims(state: &Path) -> Vec<u32> {
    let prefix = state.join("shims");
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(prefix.to_str().unwrap())
        })
        .collect()
}

/// cgroups below the parent `name`, in any hierarchy.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for top in tops() {
        if let Ok(entries) = std::fs::read_dir(top.join(name)) {
            found.extend(
                entries
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| path.is_dir()),
            );
        }
    }
    found
}

fn forget_cgroups(name: &str) {
    for top in tops() {
        let _ = std::fs::remove_dir(top.join(name));
    }
}

fn tops() -> Vec<PathBuf> {
    let base = PathBuf::from("/sys/fs/cgroup");
    let mut tops = vec![base.clone()];
    tops.extend(
        std::fs::read_dir(base)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    tops
}

/// A root file system of one static busybox.
fn busybox() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let program = std::fs::read("/bin/busybox").unwrap();
    let dir = |tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        tar.append_data(&mut header, path, std::io::empty())
            .unwrap();
    };
    for (path, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("proc", 0o755),
        ("sys", 0o755),
        ("dev", 0o755),
        ("tmp", 0o1777),
    ] {
        dir(&mut tar, path, mode);
    }
    let files = BTreeMap::from([
        ("bin/busybox", program.as_slice()),
        (
            "etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n".as_slice(),
        ),
        ("etc/group", b"root:x:0:\nuser:x:1000:\n".as_slice()),
    ]);
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if path.starts_with("bin") {
            0o755
        } else {
            0o644
        });
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes).unwrap();
    }
    for name in [
        "sh", "cat", "echo", "sleep", "true", "false", "kill", "ls", "id", "test", "seq", "head",
        "tty", "stty", "env", "rm", "touch",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox")
            .unwrap();
    }
    tar.into_inner().unwrap()
}
