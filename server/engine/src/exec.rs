//! Execs: further processes in a container that runs.
//!
//! An exec lives in memory, and in `<bundle>/execs/<id>.json` once it has
//! started, so that the next daemon knows it. Its end comes from the shim as
//! a container's does.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use davit_store::options::{ExecOptions, TerminalSize};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use crate::{
    Error, Kind, Result,
    detach::DetachKeys,
    events::Draft,
    index::Handle,
    model::{ExecDetails, ExitStatus, Output, Session},
    names,
    policy::{self, Call},
    session::{self, CHUNKS, Ends, HalfClose, Stop, Streams},
    shared::Shared,
    shim::{Connect, ExecTask, Run},
};

/// How long an exec that has ended, or was never started, can be asked about.
const KEPT: Duration = Duration::from_secs(600);
/// Most execs that are kept after their end.
const MOST_KEPT: usize = 1000;

/// All execs of all containers.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    by_id: Mutex<HashMap<String, Arc<Exec>>>,
}

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) ns: String,
    pub(crate) container: String,
    pub(crate) options: ExecOptions,
    made: Timestamp,
    state: watch::Sender<ExecState>,
}

/// Where an exec stands.
#[derive(Debug, Clone)]
pub(crate) enum ExecState {
    Prepared,
    Starting,
    Running {
        pid: u32,
    },
    Ended {
        pid: Option<u32>,
        code: i32,
        at: Timestamp,
        error: String,
    },
}

/// `execs/<id>.json`.
#[derive(Debug, Serialize, Deserialize)]
struct ExecFile {
    pid: u32,
    options: ExecOptions,
}

impl Exec {
    pub(crate) fn state(&self) -> ExecState {
        self.state.borrow().clone()
    }

    fn set(&self, state: ExecState) {
        self.state.send_replace(state);
    }

    /// Waits for its end; None when it is forgotten first.
    async fn ended(&self) -> Option<ExitStatus> {
        let mut receiver = self.state.subscribe();
        let state = receiver
            .wait_for(|state| matches!(state, ExecState::Ended { .. }))
            .await
            .ok()?
            .clone();
        match state {
            ExecState::Ended {
                code, at, error, ..
            } => Some(ExitStatus {
                exit_code: code,
                exited_at: Some(at),
                error,
                oom_killed: false,
            }),
            ExecState::Prepared | ExecState::Starting | ExecState::Running { .. } => None,
        }
    }

    pub(crate) fn details(&self) -> ExecDetails {
        let mut details = ExecDetails {
            id: self.id.clone(),
            container_id: self.container.clone(),
            options: self.options.clone(),
            running: false,
            started: false,
            exit_code: None,
            pid: None,
            error: String::new(),
        };
        match self.state() {
            ExecState::Prepared | ExecState::Starting => {}
            ExecState::Running { pid } => {
                (details.running, details.started, details.pid) = (true, true, Some(pid));
            }
            ExecState::Ended {
                pid, code, error, ..
            } => {
                (
                    details.started,
                    details.pid,
                    details.exit_code,
                    details.error,
                ) = (true, pid, Some(code), error);
            }
        }
        details
    }

    fn draft(&self, action: &str) -> Draft {
        Draft::new(action).with("execID", &self.id)
    }

