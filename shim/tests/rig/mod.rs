//! A real shim with a real runtime in a temporary directory, and a client for it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use containerd_shim_protos::api;
use containerd_shim_protos::shim_async::{Client, TaskClient};
use containerd_shim_protos::types::mount::Mount;
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use ttrpc::context::Context;

/// The shim under test: this build's, or another one to compare with.
pub fn shim() -> String {
    std::env::var("DAVIT_TEST_SHIM")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_containerd-shim-davit-v2").to_owned())
}

/// One shim with its bundle. What it leaves behind is removed on drop.
pub struct Rig {
    pub directory: TempDir,
    pub bundle: PathBuf,
    pub id: String,
    pub client: TaskClient,
    pub runtime: String,
    shim: Child,
}

/// What varies from test to test.
#[derive(Default)]
pub struct Setup<'a> {
    /// Merged into config.json's `process`.
    pub process: Option<Value>,
    /// Merged into config.json's `linux`.
    pub linux: Option<Value>,
    /// Environment of the shim.
    pub environment: &'a [(&'a str, &'a str)],
    pub runtime: Option<&'a str>,
}

impl Rig {
    /// A shim whose container will run `args`.
    pub async fn new(args: &[&str]) -> Rig {
        Rig::with(args, Setup::default()).await
    }

    /// A shim whose container has a terminal.
    pub async fn tty(args: &[&str]) -> Rig {
        Rig::with(
            args,
            Setup {
                process: Some(json!({"terminal": true})),
                ..Setup::default()
            },
        )
        .await
    }

    pub async fn with(args: &[&str], setup: Setup<'_>) -> Rig {
        let directory = tempfile::Builder::new().prefix("dshim").tempdir().unwrap();
        let id = format!(
            "t{}",
            directory
                .path()
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .trim_start_matches("dshim")
        );
        let bundle = directory.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        busybox(&directory.path().join("image"));
        let config = config(&id, args, &setup);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let socket = directory.path().join("s.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = Command::new(shim());
        command.args([
            "serve",
            "--namespace",
            "test",
            "--id",
            &id,
            "--bundle",
            bundle.to_str().unwrap(),
        ]);
        command
            .envs(setup.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.stderr(fs::File::create(directory.path().join("shim.log")).unwrap());
        davit_sys::process::inherit(&mut command, vec![(OwnedFd::from(listener), 3)]);
        let shim = command.spawn().unwrap();
        let client = Client::connect(&format!("unix://{}", socket.display()))
            .await
            .unwrap();
        let runtime = setup.runtime.map(str::to_owned).unwrap_or_else(|| {
            std::env::var("DAVIT_TEST_RUNTIME").unwrap_or_else(|_| "runc".to_owned())
        });
        Rig {
            directory,
            bundle,
            id,
            client: TaskClient::new(client),
            runtime,
            shim,
        }
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("container.log")
    }

    pub fn shim_pid(&self) -> u32 {
        self.shim.id()
    }

    pub fn options(&self) -> Any {
        let root = self.directory.path().join("runtime-root");
        Any {
            type_url: "davit.shim.v1.Options".into(),
            value: json!({"runtime": self.runtime, "root": root})
                .to_string()
                .into_bytes(),
            ..Default::default()
        }
    }

    pub fn create_request(&self) -> api::CreateTaskRequest {
        let config: Value =
            serde_json::from_slice(&fs::read(self.bundle.join("config.json")).unwrap()).unwrap();
        let rootfs = Mount {
            type_: "bind".into(),
            source: self.directory.path().join("image").to_str().unwrap().into(),
            options: vec!["rbind".into(), "ro".into()],
            ..Default::default()
        };
        api::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.to_str().unwrap().into(),
            rootfs: vec![rootfs],
            terminal: config["process"]["terminal"].as_bool().unwrap_or(false),
            stdout: format!("davit://{}", self.log_path().display()),
            options: MessageField::some(self.options()),
            ..Default::default()
        }
    }

    pub async fn create(&self) -> u32 {
        self.client
            .create(deadline(60), &self.create_request())
            .await
            .unwrap()
            .pid
    }

    /// With stdin open.
    pub async fn create_interactive(&self) -> u32 {
        let request = api::CreateTaskRequest {
            stdin: "davit://".into(),
            ..self.create_request()
        };
        self.client
            .create(deadline(60), &request)
            .await
            .unwrap()
            .pid
    }

    pub async fn start(&self) -> u32 {
        self.start_exec("").await.unwrap()
    }

    pub async fn start_exec(&self, exec_id: &str) -> ttrpc::Result<u32> {
        let request = api::StartRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        self.client
            .start(deadline(60), &request)
            .await
            .map(|response| response.pid)
    }

    pub async fn wait(&self, exec_id: &str) -> u32 {
        let request = api::WaitRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        self.client
            .wait(deadline(60), &request)
            .await
            .unwrap()
            .exit_status
    }

    pub async fn delete(&self, exec_id: &str) -> ttrpc::Result<api::DeleteResponse> {
        let request = api::DeleteRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        self.client.delete(deadline(60), &request).await
    }

    pub async fn kill(&self, exec_id: &str, signal: u32, all: bool) -> ttrpc::Result<()> {
        let request = api::KillRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            signal,
            all,
            ..Default::default()
        };
        self.client.kill(deadline(60), &request).await.map(drop)
    }

