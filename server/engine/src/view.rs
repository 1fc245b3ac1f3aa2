//! What a container's actor publishes: everything that lists, inspects and
//! waits need, so that none of them asks the actor.

use std::sync::Arc;

use davit_store::table::container::{ContainerRecord, Details, StateFacts};

use crate::{
    model::{ContainerState, ContainerStatus, ExitStatus, Health},
    shim::Run,
};

/// A container at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) record: Arc<ContainerRecord>,
    pub(crate) status: ContainerStatus,
    /// The shim while there is one: from the start until what the run left is
    /// cleaned up.
    pub(crate) run: Option<Arc<Run>>,
    pub(crate) health: Option<Health>,
    /// Ends of runs (and failed starts) since the daemon's start.
    pub(crate) ends: u64,
    /// The record is gone.
    pub(crate) removed: bool,
    /// Number of the newest event that this view includes.
    pub(crate) event: u64,
}

impl View {
    /// A container of which only the record is known yet.
    pub(crate) fn blank(record: Arc<ContainerRecord>) -> Self {
        Self {
            record,
            status: ContainerStatus::Created,
            run: None,
            health: None,
            ends: 0,
            removed: false,
            event: 0,
        }
    }

    /// davit's part of the record; every container that has an actor has one.
    pub(crate) fn details(&self) -> Option<&Details> {
        self.record.details.as_deref()
    }

    /// Facts of the last run.
    pub(crate) fn facts(&self) -> StateFacts {
        self.details()
            .map(|details| details.state.clone())
            .unwrap_or_default()
    }

    /// The name, without "/".
    pub(crate) fn name(&self) -> &str {
        self.details().map_or("", |details| details.name.as_str())
    }

    /// Whether a process runs, frozen or not.
    pub(crate) fn is_running(&self) -> bool {
        matches!(
            self.status,
            ContainerStatus::Running | ContainerStatus::Paused
        )
    }

    /// Whether more output may come without anybody starting it.
    pub(crate) fn may_write(&self) -> bool {
        self.run.is_some() || self.is_running() || self.status == ContainerStatus::Restarting
    }

    /// How the last run ended.
    pub(crate) fn exit(&self) -> ExitStatus {
        let facts = self.facts();
        ExitStatus {
            exit_code: facts.exit_code,
            exited_at: facts.finished_at,
            error: facts.error,
            oom_killed: facts.oom_killed,
        }
    }

    /// What callers see of the state.
    pub(crate) fn state(&self) -> ContainerState {
        let facts = self.facts();
        ContainerState {
            status: self.status,
            pid: self
                .is_running()
                .then(|| self.run.as_ref().map(|run| run.pid()))
                .flatten(),
            exit_code: if self.is_running() {
                0
            } else {
                facts.exit_code
            },
            error: facts.error,
            oom_killed: facts.oom_killed,
            started_at: facts.started_at,
            finished_at: facts.finished_at,
            restart_count: u32::try_from(facts.restart_count).unwrap_or(0),
            health: self.health.clone(),
            manually_stopped: facts.manually_stopped,
        }
    }
}