    /// "exec_create: cmd args", as docker has it.
    fn draft_with_command(&self, action: &str) -> Draft {
        self.draft(&format!("{action}: {}", self.options.args.join(" ")))
    }
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        // One map operation at a time: nothing can be half done.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The exec of this id in a namespace.
    pub(crate) fn get(&self, ns: &str, id: &str) -> Result<Arc<Exec>> {
        let found = self.lock().get(id).filter(|exec| exec.ns == ns).cloned();
        found.ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// Ids of a container's execs that have not ended.
    pub(crate) fn open_of(&self, container: &str) -> Vec<String> {
        let mut ids = self
            .lock()
            .values()
            .filter(|exec| {
                exec.container == container && !matches!(exec.state(), ExecState::Ended { .. })
            })
            .map(|exec| exec.id.clone())
            .collect::<Vec<_>>();
        ids.sort();
        ids
    }

    fn insert(&self, exec: Arc<Exec>) {
        let mut all = self.lock();
        let now = Timestamp::now();
        let old = |at: Timestamp| {
            now.duration_since(at) > jiff::SignedDuration::try_from(KEPT).unwrap_or_default()
        };
        let mut ended = 0;
        all.retain(|_, exec| match exec.state() {
            ExecState::Prepared => !old(exec.made),
            ExecState::Starting | ExecState::Running { .. } => true,
            ExecState::Ended { at, .. } => {
                ended += 1;
                ended <= MOST_KEPT && !old(at)
            }
        });
        all.insert(exec.id.clone(), exec);
    }

    /// A container is gone: so are its execs.
    pub(crate) fn forget(&self, container: &str) {
        self.lock().retain(|_, exec| exec.container != container);
    }

    /// A container's run is over: what still ran in it was killed with it.
    pub(crate) fn lost(&self, container: &str) {
        for exec in self
            .lock()
            .values()
            .filter(|exec| exec.container == container)
        {
            match exec.state() {
                ExecState::Running { pid } => {
                    let error = "the container ended".to_owned();
                    exec.set(ExecState::Ended {
                        pid: Some(pid),
                        code: 137,
                        at: Timestamp::now(),
                        error,
                    });
                }
                ExecState::Prepared | ExecState::Starting | ExecState::Ended { .. } => {}
            }
        }
    }
}

/// Prepares an exec.
pub(crate) async fn create(
    shared: &Arc<Shared>,
    handle: &Handle,
    options: ExecOptions,
) -> Result<Arc<Exec>> {
    let view = handle.now();
    policy::admit(Call::Exec, view.status, &handle.id)?;
    if options.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    DetachKeys::parse(&options.detach_keys)?;
    let exec = Arc::new(Exec {
        id: names::new_id(),
        ns: handle.ns.to_string(),
        container: handle.id.to_string(),
        options,
        made: Timestamp::now(),
        state: watch::Sender::new(ExecState::Prepared),
    });
    shared.execs.insert(Arc::clone(&exec));
    session::tell(handle, exec.draft_with_command("exec_create")).await;
    Ok(exec)
}

/// Runs a prepared exec without streams; gives its pid.
pub(crate) async fn start(shared: &Arc<Shared>, exec: Arc<Exec>) -> Result<u32> {
    let handle = shared.index.find(&exec.ns, &exec.container)?;
    let shared = Arc::clone(shared);
    // Apart, so that a caller who goes away leaves nothing half started.
    let started = tokio::spawn(async move {
        begin(&shared, &handle, &exec, None, None)
            .await
            .map(|begun| begun.pid)
    });
    started.await.unwrap_or_else(|panic| {
        Err(Error::internal("the start of an exec panicked; this is a bug").with_source(panic))
    })
}

/// Runs a prepared exec with its streams.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    exec: Arc<Exec>,
    size: Option<TerminalSize>,
) -> Result<Session> {
    let handle = shared.index.find(&exec.ns, &exec.container)?;
    let options = &exec.options;
    let streams = Streams {
        connect: Connect {
            exec: exec.id.clone(),
            stdin: options.attach_stdin,
            stdout: options.attach_stdout,
            stderr: options.attach_stderr && !options.tty,
            from: "live",
        },
        half_close: if options.attach_stdin && !options.tty {
            HalfClose::ClosesStdin
        } else {
            HalfClose::Ignored
        },
        close_at_end: options.attach_stdin && !options.tty,
        keys: if options.tty {
            DetachKeys::parse(&options.detach_keys)?
        } else {
            None
        },
    };
    let (input, input_end) = mpsc::channel(CHUNKS);
    let (output_end, output) = mpsc::channel(CHUNKS);
    let ends = Ends {
        input: input_end,
        output: output_end,
    };
    let (exec_id, tty) = (exec.id.clone(), options.tty);
    let shared = Arc::clone(shared);
    let started = tokio::spawn(async move {
        let begun = begin(&shared, &handle, &exec, Some(&streams.connect), size).await?;
        let pid = begun.pid;
        tokio::spawn(serve(handle, exec, streams, begun, ends));
        Ok(pid)
    });
    let pid = started.await.unwrap_or_else(|panic| {
        Err(Error::internal("the start of an exec panicked; this is a bug").with_source(panic))
    })?;
    Ok(Session {
        exec_id,
        pid: Some(pid),
        tty,
        input,
        output,
    })
}

struct Begun {
    pid: u32,
    connected: Option<session::Connected>,
}

/// Has the shim make and start the process. Only one call of those that start
/// the same exec gets here.
async fn begin(
    shared: &Arc<Shared>,
    handle: &Handle,
    exec: &Arc<Exec>,
    connect: Option<&Connect>,
    size: Option<TerminalSize>,
) -> Result<Begun> {
    let view = handle.now();
    policy::admit(Call::Exec, view.status, &handle.id)?;
    let run = view.run.clone().ok_or_else(|| {
        Error::new(
            Kind::Conflict,
            format!("container {} is not running", handle.id),
        )
    })?;
    let mine = exec.state.send_if_modified(|state| {
        let mine = matches!(state, ExecState::Prepared);
        if mine {
            *state = ExecState::Starting;
        }
        mine
    });
    if !mine {
        return Err(Error::new(
            Kind::Conflict,
            format!("exec {} has already run", exec.id),
        ));
    }
    match spawn(shared, handle, exec, &run, connect, size).await {
        Ok(begun) => {
            shared.spawn(watch_end(
                Arc::clone(shared),
                handle.clone(),
                Arc::clone(exec),
                run,
            ));
            Ok(begun)
        }
        Err(error) => {
            let text = error.chain();
            let code = exit_code(&text);
            exec.set(ExecState::Ended {
                pid: None,
                code,
                at: Timestamp::now(),
                error: text.clone(),
            });
            let _ = run.client().delete(&exec.id).await;
            let kind = if code == 125 {
                error.kind()
            } else {
                Kind::InvalidArgument
            };
            Err(Error::new(kind, text))
        }
    }
}

