//! The one place that knows sled: byte keys and byte values in one tree.
//!
//! sled panics on some damaged files, so every call into it is caught and
//! becomes an error. Its `flush` is no barrier against a power cut on Linux
//! (it writes with `sync_file_range`, which leaves the disk's cache and the
//! file's metadata alone), so [`Backend::sync`] calls `fdatasync` on the same
//! file through a descriptor of its own.

use crate::{Error, Kind, Result, headroom::Headroom, seal};
use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long to wait for the threads of a store that was just closed in this
/// process; they let go of sled's file a moment after the last handle.
const RELEASE_DEADLINE: Duration = Duration::from_secs(5);

/// An entry as it lies in the tree.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Changes that become visible, and survive, all or none.
#[derive(Default)]
pub(crate) struct Batch {
    inner: sled::Batch,
    /// Puts and deletes.
    pub(crate) operations: usize,
    /// Bytes of keys and values.
    pub(crate) bytes: usize,
    /// What this adds to the seal's sum.
    difference: u128,
}

impl Batch {
    /// Puts `value` under `key`, which has the entry `old` now.
    pub(crate) fn put(&mut self, key: &[u8], value: Vec<u8>, old: Option<&[u8]>) {
        self.difference = self.difference.wrapping_add(seal::hash(key, &value));
        self.take_away(key, old);
        self.put_unsealed(key, value);
    }

    /// Puts what the seal's sum leaves out.
    pub(crate) fn put_unsealed(&mut self, key: &[u8], value: Vec<u8>) {
        self.operations += 1;
        self.bytes += key.len() + value.len();
        self.inner.insert(key, value);
    }

    /// Deletes the entry `old` of `key`.
    pub(crate) fn delete(&mut self, key: &[u8], old: Option<&[u8]>) {
        self.take_away(key, old);
        self.operations += 1;
        self.bytes += key.len();
        self.inner.remove(key);
    }

    fn take_away(&mut self, key: &[u8], old: Option<&[u8]>) {
        if let Some(old) = old {
            self.difference = self.difference.wrapping_sub(seal::hash(key, old));
        }
    }

    pub(crate) fn difference(&self) -> u128 {
        self.difference
    }
}

/// An open sled.
pub(crate) struct Backend {
    db: sled::Db,
    file: File,
    headroom: Headroom,
}

impl Backend {
    /// Opens or makes the sled in the directory `path`. [`Kind::DataLoss`]
    /// means that what is there is damaged; other kinds, that the system
    /// would not let us.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self> {
        let released = Instant::now() + RELEASE_DEADLINE;
        let db = loop {
            match open_sled(path, cache_bytes) {
                Err(e) if is_locked(&e) && Instant::now() < released => {
                    thread::sleep(Duration::from_millis(10));
                }
                other => break other?,
            }
        };
        let data = path.join("db");
        let file = File::open(&data).map_err(|e| Error::io(format!("opening {data:?}"), e))?;
        let headroom = Headroom::of(data)?;
        if let Err(error) = headroom.secure() {
            // Reading works, and space may come.
            tracing::warn!(error = error.chain(), "opening the store on a full disk");
        }
        Ok(Self { db, file, headroom })
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = guarded("reading", || self.db.get(key))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// Entries whose keys begin with `prefix` and are not below `from`, in
    /// order, at most `limit`.
    pub(crate) fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>> {
        guarded("scanning", || {
            let start = if from > prefix { from } else { prefix };
            let mut entries = Vec::new();
            for entry in self.db.range(start..) {
                let (key, value) = entry?;
                if entries.len() >= limit || !key.starts_with(prefix) {
                    break;
                }
                entries.push((key.to_vec(), value.to_vec()));
            }
            Ok(entries)
        })
    }

    /// The last entry whose key begins with `prefix`; `prefix` is one byte.
    pub(crate) fn last(&self, prefix: u8) -> Result<Option<Entry>> {
        guarded("reading", || {
            let end: &[u8] = &[prefix + 1];
            let Some(entry) = self.db.range::<&[u8], _>(..end).next_back() else {
                return Ok(None);
            };
            let (key, value) = entry?;
            let ours = key.first() == Some(&prefix);
            Ok(ours.then(|| (key.to_vec(), value.to_vec())))
        })
    }

    /// Refuses ([`Kind::ResourceExhausted`]) when the disk is so full that the next changes might not reach it: after
    /// a write that failed sled can't go on.
    pub(crate) fn has_room(&self) -> Result<()> {
        self.headroom.secure()
    }

    /// Applies `batch`, in memory and in sled's log buffer.
    pub(crate) fn apply(&self, batch: Batch) -> Result<()> {
        guarded("writing", || self.db.apply_batch(batch.inner))
    }

    /// Hands everything applied so far to the kernel: it survives the death
    /// of this process from then on.
    pub(crate) fn flush(&self) -> Result<()> {
        guarded("flushing", || self.db.flush()).map(drop)
    }

    /// Makes everything that was flushed survive a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|e| Error::io("syncing the store's file", e))
    }
}

fn open_sled(path: &Path, cache_bytes: u64) -> Result<sled::Db> {
    guarded("opening", || {
        sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            // Our own thread flushes: sled's would fsync twice a second
            // whether or not there is anything to write.
            .flush_every_ms(None)
            .open()
    })
}

fn is_locked(error: &Error) -> bool {
    error.kind() == Kind::Unavailable
}

/// Runs a call into sled; its panics and errors become ours.
fn guarded<T>(what: &str, call: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(from_sled(what, e)),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(Error::new(
                Kind::DataLoss,
                format!("{what} the store: sled panicked: {text}"),
            ))
        }
    }
}

fn from_sled(what: &str, error: sled::Error) -> Error {
    let message = format!("{what} the store");
    match error {
        sled::Error::Io(e) if e.to_string().starts_with("could not acquire lock") => {
            Error::new(Kind::Unavailable, message).with_source(e)
        }
        // What the operating system refused is no damage, except a block that
        // can't be read. Errors without a number are sled's own findings.
        sled::Error::Io(e) if e.raw_os_error().is_some_and(|n| n != EIO) => Error::io(message, e),
        sled::Error::Io(e) if e.kind() == io::ErrorKind::StorageFull => Error::io(message, e),
        other => Error::new(Kind::DataLoss, message).with_source(other),
    }
}

const EIO: i32 = 5;
