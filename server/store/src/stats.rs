//! Counters of what the store did since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

/// A look at the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transactions that were committed and changed something.
    pub transactions: u64,
    /// Times that sled's log was handed to the kernel.
    pub flushes: u64,
    /// `fdatasync`s of sled's file.
    pub fdatasyncs: u64,
    /// Calls of [`Store::durable`](crate::Store::durable) that had to wait.
    pub durable_waits: u64,
    /// Events that left the log by its bounds.
    pub events_trimmed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) transactions: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) fdatasyncs: AtomicU64,
    pub(crate) durable_waits: AtomicU64,
    pub(crate) events_trimmed: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            transactions: get(&self.transactions),
            flushes: get(&self.flushes),
            fdatasyncs: get(&self.fdatasyncs),
            durable_waits: get(&self.durable_waits),
            events_trimmed: get(&self.events_trimmed),
        }
    }
}
