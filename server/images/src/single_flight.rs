//! One at a time for a key: who comes second waits for the first and then
//! looks whether there is anything left to do.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Locks by key. Cheap to clone: all clones are one set.
pub(crate) struct SingleFlight<K>(Arc<Mutex<HashMap<K, Weak<AsyncMutex<()>>>>>);

/// The lock of one key; the next one in line goes on when it is dropped.
pub(crate) type Flight = OwnedMutexGuard<()>;

impl<K> Clone for SingleFlight<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for SingleFlight<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> fmt::Debug for SingleFlight<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SingleFlight")
    }
}

impl<K: Eq + Hash> SingleFlight<K> {
    /// Waits for the lock of `key`.
    pub(crate) async fn enter(&self, key: K) -> Flight {
        let lock = self.slot(key);
        lock.lock_owned().await
    }

    /// The lock of `key` if nobody has it.
    pub(crate) fn try_enter(&self, key: K) -> Option<Flight> {
        self.slot(key).try_lock_owned().ok()
    }

    fn slot(&self, key: K) -> Arc<AsyncMutex<()>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Swept only when it has grown, so that this stays constant on average.
        if slots.len() >= 64 && slots.len().is_power_of_two() {
            slots.retain(|_, slot| slot.strong_count() > 0);
        }
        let slot = slots.entry(key).or_default();
        if let Some(lock) = slot.upgrade() {
            return lock;
        }
        let lock = Arc::new(AsyncMutex::new(()));
        *slot = Arc::downgrade(&lock);
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_for_each_key() {
        let flights = SingleFlight::default();
        let first = flights.enter("a").await;
        assert!(flights.try_enter("a").is_none());
        assert!(flights.try_enter("b").is_some());
        let waiting = tokio::spawn({
            let flights = flights.clone();
            async move { flights.enter("a").await }
        });
        drop(first);
        drop(waiting.await.unwrap());
        assert!(flights.try_enter("a").is_some());
    }
}
