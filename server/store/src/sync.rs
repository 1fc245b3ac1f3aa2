//! When what was committed reaches the disk.
//!
//! One thread flushes and syncs for everybody. A flush hands sled's log to
//! the kernel (a killed daemon loses nothing from then on); a sync is a flush
//! and one `fdatasync` (a power cut loses nothing either). Who comes while a
//! sync runs shares the next one. With nothing to write, the thread sleeps.
//!
//! sled may reuse a segment of its file once the segment's entries were
//! written again elsewhere, and takes `sync_file_range` for proof that they
//! were. After a power cut that proof may be wrong, so no more than half a
//! segment is ever written without a sync in between: a segment is reused two
//! segments later at the earliest, when the copies are long on disk.

use crate::{
    Error, Kind, Result,
    backend::Batch,
    open::SyncMoment,
    stats::Counters,
    store::{Shared, closed, lock},
};
use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Bytes that may be in sled's log since the last sync before a commit waits
/// for the next; half of sled's segment.
const MAX_UNSYNCED: u64 = 256 << 10;

/// What one entry may cost in sled's log beyond itself: its share of the page
/// that is written again with it.
const COST_OF_ENTRY: u64 = 3072;

/// A sync that takes longer is worth a line in the log.
const SLOW: Duration = Duration::from_secs(5);

/// What is wanted, and what is done.
#[derive(Default)]
pub(crate) struct Sync {
    wants: Mutex<Wants>,
    wake: Condvar,
    /// Held by whoever flushes.
    running: Mutex<()>,
    done: watch::Sender<Done>,
    /// Bytes in sled's log since the last sync, estimated high.
    unsynced: AtomicU64,
}

/// Positions are numbers of commits.
#[derive(Default)]
struct Wants {
    committed: u64,
    last_event: u64,
    written: u64,
    durable: u64,
    first_unwritten: Option<Instant>,
    first_unsynced: Option<Instant>,
    stop: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Done {
    /// Commits that a kill can't undo.
    written: u64,
    /// Commits that a power cut can't undo.
    durable: u64,
    /// Last event of the written commits: what subscribers may see.
    pub(crate) event: u64,
    /// The store is closed or failed.
    pub(crate) over: bool,
}

/// The thread; ends when the last handle of the store is dropped.
pub(crate) struct SyncThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for SyncThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SyncThread")
    }
}

