//! runc-compatible binaries: runc, crun, youki. Each call is one run of the binary, with a deadline.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::console::ConsoleSocket;
use super::{
    CheckpointRequest, CreateRequest, Created, ExecRequest, ProcessIo, RuntimeOptions,
    RuntimeState, report,
};
use crate::cgroup::GracePeriod;
use crate::error::{Error, Kind, Result};
use crate::reaper::Reaper;

/// Calls that start processes, and hooks with them.
const LONG: Duration = Duration::from_secs(120);
/// All others.
const SHORT: Duration = Duration::from_secs(30);
/// criu writes all of a container's memory.
const CHECKPOINT: Duration = Duration::from_secs(3600);
/// More output than this is no answer.
const MAX_OUTPUT: u64 = 4 << 20;

/// A runc-compatible binary.
#[derive(Debug, Clone)]
pub(crate) struct External {
    options: RuntimeOptions,
    binary: PathBuf,
    /// The runtime's log: `log.json` in the bundle.
    log: PathBuf,
    reaper: Reaper,
}

/// What the binary's own descriptors are.
enum Streams {
    /// Nothing to read, output is collected.
    Collected,
    /// The container's.
    Container {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// /dev/null for all three (a console socket carries the container's).
    Null,
}

impl External {
    /// Finds the binary.
    ///
    /// # Errors
    /// Not found, when neither `$PATH` nor the path given has it.
    pub(crate) fn new(options: RuntimeOptions, bundle: &Path, reaper: Reaper) -> Result<External> {
        let binary = find(&options.runtime).ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!(
                    "runtime {:?}: no such executable file; install it or name another runtime",
                    options.runtime
                ),
            )
        })?;
        Ok(External {
            options,
            binary,
            log: bundle.join("log.json"),
            reaper,
        })
    }

    /// Whether a container's init is a process that signals can be sent to directly, which saves a run of the binary.
    /// True of the runtimes that make plain processes; a sandbox's pid may stand for something else.
    pub(crate) fn signals_by_pid(&self) -> bool {
        matches!(&*self.name(), "runc" | "crun" | "youki")
    }

    pub(crate) async fn create(&self, request: CreateRequest<'_>) -> Result<Created> {
        let verb = if request.checkpoint.is_some() {
            "restore"
        } else {
            "create"
        };
        let pid_file = request.bundle.join("init.pid");
        let mut args: Vec<OsString> = vec![verb.into(), "--bundle".into(), request.bundle.into()];
        args.extend(["--pid-file".into(), pid_file.clone().into()]);
        if self.options.no_pivot_root {
            args.push("--no-pivot".into());
        }
        if self.options.no_new_keyring && request.checkpoint.is_none() {
            args.push("--no-new-keyring".into());
        }
        if let Some(image) = request.checkpoint {
            args.extend(["--image-path".into(), image.into(), "--detach".into()]);
            if let Some(work) = &self.options.criu_work_path {
                args.extend(["--work-path".into(), work.into()]);
            }
        }
        if !request.preserved.is_empty() {
            args.extend([
                "--preserve-fds".into(),
                request.preserved.len().to_string().into(),
            ]);
        }
        // A shortcut for the moves into cgroups that the runtime is about to make.
        let _period = GracePeriod::begin().ok();
        self.spawn(
            args,
            request.id,
            request.bundle,
            INIT_CONSOLE,
            request.io,
            request.preserved,
            &pid_file,
        )
        .await
    }

    pub(crate) async fn start(&self, id: &str) -> Result<()> {
        self.call(&["start", id], LONG).await.map(drop)
    }

    pub(crate) async fn exec(&self, request: ExecRequest<'_>) -> Result<Created> {
        let process = request
            .bundle
            .join(format!("{}.process.json", request.exec_id));
        let pid_file = request.bundle.join(format!("{}.pid", request.exec_id));
        fs::write(&process, request.process).map_err(|error| {
            Error::because(format_args!("writing {}", process.display()), error)
        })?;
        let args: Vec<OsString> = vec![
            "exec".into(),
            "--process".into(),
            process.clone().into(),
            "--pid-file".into(),
            pid_file.clone().into(),
            "--detach".into(),
        ];
        let console = format!("c-{:x}", short_hash(request.exec_id));
        let created = self
            .spawn(
                args,
                request.id,
                request.bundle,
                &console,
                request.io,
                Vec::new(),
                &pid_file,
            )
            .await;
        // Read by now; the bundle goes later anyhow.
        let _ = fs::remove_file(&process);
        created
    }

    pub(crate) async fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let signal = signal.to_string();
        let mut args = vec!["kill"];
        if all {
            args.push("--all");
        }
        args.extend([id, signal.as_str()]);
        self.call(&args, SHORT).await.map(drop)
    }

    pub(crate) async fn delete(&self, id: &str, force: bool) -> Result<()> {
        let args: &[&str] = if force {
            &["delete", "--force", id]
        } else {
            &["delete", id]
        };
        match self.call(args, LONG).await {
            Err(error) if force && error.kind == Kind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    pub(crate) async fn pause(&self, id: &str) -> Result<()> {
        self.call(&["pause", id], SHORT).await.map(drop)
    }

    pub(crate) async fn resume(&self, id: &str) -> Result<()> {
        self.call(&["resume", id], SHORT).await.map(drop)
    }

    pub(crate) async fn ps(&self, id: &str) -> Result<Vec<i32>> {
        let output = self.call(&["ps", "--format", "json", id], SHORT).await?;
        // runc prints null for a container without processes.
        let pids: Option<Vec<i32>> = serde_json::from_slice(&output).map_err(|error| {
            Error::because(format_args!("{} ps: unexpected output", self.name()), error)
        })?;
        Ok(pids.unwrap_or_default())
    }

    pub(crate) async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let path = self.log.with_file_name("update.json");
        fs::write(&path, resources)
            .map_err(|error| Error::because(format_args!("writing {}", path.display()), error))?;
        let args = [
            "update".into(),
            "--resources".into(),
            path.clone().into_os_string(),
            id.into(),
        ];
        let result = self
            .run(&args, Streams::Collected, Vec::new(), SHORT)
            .await
            .map(drop);
        // Read by now; the bundle goes later anyhow.
        let _ = fs::remove_file(&path);
        result
    }

    #[allow(dead_code, reason = "see RuntimeState")]
    pub(crate) async fn state(&self, id: &str) -> Result<RuntimeState> {
        #[derive(Deserialize)]
        struct State {
            status: String,
            #[serde(default)]
            pid: i32,
        }
        let output = self.call(&["state", id], SHORT).await?;
        let State { status, pid } = serde_json::from_slice(&output).map_err(|error| {
            Error::because(
                format_args!("{} state: unexpected output", self.name()),
                error,
            )
        })?;
        match status.as_str() {
            "creating" => Ok(RuntimeState::Creating),
            "created" => Ok(RuntimeState::Created { pid }),
            "running" => Ok(RuntimeState::Running { pid }),
            "paused" | "pausing" => Ok(RuntimeState::Paused { pid }),
            "stopped" => Ok(RuntimeState::Stopped),
            other => Err(Error::because(
                format_args!("{} state", self.name()),
                format_args!("unknown status {other:?}"),
            )),
        }
    }

    pub(crate) async fn checkpoint(
        &self,
        id: &str,
        bundle: &Path,
        request: &CheckpointRequest,
    ) -> Result<()> {
        let mut args: Vec<OsString> = vec![
            "checkpoint".into(),
            "--image-path".into(),
            request.image_path.clone().into(),
        ];
        let work = request
            .work_path
            .clone()
            .or_else(|| self.options.criu_work_path.clone());
        args.extend([
            "--work-path".into(),
            work.unwrap_or_else(|| bundle.to_owned()).into(),
        ]);
        let flags = [
            (!request.exit, "--leave-running"),
            (request.open_tcp, "--tcp-established"),
            (request.external_unix_sockets, "--ext-unix-sk"),
            (request.terminal, "--shell-job"),
            (request.file_locks, "--file-locks"),
        ];
        args.extend(
            flags
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, flag)| OsString::from(flag)),
        );
        for namespace in &request.empty_namespaces {
            args.extend(["--empty-ns".into(), namespace.into()]);
        }
        if !request.cgroups_mode.is_empty() {
            args.extend([
                "--manage-cgroups-mode".into(),
                OsString::from(&request.cgroups_mode),
            ]);
        }
        args.push(id.into());
        self.run(&args, Streams::Collected, Vec::new(), CHECKPOINT)
            .await
            .map(drop)
    }

    pub(crate) async fn features(&self) -> Result<Vec<u8>> {
        self.call(&["features"], SHORT).await
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.binary
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
    }

    /// create, restore and exec: a process with the container's stdio, whose pid comes in a file.
    #[allow(clippy::too_many_arguments)] // Private, and called from the two places above only.
    async fn spawn(
        &self,
        mut args: Vec<OsString>,
        id: &str,
        bundle: &Path,
        console_name: &str,
        io: ProcessIo,
        preserved: Vec<OwnedFd>,
        pid_file: &Path,
    ) -> Result<Created> {
        let (streams, socket) = match io {
            ProcessIo::Fds {
                stdin,
                stdout,
                stderr,
            } => (
                Streams::Container {
                    stdin,
                    stdout,
                    stderr,
                },
                None,
            ),
            ProcessIo::Console => {
                let socket = ConsoleSocket::bind(bundle, console_name.to_owned())
                    .map_err(|error| Error::because("making the console socket", error))?;
                args.extend(["--console-socket".into(), OsString::from(&socket.name)]);
                (Streams::Null, Some(socket))
            }
        };
        args.push(id.into());
        let run = self.run(&args, streams, preserved, LONG);
        let console = match &socket {
            None => run.await.map(|_| None)?,
            Some(socket) => Some(with_console(run, socket).await?),
        };
        let text = fs::read_to_string(pid_file).map_err(|error| {
            Error::because(
                format_args!("{} wrote no pid file {}", self.name(), pid_file.display()),
                error,
            )
        })?;
        let pid = text.trim().parse().map_err(|error| {
            Error::because(
                format_args!("pid file {}: {text:?}", pid_file.display()),
                error,
            )
        })?;
        Ok(Created { pid, console })
    }

    async fn call(&self, args: &[&str], deadline: Duration) -> Result<Vec<u8>> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        self.run(&args, Streams::Collected, Vec::new(), deadline)
            .await
    }

    async fn run(
        &self,
        args: &[OsString],
        streams: Streams,
        preserved: Vec<OwnedFd>,
        deadline: Duration,
    ) -> Result<Vec<u8>> {
        let verb = args
            .first()
            .map(|verb| verb.to_string_lossy().into_owned())
            .unwrap_or_default();
        let failed = |error: io::Error| {
            Error::because(
                format_args!("running {} {verb}", self.binary.display()),
                error,
            )
        };
        let logged = fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
        let mut command = self.command(args, preserved);
        let output = connect(&mut command, streams).map_err(failed)?;
        let child = command.spawn().map_err(failed)?;
        // The command holds the container's ends of the pipes.
        drop(command);
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let ended = self.reaper.wait(pid);
        let output = tokio::spawn(collect(output));
        let Ok(ended) = tokio::time::timeout(deadline, ended).await else {
            kill(pid);
            return Err(Error::new(
                Kind::DeadlineExceeded,
                format!(
                    "{} {verb} did not finish within {} s and was killed",
                    self.name(),
                    deadline.as_secs()
                ),
            ));
        };
        // A hook that stays behind may hold the pipe open.
        let output = match tokio::time::timeout(Duration::from_secs(1), output).await {
            Ok(Ok(output)) => output,
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        if ended.code == 0 {
            return Ok(output);
        }
        let mut message = report::last_error(&self.log, logged);
        if message.is_empty() {
            let text = String::from_utf8_lossy(&output);
            message = format!(
                "{} did not terminate successfully: exit status {}: {}",
                self.name(),
                ended.code,
                text.trim()
            );
        }
        Err(Error::new(report::kind(&message), message))
    }

    fn command(&self, args: &[OsString], preserved: Vec<OwnedFd>) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.options.root);
        command
            .arg("--log")
            .arg(&self.log)
            .args(["--log-format", "json"]);
        if self.options.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.args(args).env_remove("NOTIFY_SOCKET");
        if let Some(bundle) = self.log.parent() {
            command.current_dir(bundle);
        }
        if !preserved.is_empty() {
            let numbered = preserved.into_iter().zip(3..).collect();
            davit_sys::process::inherit(&mut command, numbered);
        }
        davit_sys::process::die_with_parent(&mut command);
        command
    }
}

