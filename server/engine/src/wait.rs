//! Waiting for the end of a container.

use std::sync::Arc;
use tokio::sync::watch;

use crate::{
    Error, Result,
    model::{ContainerStatus, ExitStatus, WaitCondition},
    view::View,
};

/// A wait that has begun: an end from now on is seen.
#[derive(Debug)]
pub struct Waiter {
    view: watch::Receiver<Arc<View>>,
    condition: WaitCondition,
    /// Ends that happened before.
    seen: u64,
}

impl Waiter {
    pub(crate) fn new(view: watch::Receiver<Arc<View>>, condition: WaitCondition) -> Self {
        let seen = view.borrow().ends;
        Self {
            view,
            condition,
            seen,
        }
    }

    /// Returns when the condition is met.
    pub async fn wait(mut self) -> Result<ExitStatus> {
        let (condition, seen) = (self.condition, self.seen);
        let met = |view: &Arc<View>| match condition {
            WaitCondition::NotRunning => {
                let runs = view.is_running() || view.status == ContainerStatus::Restarting;
                !runs || view.ends > seen || view.removed
            }
            WaitCondition::NextExit => view.ends > seen || view.removed,
            WaitCondition::Removed => view.removed,
        };
        let exit = self.view.wait_for(met).await.map(|view| view.exit()).ok();
        match exit {
            Some(exit) => Ok(exit),
            None if condition == WaitCondition::Removed => Ok(self.view.borrow().exit()),
            None => Err(Error::not_found(
                "the container is gone, or the daemon is stopping",
            )),
        }
    }
}
