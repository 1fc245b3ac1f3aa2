//! `Start` and `Exec`: from a created process to a running one.

use std::sync::Arc;

use containerd_shim_protos::{events, topics};
use fail::fail_point;

use super::Tasks;
use super::container::Container;
use super::exit;
use super::process::{Before, Process, State};
use crate::args::check_id;
use crate::error::{Error, Kind, Result};
use crate::exits;
use crate::io;
use crate::io::target::StdioRequest;
use crate::runtime::{CreateRequest, ExecRequest};

impl Tasks {
    /// Starts init or an added exec; returns its pid.
    pub(crate) async fn start(&self, id: &str, exec_id: &str) -> Result<i32> {
        let container = self.container(id)?;
        if exec_id.is_empty() {
            return start_init(&container).await;
        }
        let process = container.process(exec_id)?;
        start_exec(&container, &process).await
    }

    /// Adds a process, which [`Tasks::start`] starts.
    pub(crate) async fn exec(
        &self,
        id: &str,
        exec_id: &str,
        request: StdioRequest,
        spec: Vec<u8>,
    ) -> Result<()> {
        check_id("exec", exec_id)?;
        let container = self.container(id)?;
        let taken = || {
            Error::new(
                Kind::AlreadyExists,
                format!("exec {exec_id} already exists in container {id}"),
            )
        };
        if exec_id == exits::INIT {
            return Err(Error::new(
                Kind::InvalidArgument,
                "exec id \"init\" is reserved",
            ));
        }
        if container.execs().contains_key(exec_id) {
            return Err(taken());
        }
        container
            .init
            .alive()
            .map_err(|error| error.within(format_args!("container {id}: exec {exec_id}")))?;
        let (io, stdio) = io::open(&request, id, &self.shim.namespace, container.spill()).await?;
        let hub = stdio.hub.clone();
        let process = Arc::new(Process::new(
            exec_id,
            request,
            stdio,
            Some(Before { io, spec }),
        ));
        if container.execs().contains_key(exec_id) {
            return Err(taken());
        }
        container.execs().insert(exec_id.to_owned(), process);
        if let Some(hub) = hub {
            container.hubs.insert(exec_id, hub);
        }
        fail_point!("shim.exec.added");
        let event = events::task::TaskExecAdded {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        self.shim
            .publisher
            .publish(topics::TASK_EXEC_ADDED_EVENT_TOPIC, &event);
        Ok(())
    }
}

async fn start_init(container: &Arc<Container>) -> Result<i32> {
    let _one = container.operation.lock().await;
    let _starting = container.init.starting.lock().await;
    fail_point!("shim.start.begin");
    let pid = match container.init.state() {
        State::Added => return restore(container).await,
        State::Created { pid } => pid,
        State::Running { .. } | State::Paused { .. } => {
            return Err(Error::new(
                Kind::FailedPrecondition,
                "cannot start a running process",
            ));
        }
        State::Stopped(_) => {
            return Err(Error::new(
                Kind::FailedPrecondition,
                "cannot start a container that has stopped",
            ));
        }
    };
    container
        .runtime
        .start(&container.id)
        .await
        .map_err(|error| error.within("OCI runtime start failed"))?;
    fail_point!("shim.start.after-runtime");
    container.init.advance(State::Running { pid });
    announce(container, pid);
    Ok(pid)
}

/// A container made from a checkpoint comes to life here.
async fn restore(container: &Arc<Container>) -> Result<i32> {
    let Some(before) = container.init.take_before() else {
        return Err(Error::new(
            Kind::FailedPrecondition,
            "the restore has been tried already",
        ));
    };
    let expecting = container.shim.reaper.expect();
    let request = CreateRequest {
        id: &container.id,
        bundle: &container.bundle,
        io: before.io,
        checkpoint: container.checkpoint.as_deref(),
        preserved: Vec::new(),
    };
    let created = container
        .runtime
        .create(request)
        .await
        .map_err(|error| error.within("OCI runtime restore failed"))?;
    let pid = created.pid;
    exit::adopt(container, &container.init, created, |pid| State::Running {
        pid,
    });
    drop(expecting);
    announce(container, pid);
    Ok(pid)
}

fn announce(container: &Container, pid: i32) {
    let event = events::task::TaskStart {
        container_id: container.id.clone(),
        pid: u32::try_from(pid).unwrap_or(0),
        ..Default::default()
    };
    container
        .shim
        .publisher
        .publish(topics::TASK_START_EVENT_TOPIC, &event);
}

async fn start_exec(container: &Arc<Container>, process: &Arc<Process>) -> Result<i32> {
    let _starting = process.starting.lock().await;
    let exec_id = process.exec_id.as_str();
    let Some(before) = process.take_before() else {
        let text = format!(
            "exec {exec_id} of container {} has been started already",
            container.id
        );
        return Err(Error::new(Kind::FailedPrecondition, text));
    };
    container
        .init
        .alive()
        .map_err(|error| error.within("OCI runtime exec failed"))?;
    fail_point!("shim.exec.before-runtime");
    let expecting = container.shim.reaper.expect();
    let request = ExecRequest {
        id: &container.id,
        exec_id,
        bundle: &container.bundle,
        process: &before.spec,
        io: before.io,
    };
    let created = match container.runtime.exec(request).await {
        Ok(created) => created,
        Err(error) => {
            process.stdio.close();
            // Who waits for it learns that it never ran; the caller of start learns why.
            process.tell();
            return Err(error.within("OCI runtime exec failed"));
        }
    };
    fail_point!("shim.exec.after-runtime");
    let pid = created.pid;
    let event = events::task::TaskExecStarted {
        container_id: container.id.clone(),
        exec_id: exec_id.to_owned(),
        pid: u32::try_from(pid).unwrap_or(0),
        ..Default::default()
    };
    container
        .shim
        .publisher
        .publish(topics::TASK_EXEC_STARTED_EVENT_TOPIC, &event);
    exit::adopt(container, process, created, |pid| State::Running { pid });
    drop(expecting);
    Ok(pid)
}
