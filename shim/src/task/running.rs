//! What can be done with a process that runs: signals, freezing, limits, its terminal and stdin, looking at it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim_protos::{events, topics};

use super::Tasks;
use super::container::Container;
use super::process::{Process, State};
use crate::cgroup::{Cgroup, Stats};
use crate::error::{Error, Kind, Result};
use crate::exits::Exit;
use crate::io::frame::Size;
use crate::runtime::{CheckpointRequest, Runtime};

const KILL: i32 = 9;

impl Tasks {
    /// A process with its container, to look at.
    pub(crate) fn look(&self, id: &str, exec_id: &str) -> Result<(Arc<Container>, Arc<Process>)> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        Ok((container, process))
    }

    /// Waits for a process to end.
    pub(crate) async fn wait(&self, id: &str, exec_id: &str) -> Result<Exit> {
        self.look(id, exec_id)?.1.wait().await
    }

    /// Sends a signal to a process, or to all of the container.
    pub(crate) async fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let signal = i32::try_from(signal)
            .ok()
            .filter(|signal| (0..=64).contains(signal))
            .ok_or_else(|| {
                Error::new(Kind::InvalidArgument, format!("no such signal: {signal}"))
            })?;
        let (container, process) = self.look(id, exec_id)?;
        if !exec_id.is_empty() {
            return send(process.alive()?, signal);
        }
        if all {
            return container.runtime.kill(id, signal, true).await;
        }
        let pid = process.alive()?;
        let frozen = matches!(process.state(), State::Paused { .. });
        let sent = match &container.runtime {
            Runtime::External(external) if external.signals_by_pid() => send(pid, signal),
            Runtime::External(_) | Runtime::Builtin(_) => {
                container.runtime.kill(id, signal, false).await
            }
        };
        if frozen && signal == KILL && sent.is_ok() && self.resume(id).await.is_err() {
            // It may have been thawed by the runtime's kill, and be gone by now.
        }
        sent
    }

    /// Freezes a running container.
    pub(crate) async fn pause(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _one = container.operation.lock().await;
        let State::Running { pid } = container.init.state() else {
            return Err(Error::new(
                Kind::FailedPrecondition,
                format!("container {id} is not running: cannot pause it"),
            ));
        };
        container
            .runtime
            .pause(id)
            .await
            .map_err(|error| error.within("OCI runtime pause failed"))?;
        container.init.advance(State::Paused { pid });
        let event = events::task::TaskPaused {
            container_id: id.to_owned(),
            ..Default::default()
        };
        self.shim
            .publisher
            .publish(topics::TASK_PAUSED_EVENT_TOPIC, &event);
        Ok(())
    }

    /// Thaws a paused container.
    pub(crate) async fn resume(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _one = container.operation.lock().await;
        let State::Paused { pid } = container.init.state() else {
            return Err(Error::new(
                Kind::FailedPrecondition,
                format!("container {id} is not paused: cannot resume it"),
            ));
        };
        container
            .runtime
            .resume(id)
            .await
            .map_err(|error| error.within("OCI runtime resume failed"))?;
        container.init.advance(State::Running { pid });
        let event = events::task::TaskResumed {
            container_id: id.to_owned(),
            ..Default::default()
        };
        self.shim
            .publisher
            .publish(topics::TASK_RESUMED_EVENT_TOPIC, &event);
        Ok(())
    }

    /// All pids in the container, each with the exec that it is, if it is one.
    pub(crate) async fn pids(&self, id: &str) -> Result<Vec<(i32, Option<String>)>> {
        let container = self.container(id)?;
        let pids = container.runtime.ps(id).await?;
        let execs: Vec<_> = container
            .execs()
            .values()
            .map(|exec| (exec.pid(), exec.exec_id.clone()))
            .collect();
        let name = |pid| {
            execs
                .iter()
                .find(|(other, _)| *other == pid)
                .map(|(_, id)| id.clone())
        };
        Ok(pids.into_iter().map(|pid| (pid, name(pid))).collect())
    }

    /// What the container uses, and whether the numbers are those of cgroup v2.
    pub(crate) fn stats(&self, id: &str) -> Result<(Stats, bool)> {
        let container = self.container(id)?;
        let cgroup = container.cgroup().ok_or_else(|| {
            Error::new(
                Kind::FailedPrecondition,
                format!("container {id} has no cgroups to measure: it is not running"),
            )
        })?;
        let stats = cgroup
            .stats()
            .map_err(|error| Error::because(format_args!("container {id}: statistics"), error))?;
        Ok((stats, Cgroup::is_pure_v2(cgroup)))
    }

    /// Changes limits; `resources` is an OCI LinuxResources as JSON.
    pub(crate) async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        let _one = container.operation.lock().await;
        serde_json::from_slice::<serde::de::IgnoredAny>(resources).map_err(|error| {
            Error::new(
                Kind::InvalidArgument,
                format!("container {id}: resources: {error}"),
            )
        })?;
        container
            .runtime
            .update(id, resources)
            .await
            .map_err(|error| error.within("OCI runtime update failed"))
    }

    /// Writes a checkpoint to `path`.
    pub(crate) async fn checkpoint(
        &self,
        id: &str,
        path: &Path,
        mut request: CheckpointRequest,
    ) -> Result<()> {
        let container = self.container(id)?;
        let _one = container.operation.lock().await;
        if request.image_path.as_os_str().is_empty() {
            request.image_path = PathBuf::from(path);
        }
        container
            .runtime
            .checkpoint(id, &container.bundle, &request)
            .await
            .map_err(|error| error.within("OCI runtime checkpoint failed"))?;
        let event = events::task::TaskCheckpointed {
            container_id: id.to_owned(),
            checkpoint: path.to_string_lossy().into_owned(),
            ..Default::default()
        };
        self.shim
            .publisher
            .publish(topics::TASK_CHECKPOINTED_EVENT_TOPIC, &event);
        Ok(())
    }

    /// Resizes a process's terminal.
    pub(crate) fn resize(&self, id: &str, exec_id: &str, size: Size) -> Result<()> {
        let (_, process) = self.look(id, exec_id)?;
        if !process.request.terminal {
            return Err(Error::new(
                Kind::FailedPrecondition,
                "the process has no terminal to resize",
            ));
        }
        process.stdio.terminal.resize(size);
        Ok(())
    }

    /// Closes a process's stdin.
    pub(crate) fn close_stdin(&self, id: &str, exec_id: &str) -> Result<()> {
        self.look(id, exec_id)?.1.stdio.close_stdin();
        Ok(())
    }
}

fn send(pid: i32, signal: i32) -> Result<()> {
    match davit_sys::process::kill(pid, signal) {
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => {
            Err(Error::new(Kind::NotFound, "process already finished"))
        }
        Err(error) => Err(Error::because(
            format_args!("sending signal {signal} to process {pid}"),
            error,
        )),
        Ok(()) => Ok(()),
    }
}
