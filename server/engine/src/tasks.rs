//! Tasks: starts, watches and ends what containers run. One function for each
//! call of davit.v1's service `Tasks`. Containers are named as in
//! [`Containers`](crate::Containers).

use davit_store::{
    Error, Kind, Result,
    options::{Resources, TerminalSize},
};
use futures::stream::BoxStream;

use crate::{Engine, model::*};

/// The handle that [`Engine::tasks`] gives.
#[derive(Debug, Clone)]
pub struct Tasks {
    engine: Engine,
}

impl Tasks {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Runs a container that does not run.
    pub async fn start(&self, ns: &str, container: &str) -> Result<StartResponse> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Sends the stop signal, waits, then kills; returns when it has ended.
    pub async fn stop(
        &self,
        ns: &str,
        container: &str,
        options: StopOptions,
    ) -> Result<StopResponse> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Stop and Start; a stopped container is started. Gives the new pid.
    pub async fn restart(&self, ns: &str, container: &str, options: StopOptions) -> Result<u32> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Sends a signal to the first process, to all, or to an exec.
    pub async fn kill(&self, ns: &str, container: &str, options: KillOptions) -> Result<()> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Freezes all processes of the container.
    pub async fn pause(&self, ns: &str, container: &str) -> Result<()> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Thaws them.
    pub async fn resume(&self, ns: &str, container: &str) -> Result<()> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Begins to wait: an exit from now on is seen by [`Waiter::wait`].
    pub fn wait(&self, ns: &str, container: &str, condition: WaitCondition) -> Result<Waiter> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Runs one more process in a running container, with its streams.
    pub async fn exec(
        &self,
        ns: &str,
        target: ExecTarget,
        size: Option<TerminalSize>,
    ) -> Result<Session> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Prepares an exec without running it; gives its id.
    pub async fn create_exec(
        &self,
        ns: &str,
        container: &str,
        options: ExecOptions,
    ) -> Result<String> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Runs a prepared exec detached; gives its pid.
    pub async fn start_exec(&self, ns: &str, id: &str) -> Result<u32> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// An exec, running or ended.
    pub fn inspect_exec(&self, ns: &str, id: &str) -> Result<ExecDetails> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Connects to a container's streams, before or after its start.
    pub async fn attach(
        &self,
        ns: &str,
        container: &str,
        options: AttachOptions,
    ) -> Result<Session> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// What a container wrote, and what it writes with `follow`.
    pub async fn logs(
        &self,
        ns: &str,
        container: &str,
        request: LogsRequest,
    ) -> Result<BoxStream<'static, Result<LogEntry>>> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Sets the size of a container's terminal, or of an exec's when
    /// `exec_id` is not empty (then `container` may be empty).
    pub async fn resize(
        &self,
        ns: &str,
        container: &str,
        exec_id: &str,
        size: TerminalSize,
    ) -> Result<()> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// The processes of a container as ps(1) shows them; "-ef" when `ps_args`
    /// is empty.
    pub async fn processes(&self, ns: &str, container: &str, ps_args: &str) -> Result<Processes> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Resource usage: one sample, or one each second with `stream`.
    pub async fn stats(
        &self,
        ns: &str,
        container: &str,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<Stats>>> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Changes the limits of a running container until it stops; gives
    /// warnings.
    pub async fn update(
        &self,
        ns: &str,
        container: &str,
        resources: Resources,
    ) -> Result<Vec<String>> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Removes what is left of an ended run.
    pub async fn delete(&self, ns: &str, container: &str) -> Result<ExitStatus> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }
}

/// A wait that has begun.
#[derive(Debug)]
pub struct Waiter {}

impl Waiter {
    /// Returns when the condition is met.
    pub async fn wait(self) -> Result<ExitStatus> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }
}
