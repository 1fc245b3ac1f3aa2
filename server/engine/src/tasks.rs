//! Tasks: starts, watches and ends what containers run. One function for each
//! call of davit.v1's service `Tasks`. Containers are named as in
//! [`Containers`](crate::Containers).

use std::sync::Arc;

use davit_store::options::Resources;
use futures::stream::BoxStream;

use crate::{
    Engine, Error, Kind, Result,
    actor::Command,
    attach, exec,
    exec::ExecState,
    index::Handle,
    logs,
    model::*,
    policy::{self, Call},
    session,
    shared::Shared,
    spec::{
        resources::{self, Occasion},
        signal,
    },
    wait::Waiter,
};

/// The handle that [`Engine::tasks`] gives.
#[derive(Debug, Clone)]
pub struct Tasks {
    engine: Engine,
}

impl Tasks {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.engine.shared()
    }

    fn find(&self, ns: &str, container: &str) -> Result<Handle> {
        self.shared().index.find(ns, container)
    }

    /// Runs a container that does not run.
    pub async fn start(&self, ns: &str, container: &str) -> Result<StartResponse> {
        self.find(ns, container)?.ask(Command::Start).await
    }

    /// Sends the stop signal, waits, then kills; returns when it has ended.
    pub async fn stop(
        &self,
        ns: &str,
        container: &str,
        options: StopOptions,
    ) -> Result<StopResponse> {
        self.find(ns, container)?
            .ask(|reply| Command::Stop(options, reply))
            .await
    }

    /// Stop and Start; a stopped container is started. Gives the new pid.
    pub async fn restart(&self, ns: &str, container: &str, options: StopOptions) -> Result<u32> {
        self.find(ns, container)?
            .ask(|reply| Command::Restart(options, reply))
            .await
    }

    /// Sends a signal to the first process, to all, or to an exec.
    pub async fn kill(&self, ns: &str, container: &str, options: KillOptions) -> Result<()> {
        if options.exec_id.is_empty() {
            return self
                .find(ns, container)?
                .ask(|reply| Command::Kill(options, reply))
                .await;
        }
        let exec = self.shared().execs.get(ns, &options.exec_id)?;
        let signal = if options.signal.is_empty() {
            9
        } else {
            signal::parse(&options.signal)?
        };
        if !matches!(exec.state(), ExecState::Running { .. }) {
            return Err(Error::new(
                Kind::Conflict,
                format!("exec {} is not running", exec.id),
            ));
        }
        let run = running(&self.find(ns, &exec.container)?)?;
        run.client().kill(&exec.id, signal, false).await
    }

    /// Freezes all processes of the container.
    pub async fn pause(&self, ns: &str, container: &str) -> Result<()> {
        self.find(ns, container)?.ask(Command::Pause).await
    }

    /// Thaws them.
    pub async fn resume(&self, ns: &str, container: &str) -> Result<()> {
        self.find(ns, container)?.ask(Command::Resume).await
    }

    /// Begins to wait: an exit from now on is seen by [`Waiter::wait`].
    pub fn wait(&self, ns: &str, container: &str, condition: WaitCondition) -> Result<Waiter> {
        Ok(Waiter::new(self.find(ns, container)?.view, condition))
    }

    /// Runs one more process in a running container, with its streams. `size`
    /// goes before the one in the options.
    pub async fn exec(
        &self,
        ns: &str,
        target: ExecTarget,
        size: Option<TerminalSize>,
    ) -> Result<Session> {
        let exec = match target {
            ExecTarget::Prepared(id) => self.shared().execs.get(ns, &id)?,
            ExecTarget::New { container, options } => {
                let handle = self.find(ns, &container)?;
                exec::create(self.shared(), &handle, options).await?
            }
        };
        exec::run(self.shared(), exec, size).await
    }

    /// Prepares an exec without running it; gives its id.
    pub async fn create_exec(
        &self,
        ns: &str,
        container: &str,
        options: ExecOptions,
    ) -> Result<String> {
        let handle = self.find(ns, container)?;
        Ok(exec::create(self.shared(), &handle, options)
            .await?
            .id
            .clone())
    }

    /// Runs a prepared exec detached; gives its pid.
    pub async fn start_exec(&self, ns: &str, id: &str) -> Result<u32> {
        let exec = self.shared().execs.get(ns, id)?;
        exec::start(self.shared(), exec).await
    }

    /// An exec, running or ended.
    pub fn inspect_exec(&self, ns: &str, id: &str) -> Result<ExecDetails> {
        Ok(self.shared().execs.get(ns, id)?.details())
    }

    /// Connects to a container's streams, before or after its start.
    pub async fn attach(
        &self,
        ns: &str,
        container: &str,
        options: AttachOptions,
    ) -> Result<Session> {
        attach::attach(self.shared(), self.find(ns, container)?, options).await
    }

    /// What a container wrote, and what it writes with `follow`.
    pub async fn logs(
        &self,
        ns: &str,
        container: &str,
        request: LogsRequest,
    ) -> Result<BoxStream<'static, Result<LogEntry>>> {
        logs::read(self.shared(), self.find(ns, container)?, request)
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
        if exec_id.is_empty() {
            let handle = self.find(ns, container)?;
            running(&handle)?
                .client()
                .resize("", size.width, size.height)
                .await?;
            session::tell(&handle, session::resized(&size)).await;
            return Ok(());
        }
        let exec = self.shared().execs.get(ns, exec_id)?;
        let run = running(&self.find(ns, &exec.container)?)?;
        run.client().resize(&exec.id, size.width, size.height).await
    }

    /// The processes of a container as ps(1) shows them; "-ef" when `ps_args`
    /// is empty.
    pub async fn processes(&self, ns: &str, container: &str, ps_args: &str) -> Result<Processes> {
        let handle = self.find(ns, container)?;
        let _ = running(&handle)?;
        self.shared().processes(&handle, ps_args).await
    }

    /// Resource usage: one sample, or one each second with `stream`.
    pub async fn stats(
        &self,
        ns: &str,
        container: &str,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<Stats>>> {
        self.shared().stats(self.find(ns, container)?, stream).await
    }

    /// Changes the limits of a running container until it stops; gives
    /// warnings.
    pub async fn update(
        &self,
        ns: &str,
        container: &str,
        resources: Resources,
    ) -> Result<Vec<String>> {
        let handle = self.find(ns, container)?;
        let run = running(&handle)?;
        let view = handle.now();
        let options = view
            .details()
            .map(|details| details.options.clone())
            .unwrap_or_default();
        let new = resources::merge(&options.resources, &resources);
        let adapted = resources::adapt(
            &new,
            options.oom_kill_disable,
            &self.shared().host,
            Occasion::Update,
        )?;
        let bytes = serde_json::to_vec(&adapted.to_spec()?)
            .map_err(|error| Error::internal("cannot encode limits").with_source(error))?;
        run.client().update(bytes).await?;
        Ok(adapted.warnings)
    }

    /// How the last run ended; what was left of it is gone when this returns.
    /// `FailedPrecondition` while it runs. The daemon removes what ended runs
    /// leave by itself, so there is nothing to do but to wait for that.
    pub async fn delete(&self, ns: &str, container: &str) -> Result<ExitStatus> {
        let handle = self.find(ns, container)?;
        if handle.now().is_running() {
            return Err(Error::precondition(format!(
                "container {} is running; stop it first",
                handle.id
            )));
        }
        let mut view = handle.view.clone();
        let over = view
            .wait_for(|view| view.run.is_none() || view.is_running())
            .await;
        match over {
            Ok(view) => Ok(view.exit()),
            Err(_) => Err(Error::not_found(format!(
                "No such container: {}",
                handle.id
            ))),
        }
    }
}

/// The shim of a container that runs.
fn running(handle: &Handle) -> Result<Arc<crate::shim::Run>> {
    let view = handle.now();
    let not_running = || {
        Error::new(
            Kind::Conflict,
            format!("container {} is not running", handle.id),
        )
    };
    if !view.is_running() {
        policy::admit(Call::Exec, view.status, &handle.id)?;
        return Err(not_running());
    }
    view.run.clone().ok_or_else(not_running)
}