    pub async fn state(&self, exec_id: &str) -> ttrpc::Result<api::StateResponse> {
        let request = api::StateRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            ..Default::default()
        };
        self.client.state(deadline(10), &request).await
    }

    pub async fn status(&self, exec_id: &str) -> String {
        format!(
            "{:?}",
            self.state(exec_id)
                .await
                .unwrap()
                .status
                .enum_value()
                .unwrap()
        )
    }

    /// Adds an exec of `args` whose output goes to attached clients only.
    pub async fn exec(&self, exec_id: &str, args: &[&str], terminal: bool) -> ttrpc::Result<()> {
        let process = json!({
            "terminal": terminal, "args": args, "cwd": "/", "user": {"uid": 0, "gid": 0},
            "env": ["PATH=/bin"],
        });
        let request = api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            terminal,
            stdin: "davit://".into(),
            stdout: "davit://".into(),
            spec: MessageField::some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
                value: process.to_string().into_bytes(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.client.exec(deadline(10), &request).await.map(drop)
    }

    /// Runs the container to its end; returns exit code and the log's text.
    pub async fn run(&self) -> (u32, String) {
        self.create().await;
        self.start().await;
        let code = self.wait("").await;
        (code, self.log_text())
    }

    /// The texts of all log entries.
    pub fn log_text(&self) -> String {
        self.log_entries()
            .iter()
            .map(|entry| entry["log"].as_str().unwrap())
            .collect()
    }

    pub fn log_entries(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub fn shim_log(&self) -> String {
        fs::read_to_string(self.directory.path().join("shim.log")).unwrap()
    }

    pub async fn attach(&self, hello: Value) -> Attached {
        let mut stream = UnixStream::connect(self.bundle.join("a.sock"))
            .await
            .unwrap();
        send(&mut stream, 0x01, hello.to_string().as_bytes()).await;
        let (kind, ready) = Attached::read(&mut stream)
            .await
            .expect("an answer to HELLO");
        assert_eq!(kind, 0x02, "{}", String::from_utf8_lossy(&ready));
        Attached {
            stream,
            ready: serde_json::from_slice(&ready).unwrap(),
        }
    }

    /// Asks the shim to go, and waits until it has.
    pub async fn shutdown(&mut self) -> bool {
        let request = api::ShutdownRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        self.client.shutdown(deadline(10), &request).await.unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if self.shim.try_wait().unwrap().is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// Leaves nothing to do for the drop: all has been deleted.
    pub fn forget(&mut self) {
        fs::remove_file(self.bundle.join("runtime.json")).unwrap();
    }

    /// Whether the shim has ended.
    pub fn exited(&mut self) -> bool {
        self.shim.try_wait().unwrap().is_some()
    }

    /// How many threads the shim has: one, for ever, since the built-in runtime forks it.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.shim_pid()))
            .unwrap()
            .count()
    }

    /// kill -9.
    pub fn kill_shim(&mut self) {
        self.shim.kill().unwrap();
        self.shim.wait().unwrap();
    }

    /// Runs `delete` as a daemon does when the shim is gone.
    pub fn clean_up(&self) -> std::process::Output {
        Command::new(shim())
            .args([
                "-namespace",
                "test",
                "-id",
                &self.id,
                "-bundle",
                self.bundle.to_str().unwrap(),
                "delete",
            ])
            .current_dir(&self.bundle)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "shim: {}",
                fs::read_to_string(self.directory.path().join("shim.log")).unwrap_or_default()
            );
        }
        let _ = self.shim.kill();
        let _ = self.shim.wait();
        let output = self.clean_up();
        if !output.status.success() {
            eprintln!("delete: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// An attached client.
pub struct Attached {
    pub stream: UnixStream,
    pub ready: Value,
}

/// What came until the shim closed.
#[derive(Debug, Default)]
pub struct Heard {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit: Option<Value>,
    pub lagged: Option<Value>,
}

impl Attached {
    /// The next frame; none when the shim has closed.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        Attached::read(&mut self.stream).await
    }

    async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        let read =
            tokio::time::timeout(Duration::from_secs(60), stream.read_exact(&mut header)).await;
        read.expect("a frame in time").ok()?;
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.ok()?;
        Some((header[0], payload))
    }

    pub async fn stdin(&mut self, data: &[u8]) {
        send(&mut self.stream, 0x10, data).await;
    }

    pub async fn close_stdin(&mut self) {
        send(&mut self.stream, 0x11, b"").await;
    }

    pub async fn resize(&mut self, width: u16, height: u16) {
        send(
            &mut self.stream,
            0x12,
            json!({"width": width, "height": height})
                .to_string()
                .as_bytes(),
        )
        .await;
    }

    /// Reads until stdout has `text`.
    pub async fn expect(&mut self, text: &str) -> String {
        let mut heard = String::new();
        while !heard.contains(text) {
            let (kind, payload) = self
                .frame()
                .await
                .unwrap_or_else(|| panic!("closed before {text:?}: {heard:?}"));
            assert_eq!(kind, 0x20, "waiting for {text:?}, heard {heard:?}");
            heard.push_str(&String::from_utf8_lossy(&payload));
        }
        heard
    }

    /// Reads to the end.
    pub async fn rest(mut self) -> Heard {
        Attached::rest_of(&mut self.stream).await
    }

    pub async fn rest_of(stream: &mut (impl AsyncReadExt + Unpin)) -> Heard {
        let mut heard = Heard::default();
        while let Some((kind, payload)) = Attached::read(stream).await {
            match kind {
                0x20 => heard.stdout.extend(payload),
                0x21 => heard.stderr.extend(payload),
                0x22 => heard.exit = Some(serde_json::from_slice(&payload).unwrap()),
                0x23 => heard.lagged = Some(serde_json::from_slice(&payload).unwrap()),
                other => panic!("frame {other:#x}"),
            }
        }
        heard
    }
}

pub async fn send(stream: &mut (impl AsyncWriteExt + Unpin), kind: u8, payload: &[u8]) {
    let mut bytes = vec![kind];
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    stream.write_all(&bytes).await.unwrap();
}

pub fn deadline(seconds: i64) -> Context {
    ttrpc::context::with_timeout(seconds * 1_000_000_000)
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn code(error: &ttrpc::Error) -> ttrpc::Code {
    match error {
        ttrpc::Error::RpcStatus(status) => status.code(),
        other => panic!("{other}"),
    }
}

pub fn message(error: &ttrpc::Error) -> String {
    match error {
        ttrpc::Error::RpcStatus(status) => status.message().to_owned(),
        other => panic!("{other}"),
    }
}

/// A root file system with busybox and nothing else.
pub fn busybox(root: &Path) {
    for directory in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let names = [
        "sh", "echo", "cat", "sleep", "true", "false", "stty", "head", "yes", "dd", "seq", "wc",
        "tty", "kill", "ls", "md5sum", "printf", "id", "trap", "test", "tr",
    ];
    for name in names {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

pub fn config(id: &str, args: &[&str], setup: &Setup<'_>) -> Value {
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "args": args, "cwd": "/", "user": {"uid": 0, "gid": 0},
            "env": ["PATH=/bin", "TERM=xterm"],
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL", "CAP_CHOWN"],
                "permitted": ["CAP_KILL", "CAP_CHOWN"],
            },
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1048576k"]},
        ],
        "linux": {
            "cgroupsPath": format!("/davit-shim-{id}"),
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "resources": {"devices": [{"allow": true, "access": "rwm"}]},
        },
    });
    for (key, patch) in [("process", &setup.process), ("linux", &setup.linux)] {
        for (name, value) in patch.iter().filter_map(|patch| patch.as_object()).flatten() {
            config[key][name] = value.clone();
        }
    }
    config
}