/// The console socket of init.
const INIT_CONSOLE: &str = "c-init";

/// Runs a command that sends a terminal, and takes it as soon as it comes.
async fn with_console(
    run: impl Future<Output = Result<Vec<u8>>>,
    socket: &ConsoleSocket,
) -> Result<OwnedFd> {
    let received = socket.receive();
    tokio::pin!(run, received);
    let failed = |error| Error::because("receiving the terminal from the runtime", error);
    tokio::select! {
        // Prefer the terminal: when both are ready, the runtime's success must not hide it.
        biased;
        fd = &mut received => {
            let fd = fd.map_err(failed)?;
            run.await?;
            Ok(fd)
        }
        result = &mut run => {
            result?;
            // It has connected and sent before it ended, or never will.
            tokio::time::timeout(Duration::from_secs(1), received)
                .await
                .map_err(|_| Error::because("receiving the terminal from the runtime", "it sent none"))?
                .map_err(failed)
        }
    }
}

/// Gives the command its streams; for [`Streams::Collected`] returns the end to read.
fn connect(command: &mut Command, streams: Streams) -> io::Result<Option<OwnedFd>> {
    match streams {
        Streams::Null => {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Ok(None)
        }
        Streams::Container {
            stdin,
            stdout,
            stderr,
        } => {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
            Ok(None)
        }
        Streams::Collected => {
            let (read, write) = io::pipe()?;
            command
                .stdin(Stdio::null())
                .stdout(write.try_clone()?)
                .stderr(write);
            Ok(Some(read.into()))
        }
    }
}

async fn collect(output: Option<OwnedFd>) -> Vec<u8> {
    let mut collected = Vec::new();
    if let Some(Ok(pipe)) = output.map(pipe::Receiver::from_owned_fd) {
        // A failed read leaves what came before; the exit status decides.
        let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut collected).await;
    }
    collected
}

fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // Gone already is as good.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// The executable that `runtime` names: a path, or a name looked up in `$PATH`.
fn find(runtime: &str) -> Option<PathBuf> {
    let executable = |path: &Path| {
        rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
    };
    if runtime.contains('/') {
        let path = PathBuf::from(runtime);
        return (path.is_absolute() && executable(&path)).then_some(path);
    }
    let path = std::env::var_os("PATH")
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| DEFAULT_PATH.into());
    std::env::split_paths(&path)
        .map(|directory| directory.join(runtime))
        .find(|path| executable(path))
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// FNV-1a: a short file name for an exec id, so that a socket's path stays short.
fn short_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
