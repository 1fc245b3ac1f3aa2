//! `Delete`: the acknowledgement of an exit, after which nothing of the process is left.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use containerd_shim_protos::{events, topics};
use fail::fail_point;
use jiff::Timestamp;
use protobuf::MessageField;

use super::Tasks;
use super::container::Container;
use super::process::{Process, State};
use crate::error::{Error, Kind, Result};
use crate::events::timestamp;
use crate::exits::{self, Exit};

/// For output that somebody else's copy of the pipes holds up.
const DRAIN: Duration = Duration::from_secs(2);
/// For a process that has been killed, or is being told about.
const END: Duration = Duration::from_secs(10);

impl Tasks {
    /// Deletes a stopped container (or one that was never started), or a stopped exec; returns how it ended.
    pub(crate) async fn delete(&self, id: &str, exec_id: &str) -> Result<Exit> {
        let container = self.container(id)?;
        if exec_id.is_empty() {
            let exit = delete_init(&container).await?;
            self.slots().remove(id);
            return Ok(exit);
        }
        let process = container.process(exec_id)?;
        delete_exec(&container, &process).await
    }
}

async fn delete_init(container: &Arc<Container>) -> Result<Exit> {
    let _one = container.operation.lock().await;
    if container.deleted.load(Ordering::Relaxed) {
        // Somebody else's delete was quicker.
        return Err(Error::new(
            Kind::NotFound,
            format!("container {} does not exist", container.id),
        ));
    }
    fail_point!("shim.delete.begin");
    let init = &container.init;
    match init.state() {
        State::Running { .. } | State::Paused { .. } => return Err(running(&container.id)),
        State::Added | State::Created { .. } | State::Stopped(_) => {}
    }
    let exit = match ended(init).await? {
        Some(exit) => Some(exit),
        // The runtime kills an init that was never started.
        None => {
            remove(container).await?;
            ended(init).await?
        }
    };
    init.stdio.drained(DRAIN).await;
    remove(container).await?;
    fail_point!("shim.delete.after-runtime");
    if let Some(rootfs) = &container.mounted {
        davit_sys::mount::detach(rootfs).map_err(|error| {
            Error::because(
                format_args!("failed to unmount rootfs: {error}"),
                error.io(),
            )
        })?;
    }
    fail_point!("shim.delete.after-unmount");
    container.close();
    container.deleted.store(true, Ordering::Relaxed);
    let exit = exit.unwrap_or_else(|| never_ran(init));
    for exec in container.execs().values() {
        exits::remove(&container.bundle, exec.record());
        exec.tell();
    }
    exits::remove(&container.bundle, exits::INIT);
    let event = events::task::TaskDelete {
        container_id: container.id.clone(),
        pid: u32::try_from(exit.pid).unwrap_or(0),
        exit_status: exit.code,
        exited_at: MessageField::some(timestamp(exit.at)),
        ..Default::default()
    };
    container
        .shim
        .publisher
        .publish(topics::TASK_DELETE_EVENT_TOPIC, &event);
    init.tell();
    Ok(exit)
}

async fn delete_exec(container: &Container, process: &Arc<Process>) -> Result<Exit> {
    match process.state() {
        State::Running { .. } | State::Paused { .. } | State::Created { .. } => {
            return Err(running(&process.exec_id));
        }
        State::Added | State::Stopped(_) => {}
    }
    let exit = ended(process).await?;
    if exit.is_some() {
        process.stdio.drained(DRAIN).await;
    }
    process.stdio.close();
    exits::remove(&container.bundle, process.record());
    let pid_file = container.bundle.join(format!("{}.pid", process.exec_id));
    // Not every runtime writes one.
    let _ = std::fs::remove_file(pid_file);
    container.hubs.remove(&process.exec_id);
    container.execs().remove(&process.exec_id);
    process.tell();
    fail_point!("shim.delete.exec");
    Ok(exit.unwrap_or_else(|| never_ran(process)))
}

/// How the process ended, when that has been told; none for one that has not ended.
async fn ended(process: &Process) -> Result<Option<Exit>> {
    let State::Stopped(exit) = process.state() else {
        return Ok(None);
    };
    // Its exit event goes before its delete event.
    match tokio::time::timeout(END, process.wait()).await {
        Ok(result) => result.map(Some),
        Err(_) => Ok(Some(exit)),
    }
}

/// Has the runtime remove what it made. Gone already is success.
async fn remove(container: &Container) -> Result<()> {
    let stopping = matches!(container.init.state(), State::Created { .. });
    if matches!(container.init.state(), State::Added) {
        return Ok(());
    }
    match container.runtime.delete(&container.id, true).await {
        Err(error) if error.kind != Kind::NotFound => {
            return Err(error.within("OCI runtime delete failed"));
        }
        _ => {}
    }
    if stopping
        && tokio::time::timeout(END, container.init.wait())
            .await
            .is_err()
    {
        let text = format!(
            "container {} was killed, but its init has not ended",
            container.id
        );
        return Err(Error::new(Kind::DeadlineExceeded, text));
    }
    Ok(())
}

fn never_ran(process: &Process) -> Exit {
    Exit {
        id: process.record().to_owned(),
        pid: 0,
        code: 0,
        at: Timestamp::now(),
        oom: false,
        signal: None,
    }
}

fn running(id: &str) -> Error {
    Error::new(
        Kind::FailedPrecondition,
        format!("cannot delete a running process: {id}"),
    )
}
