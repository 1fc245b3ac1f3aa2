//! The task service: containers and their processes. What the requests do, without a word of their wire form
//! (that is [`service`]).

mod container;
mod create;
mod delete;
mod exit;
pub(crate) mod metrics;
mod process;
mod running;
mod service;
mod start;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

pub(crate) use container::Shim;
pub(crate) use service::TaskService;

use self::container::Container;
use crate::error::{Error, Kind, Result};

/// All containers of this shim. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    shim: Shim,
    slots: Arc<Mutex<BTreeMap<String, Slot>>>,
    /// Told when the shim may go.
    finished: Arc<Notify>,
    /// Told when a container is there.
    used: Arc<Notify>,
}

#[derive(Debug, Clone)]
enum Slot {
    /// Being created: the id is taken.
    Reserved,
    Ready(Arc<Container>),
}

impl Tasks {
    pub(crate) fn new(shim: Shim) -> Tasks {
        Tasks {
            shim,
            slots: Arc::default(),
            finished: Arc::default(),
            used: Arc::default(),
        }
    }

    /// The container with this id.
    ///
    /// # Errors
    /// Not found, also while it is still being created.
    fn container(&self, id: &str) -> Result<Arc<Container>> {
        match self.slots().get(id) {
            Some(Slot::Ready(container)) => Ok(container.clone()),
            Some(Slot::Reserved) | None => Err(Error::new(
                Kind::NotFound,
                format!("container {id} does not exist"),
            )),
        }
    }

    /// Ends the shim, if it keeps nothing any more; says whether it does.
    pub(crate) fn shutdown(&self) -> bool {
        let idle = self.slots().is_empty();
        if idle {
            self.finished.notify_one();
        }
        idle
    }

    /// Waits for [`Tasks::shutdown`].
    pub(crate) async fn finished(&self) {
        self.finished.notified().await;
    }

    /// Waits for the first container.
    pub(crate) async fn used(&self) {
        self.used.notified().await;
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