impl SyncThread {
    pub(crate) fn start(shared: Arc<Shared>) -> Result<Self> {
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("store-sync".to_owned())
            .spawn(move || worker.run())
            .map_err(|e| Error::io("starting the store's thread", e))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        lock(&self.shared.sync.wants).stop = true;
        self.shared.sync.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Sync {
    /// Follows what is done.
    pub(crate) fn watch(&self) -> watch::Receiver<Done> {
        self.done.subscribe()
    }

    /// What is visible of the event log before anything is committed.
    pub(crate) fn begin(&self, last_event: u64) {
        lock(&self.wants).last_event = last_event;
        self.done.send_modify(|done| done.event = last_event);
    }

    /// Bytes that `batch` may add to sled's log.
    pub(crate) fn cost(&self, batch: &Batch) -> u64 {
        // An entry is written itself, and again with its page when the page
        // is consolidated, split or moved. Measured over a thousand stretches
        // between two syncs this is twice what was written, and in the worst
        // of them two thirds.
        batch.bytes as u64 * 3 + batch.operations as u64 * COST_OF_ENTRY
    }
}

impl Shared {
    /// Transactions that were committed, trimming among them.
    #[cfg(test)]
    pub(crate) fn commits(&self) -> u64 {
        lock(&self.sync.wants).committed
    }

    /// Syncs first when `batch` could make the unsynced part of the log too
    /// long.
    pub(crate) fn make_room(&self, batch: &Batch) -> Result<()> {
        let unsynced = self.sync.unsynced.load(Ordering::Relaxed);
        if unsynced > 0 && unsynced + self.sync.cost(batch) > MAX_UNSYNCED {
            self.sync_now()?;
        }
        Ok(())
    }

    /// Notes a commit after which `last_event` is the log's last.
    pub(crate) fn committed(&self, last_event: u64, cost: u64) {
        let unsynced = self.sync.unsynced.fetch_add(cost, Ordering::Relaxed) + cost;
        let mut wants = lock(&self.sync.wants);
        wants.committed += 1;
        let committed = wants.committed;
        let news = wants.last_event != last_event && self.log.is_watched();
        wants.last_event = last_event;
        let mut wake = false;
        if news {
            wants.written = committed;
            wake = true;
        }
        if unsynced > MAX_UNSYNCED / 2 {
            // In good time, so that no commit has to wait for it.
            wants.durable = committed;
            wake = true;
        }
        if wants.first_unwritten.is_none() {
            wants.first_unwritten = Some(Instant::now());
            wake = true;
        }
        if wants.first_unsynced.is_none() {
            wants.first_unsynced = Some(Instant::now());
            wake = true;
        }
        drop(wants);
        if wake {
            self.sync.wake.notify_all();
        }
    }

    pub(crate) async fn durable(&self) -> Result<()> {
        let mut done = self.sync.done.subscribe();
        let target = {
            let mut wants = lock(&self.sync.wants);
            let target = wants.committed;
            if done.borrow_and_update().durable >= target {
                return Ok(());
            }
            wants.durable = wants.durable.max(target);
            target
        };
        Counters::add(&self.counters.durable_waits, 1);
        self.sync.wake.notify_all();
        self.wait(&mut done, |done| done.durable >= target).await
    }

    pub(crate) async fn written(&self) -> Result<()> {
        let mut done = self.sync.done.subscribe();
        let target = {
            let mut wants = lock(&self.sync.wants);
            let target = wants.committed;
            if done.borrow_and_update().written >= target {
                return Ok(());
            }
            wants.written = wants.written.max(target);
            target
        };
        self.sync.wake.notify_all();
        self.wait(&mut done, |done| done.written >= target).await
    }

    /// Asks for a flush, so that events that are committed become visible.
    pub(crate) fn want_written(&self) {
        let mut wants = lock(&self.sync.wants);
        if self.sync.done.borrow().written < wants.committed {
            wants.written = wants.committed;
            drop(wants);
            self.sync.wake.notify_all();
        }
    }

    async fn wait(
        &self,
        done: &mut watch::Receiver<Done>,
        reached: impl Fn(&Done) -> bool,
    ) -> Result<()> {
        let there = match done.wait_for(|done| reached(done) || done.over).await {
            Ok(done) => reached(&done),
            Err(_) => false,
        };
        if there {
            return Ok(());
        }
        self.check()?;
        Err(closed())
    }

    /// Makes everything committed so far durable, in this thread.
    pub(crate) fn sync_now(&self) -> Result<()> {
        self.cycle(true)
    }

    /// Ends all waiting and lets go of the backend.
    pub(crate) fn end(&self) {
        let running = lock(&self.sync.running);
        *self.backend.write().unwrap_or_else(|e| e.into_inner()) = None;
        drop(running);
        self.sync.done.send_modify(|done| done.over = true);
    }

    /// One flush, and one sync when `sync`.
    fn cycle(&self, sync: bool) -> Result<()> {
        let _running = lock(&self.sync.running);
        let backend = self.backend_handle()?;
        let cost = self.sync.unsynced.load(Ordering::Relaxed);
        let (target, event) = {
            let mut wants = lock(&self.sync.wants);
            wants.first_unwritten = None;
            if sync {
                wants.first_unsynced = None;
            }
            (wants.committed, wants.last_event)
        };
        let before = Instant::now();
        let result = self.flush_and_sync(&backend, sync, target, event);
        if let Err(e) = result {
            let e = self.fail(e);
            self.sync.done.send_modify(|done| done.over = true);
            return Err(e);
        }
        if sync {
            self.sync.unsynced.fetch_sub(cost, Ordering::Relaxed);
        }
        let took = before.elapsed();
        if took > SLOW {
            tracing::warn!(?took, "syncing the store was slow; is the disk busy?");
        }
        Ok(())
    }

    fn flush_and_sync(
        &self,
        backend: &crate::backend::Backend,
        sync: bool,
        target: u64,
        event: u64,
    ) -> Result<()> {
        if self.sync.done.borrow().written < target {
            backend.flush()?;
            Counters::add(&self.counters.flushes, 1);
        }
        fail::fail_point!("store.sync.after-flush");
        self.sync.done.send_modify(|done| {
            done.written = done.written.max(target);
            done.event = done.event.max(event);
        });
        if sync && self.sync.done.borrow().durable < target {
            if let Some(watch) = &self.sync_watch {
                watch(SyncMoment::Before, target);
            }
            backend.sync()?;
            Counters::add(&self.counters.fdatasyncs, 1);
            if let Some(watch) = &self.sync_watch {
                watch(SyncMoment::After, target);
            }
            self.sync
                .done
                .send_modify(|done| done.durable = done.durable.max(target));
        }
        Ok(())
    }

    /// The thread.
    fn run(&self) {
        while let Some(sync) = self.next_work() {
            if self.check().is_err() || self.cycle(sync).is_err() {
                break;
            }
            match self.trim() {
                Ok(()) => {}
                // The disk is full; the log waits with everybody else.
                Err(e) if e.kind() == Kind::ResourceExhausted => {}
                Err(e) => {
                    tracing::warn!(error = e.chain(), "trimming the event log failed");
                    break;
                }
            }
        }
        // The last handle is gone, or nothing can be written any more.
        if self.check().is_ok() {
            drop(self.cycle(true));
        }
        while !lock(&self.sync.wants).stop {
            let wants = lock(&self.sync.wants);
            drop(self.sync.wake.wait(wants));
        }
        self.end();
    }

    /// Waits until there is something to do; `true` for a sync, `false` for a
    /// flush, `None` to stop.
    fn next_work(&self) -> Option<bool> {
        let mut wants = lock(&self.sync.wants);
        loop {
            let (written, durable) = {
                let done = self.sync.done.borrow();
                (done.written, done.durable)
            };
            if wants.stop {
                return None;
            }
            let now = Instant::now();
            let sync_at = wants
                .first_unsynced
                .map(|at| at + self.options.sync_interval);
            let write_at = wants
                .first_unwritten
                .map(|at| at + self.options.write_interval);
            if wants.durable > durable || sync_at.is_some_and(|at| at <= now) {
                return Some(true);
            }
            if wants.written > written || write_at.is_some_and(|at| at <= now) {
                return Some(false);
            }
            wants = match sync_at.into_iter().chain(write_at).min() {
                Some(at) => {
                    let timeout = at.saturating_duration_since(now);
                    self.sync
                        .wake
                        .wait_timeout(wants, timeout)
                        .unwrap_or_else(|e| e.into_inner())
                        .0
                }
                None => self
                    .sync
                    .wake
                    .wait(wants)
                    .unwrap_or_else(|e| e.into_inner()),
            };
        }
    }
}
