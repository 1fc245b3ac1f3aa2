//! What is known of volumes beyond their records: who is at work on one, which
//! containers have one mounted, which plugins there are. Derived at the start,
//! never stored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::OwnedMutexGuard;

use super::plugin::Plugins;
use crate::{Error, Kind, Result, config::VolumesConfig};

/// Namespace and name.
pub(super) type Key = (String, String);

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) config: VolumesConfig,
    pub(super) plugins: Plugins,
    turns: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    held: Mutex<HashMap<Key, Vec<String>>>,
    users: Mutex<BTreeMap<Key, BTreeSet<String>>>,
    recovered: AtomicBool,
}

/// Says that a container that is being made is to have a volume; gone when it
/// is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    state: Arc<State>,
    key: Key,
    container: String,
}

impl State {
    pub(crate) fn new(config: VolumesConfig) -> Arc<Self> {
        Arc::new(Self {
            plugins: Plugins::new(&config),
            config,
            turns: Mutex::default(),
            held: Mutex::default(),
            users: Mutex::default(),
            recovered: AtomicBool::new(false),
        })
    }

    /// Waits for its turn at a volume: making, removing, filling and mounting
    /// one happen one after the other, and one that hangs hangs alone.
    pub(super) async fn turn(&self, key: &Key) -> Result<OwnedMutexGuard<()>> {
        let turn = {
            let mut turns = lock(&self.turns);
            if turns.len() > 64 {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            Arc::clone(turns.entry(key.clone()).or_default())
        };
        // What is before us is bounded itself, with as much for its way back.
        let within = self.config.timeout * 2 + Duration::from_secs(1);
        tokio::time::timeout(within, turn.lock_owned()).await.map_err(|_| {
            Error::new(
                Kind::DeadlineExceeded,
                format!("volume {} is busy: another operation on it has not ended for {within:?}; try again", key.1),
            )
        })
    }

    /// Keeps a volume from being removed while `container` is being made.
    pub(super) fn hold(self: &Arc<Self>, key: Key, container: &str) -> Hold {
        lock(&self.held)
            .entry(key.clone())
            .or_default()
            .push(container.to_owned());
        Hold {
            state: Arc::clone(self),
            key,
            container: container.to_owned(),
        }
    }

    /// Containers that are being made with a volume.
    pub(super) fn held(&self, key: &Key) -> Vec<String> {
        lock(&self.held).get(key).cloned().unwrap_or_default()
    }

    /// Notes that a container has a volume mounted.
    pub(super) fn used(&self, key: &Key, container: &str) {
        lock(&self.users)
            .entry(key.clone())
            .or_default()
            .insert(container.to_owned());
    }

    /// Notes that it has no more; true when nobody has.
    pub(super) fn unused(&self, key: &Key, container: &str) -> bool {
        let mut users = lock(&self.users);
        let Some(of_volume) = users.get_mut(key) else {
            return true;
        };
        of_volume.remove(container);
        let last = of_volume.is_empty();
        if last {
            users.remove(key);
        }
        last
    }

    /// Whether all that the last daemon left is known.
    pub(super) fn is_recovered(&self) -> bool {
        self.recovered.load(Ordering::Acquire)
    }

    pub(super) fn set_recovered(&self) {
        self.recovered.store(true, Ordering::Release);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = lock(&self.state.held);
        if let Some(containers) = held.get_mut(&self.key) {
            if let Some(at) = containers.iter().position(|id| *id == self.container) {
                containers.swap_remove(at);
            }
            if containers.is_empty() {
                held.remove(&self.key);
            }
        }
    }
}

/// Every change under these locks is one map operation, so a panic in between
/// leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