async fn spawn(
    shared: &Arc<Shared>,
    handle: &Handle,
    exec: &Exec,
    run: &Run,
    connect: Option<&Connect>,
    size: Option<TerminalSize>,
) -> Result<Begun> {
    let client = run.client();
    let process = shared.exec_process(handle, run, &exec.options).await?;
    fail::fail_point!("engine.exec.before-create");
    client
        .exec(ExecTask {
            exec_id: exec.id.clone(),
            terminal: exec.options.tty,
            stdin: if exec.options.attach_stdin {
                "davit://".to_owned()
            } else {
                String::new()
            },
            stdout: "davit://".to_owned(),
            process,
        })
        .await?;
    fail::fail_point!("engine.exec.after-create");
    let connected = match connect {
        Some(connect) => Some(session::open(run, connect).await?),
        None => None,
    };
    let pid = client.start(&exec.id).await?;
    fail::fail_point!("engine.exec.after-start");
    exec.set(ExecState::Running { pid });
    run.bundle.write(
        &format!("execs/{}.json", exec.id),
        &ExecFile {
            pid,
            options: exec.options.clone(),
        },
    )?;
    if let Some(size) = size
        .as_ref()
        .or(exec.options.terminal_size.as_ref())
        .filter(|_| exec.options.tty)
        && let Err(error) = client.resize(&exec.id, size.width, size.height).await
    {
        tracing::debug!(exec = exec.id, error = %error.chain(), "cannot set the terminal's size");
    }
    session::tell(handle, exec.draft_with_command("exec_start")).await;
    Ok(Begun { pid, connected })
}

/// Records the end of an exec.
async fn watch_end(shared: Arc<Shared>, handle: Handle, exec: Arc<Exec>, run: Arc<Run>) {
    let ended = run.wait(&exec.id).await;
    let ExecState::Running { pid } = exec.state() else {
        return;
    };
    let (code, at, error) = match ended {
        Ok((exit, _oom)) => (exit.code, exit.at, String::new()),
        Err(error) => (137, Timestamp::now(), error.chain()),
    };
    session::tell(&handle, exec.draft("exec_die").with("exitCode", code)).await;
    exec.set(ExecState::Ended {
        pid: Some(pid),
        code,
        at,
        error,
    });
    if shared.store.written().await.is_ok() {
        // The shim may be gone with the container.
        let _ = run.client().delete(&exec.id).await;
        let _ = std::fs::remove_file(run.bundle.dir.join(format!("execs/{}.json", exec.id)));
    }
}

async fn serve(handle: Handle, exec: Arc<Exec>, streams: Streams, begun: Begun, mut ends: Ends) {
    let Some(connected) = begun.connected else {
        return;
    };
    match streams.pump(connected, &mut ends).await {
        Stop::Ended(code) => {
            let recorded = tokio::time::timeout(Duration::from_secs(5), exec.ended()).await;
            let exit = match (recorded, code) {
                (Ok(Some(exit)), _) => Ok(exit),
                (Ok(None) | Err(_), Some(exit_code)) => Ok(ExitStatus {
                    exit_code,
                    exited_at: None,
                    error: String::new(),
                    oom_killed: false,
                }),
                (Ok(None) | Err(_), None) => Err(Error::new(
                    Kind::Unavailable,
                    format!("the streams of exec {} broke off", exec.id),
                )),
            };
            let _ = ends.output.send(exit.map(Output::Exit)).await;
        }
        Stop::Detached => {
            session::tell(&handle, exec.draft("exec_detach")).await;
            let _ = ends.output.send(Ok(Output::Detached)).await;
        }
        Stop::Gone => {}
    }
}

/// Takes up the execs that ran when the last daemon ended.
pub(crate) fn recover(shared: &Arc<Shared>, handle: &Handle, run: &Arc<Run>) {
    let Ok(entries) = std::fs::read_dir(run.bundle.dir.join("execs")) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
            continue;
        };
        let Some(file) = run.bundle.read::<ExecFile>(&format!("execs/{id}.json")) else {
            continue;
        };
        let exec = Arc::new(Exec {
            id: id.to_owned(),
            ns: handle.ns.to_string(),
            container: handle.id.to_string(),
            options: file.options,
            made: Timestamp::now(),
            state: watch::Sender::new(ExecState::Running { pid: file.pid }),
        });
        shared.execs.insert(Arc::clone(&exec));
        shared.spawn(watch_end(
            Arc::clone(shared),
            handle.clone(),
            exec,
            Arc::clone(run),
        ));
    }
}

/// The exit code that tells why an exec could not start.
fn exit_code(text: &str) -> i32 {
    if text.contains("executable file not found") || text.contains("no such file or directory") {
        127
    } else if text.contains("permission denied")
        || text.contains("is a directory")
        || text.contains("not executable")
    {
        126
    } else {
        125
    }
}
