//! One run of a container: its shim while it lives, and how the end is seen.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    bundle::Bundle,
    client::{Client, Deadlines, Exit},
    process::Process,
};
use crate::{Error, Kind, Result, model::ExitStatus};

/// How long a shim may take to tell of the end of a process that is dead.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// A shim and the container's first process in it.
#[derive(Debug)]
pub(crate) struct Run {
    /// Tells runs of one container apart.
    pub(crate) number: u64,
    pub(crate) ns: String,
    pub(crate) id: String,
    pub(crate) bundle: Bundle,
    pub(crate) started_at: Timestamp,
    pub(crate) shim_pid: u32,
    pid: u32,
    /// The first process by its descriptor, when it could be had.
    process: Option<Process>,
    deadlines: Deadlines,
    client: Mutex<Client>,
    /// The end, once the record says it.
    recorded: watch::Sender<Option<ExitStatus>>,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// The process ended.
    Exited { exit: Exit, oom: bool },
    /// The shim is gone and nobody knows how the process ended.
    Lost { reason: String },
}

/// What makes a [`Run`].
#[derive(Debug)]
pub(crate) struct NewRun {
    pub(crate) number: u64,
    pub(crate) ns: String,
    pub(crate) id: String,
    pub(crate) bundle: Bundle,
    pub(crate) started_at: Timestamp,
    pub(crate) shim_pid: u32,
    pub(crate) pid: u32,
    pub(crate) deadlines: Deadlines,
    pub(crate) client: Client,
}

impl Run {
    pub(crate) fn new(new: NewRun) -> Self {
        Self {
            number: new.number,
            ns: new.ns,
            id: new.id,
            bundle: new.bundle,
            started_at: new.started_at,
            shim_pid: new.shim_pid,
            pid: new.pid,
            process: Process::open(new.pid).ok(),
            deadlines: new.deadlines,
            client: Mutex::new(new.client),
            recorded: watch::Sender::new(None),
        }
    }

    /// Process id of the first process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The connection to the shim.
    pub(crate) fn client(&self) -> Client {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Tells everybody that the end is recorded.
    pub(crate) fn set_recorded(&self, exit: ExitStatus) {
        self.recorded.send_replace(Some(exit));
    }

    /// The end, when it is recorded.
    pub(crate) async fn recorded(&self) -> Option<ExitStatus> {
        let mut receiver = self.recorded.subscribe();
        let end = receiver.wait_for(Option::is_some).await.ok()?;
        end.clone()
    }

    /// Whether the first process has not ended, as the kernel says.
    pub(crate) fn is_alive(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_alive)
    }

    /// KILL to the first process, without the shim.
    pub(crate) fn kill_directly(&self) -> Result<()> {
        match &self.process {
            Some(process) => process.kill().map_err(|error| {
                Error::io(
                    format!("cannot kill process {} of container {}", self.pid, self.id),
                    error,
                )
            }),
            None => Err(Error::not_found(format!(
                "process {} of container {} is gone",
                self.pid, self.id
            ))),
        }
    }

    /// Waits until the first process has ended, over broken connections. A
    /// shim that does not tell of an end which the kernel tells of is lost.
    pub(crate) async fn ended(&self) -> Ending {
        let told = async {
            match self.wait("").await {
                Ok((exit, oom)) => Ending::Exited { exit, oom },
                Err(error) => Ending::Lost {
                    reason: error.chain(),
                },
            }
        };
        let untold = async {
            match &self.process {
                Some(process) if process.gone().await.is_ok() => {}
                Some(_) | None => std::future::pending().await,
            }
            tokio::time::sleep(TOLD_WITHIN).await;
            match self.bundle.exit("") {
                Some(file) => Ending::Exited {
                    exit: Exit {
                        code: file.code,
                        at: file.at,
                    },
                    oom: file.oom,
                },
                None => Ending::Lost {
                    reason: format!(
                        "the process ended and its shim said nothing for {TOLD_WITHIN:?}"
                    ),
                },
            }
        };
        tokio::select! {
            ending = told => ending,
            ending = untold => ending,
        }
    }

    /// Waits until a process has ended. An error means that the shim is gone
    /// or does not know the process, and left no exit file.
    pub(crate) async fn wait(&self, process: &str) -> Result<(Exit, bool)> {
        let mut pause = Duration::from_millis(10);
        loop {
            let error = match self.client().wait(process).await {
                Ok(exit) => {
                    let oom = self.bundle.exit(process).is_some_and(|file| file.oom);
                    return Ok((exit, oom));
                }
                Err(error) => error,
            };
            if let Some(file) = self.bundle.exit(process) {
                return Ok((
                    Exit {
                        code: file.code,
                        at: file.at,
                    },
                    file.oom,
                ));
            }
            if error.kind() != Kind::Unavailable {
                return Err(error);
            }
            // The connection broke. A dead shim refuses the next one.
            let client = Client::connect(&self.bundle.socket, &self.ns, &self.id, self.deadlines)
                .map_err(|refused| refused.context("the shim is gone"))?;
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}
