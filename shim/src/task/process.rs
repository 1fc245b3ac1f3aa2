//! One process: init or an exec, from before it exists until its end has been acknowledged.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::error::{Error, Kind, Result};
use crate::exits::{self, Exit};
use crate::io::Stdio;
use crate::io::target::StdioRequest;
use crate::runtime::ProcessIo;

/// Where a process stands.
///
/// ```text
/// Added ──► Created ──► Running ◄──► Paused        (execs and restored inits skip Created,
///   │          │           │            │            only inits are Paused)
///   └──────────┴───────────┴────────────┴──► Stopped
/// ```
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Known, but there is no process yet.
    Added,
    /// Waits for its start.
    Created {
        pid: i32,
    },
    Running {
        pid: i32,
    },
    Paused {
        pid: i32,
    },
    Stopped(Exit),
}

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    /// "" for init.
    pub(crate) exec_id: String,
    pub(crate) request: StdioRequest,
    pub(crate) stdio: Stdio,
    state: watch::Sender<State>,
    /// The end is on disk, its output in the log: everybody may know.
    told: watch::Sender<bool>,
    /// Held while the process is being started, so that its exit is told after its start.
    pub(crate) starting: tokio::sync::Mutex<()>,
    before: Mutex<Option<Before>>,
}

/// What the start needs and nothing after it.
#[derive(Debug)]
pub(crate) struct Before {
    /// The process's ends of its stdio.
    pub(crate) io: ProcessIo,
    /// The OCI process of an exec.
    pub(crate) spec: Vec<u8>,
}

impl Process {
    pub(crate) fn new(
        exec_id: &str,
        request: StdioRequest,
        stdio: Stdio,
        before: Option<Before>,
    ) -> Process {
        Process {
            exec_id: exec_id.to_owned(),
            request,
            stdio,
            state: watch::Sender::new(State::Added),
            told: watch::Sender::new(false),
            starting: tokio::sync::Mutex::default(),
            before: Mutex::new(before),
        }
    }

    /// The name of its exit record.
    pub(crate) fn record(&self) -> &str {
        if self.exec_id.is_empty() {
            exits::INIT
        } else {
            &self.exec_id
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Its pid, while it has one or had one.
    pub(crate) fn pid(&self) -> i32 {
        match &*self.state.borrow() {
            State::Added => 0,
            State::Created { pid } | State::Running { pid } | State::Paused { pid } => *pid,
            State::Stopped(exit) => exit.pid,
        }
    }

    /// The pid of a process that is there.
    ///
    /// # Errors
    /// Failed precondition before its start, not found after its end.
    pub(crate) fn alive(&self) -> Result<i32> {
        match &*self.state.borrow() {
            State::Added => Err(Error::new(Kind::FailedPrecondition, "process not created")),
            State::Created { pid } | State::Running { pid } | State::Paused { pid } => Ok(*pid),
            State::Stopped(_) => Err(Error::new(Kind::NotFound, "process already finished")),
        }
    }

    /// What the start needs, once.
    pub(crate) fn take_before(&self) -> Option<Before> {
        self.before
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Goes to `next` unless the process has ended; says whether it did.
    pub(crate) fn advance(&self, next: State) -> bool {
        self.state.send_if_modified(|state| {
            let alive = !matches!(state, State::Stopped(_));
            if alive {
                *state = next;
            }
            alive
        })
    }

    /// It has ended, and that is on disk.
    pub(crate) fn stop(&self, exit: Exit) {
        self.state.send_replace(State::Stopped(exit));
    }

    /// Everybody who waits may know.
    pub(crate) fn tell(&self) {
        self.told.send_replace(true);
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Not found, when the process was deleted without ever having run.
    pub(crate) async fn wait(&self) -> Result<Exit> {
        let mut told = self.told.subscribe();
        // The sender lives as long as this process does.
        let _ = told.wait_for(|told| *told).await;
        match self.state() {
            State::Stopped(exit) => Ok(exit),
            State::Added | State::Created { .. } | State::Running { .. } | State::Paused { .. } => {
                Err(Error::new(
                    Kind::NotFound,
                    "process was deleted before it ran",
                ))
            }
        }
    }
}
