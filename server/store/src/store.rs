//! The store's handle: reading, transactions, and what they share.

use crate::{
    Error, Kind, Result,
    backend::Backend,
    dir_lock::DirLock,
    event_log::{EventLog, Log, Tail},
    key::{KeyOf, PrefixOf},
    open::{Opened, Options, Seams, SyncWatch},
    seal::Seal,
    state::StateFile,
    stats::{Counters, Stats},
    sync::{Sync, SyncThread},
    table::Table,
    transaction::{self, Tx, table_key, table_prefix},
    values,
    verify::Verified,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard},
    thread::{self, ThreadId},
};

/// The store. Cheap to clone; the last clone that goes away flushes and lets
/// go of the directory.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    _thread: Arc<SyncThread>,
}

/// What all handles, the sync thread and event streams share.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) sync_watch: Option<SyncWatch>,
    /// `None` once the store is closed. Readers hold it for one look, commits
    /// alone, so that a scan never sees half a transaction.
    pub(crate) backend: RwLock<Option<Arc<Backend>>>,
    /// Who writes. The lock is the order of transactions.
    pub(crate) writer: Mutex<Writer>,
    /// The thread in a transaction, so that one within another is an error
    /// instead of a deadlock.
    inside: Mutex<Option<ThreadId>>,
    /// Why nothing works any more: sled failed underneath.
    failed: OnceLock<String>,
    pub(crate) sync: Sync,
    pub(crate) log: Log,
    pub(crate) counters: Counters,
    /// Given back when the store is closed.
    dir_lock: Mutex<Option<DirLock>>,
}

/// What only the transaction that is being made may change.
pub(crate) struct Writer {
    pub(crate) state: StateFile,
    pub(crate) tail: Tail,
    pub(crate) seal: Seal,
}

/// The backend while somebody reads it.
pub(crate) struct Reading<'a>(RwLockReadGuard<'a, Option<Arc<Backend>>>);

impl Reading<'_> {
    pub(crate) fn get(&self) -> &Backend {
        // Checked when it was made, and closing needs the lock that it holds.
        match self.0.as_ref() {
            Some(backend) => backend,
            None => unreachable!("the store was closed under a reader"),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.shared.dir)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in the directory `dir`, or makes it. A store that is
    /// damaged is moved to `<dir>.corrupt-<time>` and a new one made; the
    /// caller learns so from [`Opened::condition`](crate::Opened).
    ///
    /// [`Kind::FailedPrecondition`] when another process has it open or a
    /// newer davit wrote it. This blocks for as long as reading all of the
    /// store takes.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Opened> {
        crate::open::open(dir.as_ref(), options, Seams::default())
    }

    pub(crate) fn start(shared: Shared) -> Result<Self> {
        let shared = Arc::new(shared);
        let thread = Arc::new(SyncThread::start(Arc::clone(&shared))?);
        Ok(Self {
            shared,
            _thread: thread,
        })
    }

    /// Runs `change`; everything it wrote and every event it added become
    /// visible together when it returns `Ok`, and nothing when it returns
    /// `Err` or panics. It must be short and do no I/O: there is one
    /// transaction at a time. What it wrote survives the daemon's death a
    /// moment later, and a power cut after [`Store::durable`].
    pub fn transaction<X>(&self, change: impl FnOnce(&Tx<'_>) -> Result<X>) -> Result<X> {
        self.shared.transaction(change)
    }

    /// The record of `key`.
    pub fn get<T: Table>(&self, key: impl KeyOf<T::Key>) -> Result<Option<T::Record>> {
        let key = table_key::<T>(&key)?;
        let backend = self.shared.backend()?;
        match values::get(backend.get(), &key)? {
            Some(value) => transaction::decode::<T>(&value).map(Some),
            None => Ok(None),
        }
    }

    /// Whether `key` has a record.
    pub fn contains<T: Table>(&self, key: impl KeyOf<T::Key>) -> Result<bool> {
        let key = table_key::<T>(&key)?;
        Ok(self.shared.backend()?.get().get(&key)?.is_some())
    }

    /// All records whose keys begin with `prefix` (`()` for all of the
    /// table), in order, as they were at one moment.
    pub fn scan<T: Table>(
        &self,
        prefix: impl PrefixOf<T::Key>,
    ) -> Result<Vec<(T::Key, T::Record)>> {
        let prefix = table_prefix::<T>(&prefix);
        self.shared.scan::<T>(&prefix, &prefix, usize::MAX)
    }

    /// As [`Store::scan`], for those who go on when a record is damaged: each
    /// record is read by itself, and one that can't be read is an error beside
    /// its key. Entries whose very key is damaged are left out; `verify` tells
    /// of them.
    #[expect(clippy::type_complexity, reason = "a list of keys with what they gave")]
    pub fn scan_each<T: Table>(
        &self,
        prefix: impl PrefixOf<T::Key>,
    ) -> Result<Vec<(T::Key, Result<T::Record>)>> {
        let prefix = table_prefix::<T>(&prefix);
        let reading = self.shared.backend()?;
        let entries = reading.get().scan(&prefix, &prefix, usize::MAX)?;
        let read = entries.into_iter().filter_map(|(key, entry)| {
            let decoded = transaction::decode_key::<T>(&key).ok()?;
            let value = values::whole(reading.get(), &key, entry);
            let record = value.and_then(|value| transaction::decode_value::<T>(&value));
            Some((decoded, record))
        });
        Ok(read.collect())
    }

    /// The next records after `after` (from the first one without), at most
    /// `limit`, for walking a large table in steps.
    pub fn scan_after<T: Table>(
        &self,
        prefix: impl PrefixOf<T::Key>,
        after: Option<&T::Key>,
        limit: usize,
    ) -> Result<Vec<(T::Key, T::Record)>>
    where
        for<'k> &'k T::Key: KeyOf<T::Key>,
    {
        let prefix = table_prefix::<T>(&prefix);
        let from = match after {
            Some(key) => {
                // The smallest key above it; no key is a prefix of another.
                let mut from = table_key::<T>(&key)?;
                from.push(0);
                from
            }
            None => prefix.clone(),
        };
        self.shared.scan::<T>(&prefix, &from, limit)
    }

    /// Waits until everything that was committed before the call survives a
    /// power cut. All callers that wait share one `fdatasync`; without a
    /// commit since the last one this returns at once.
    pub async fn durable(&self) -> Result<()> {
        self.shared.durable().await
    }

    /// Waits until everything that was committed before the call survives the
    /// death of this process (though not a power cut). No `fdatasync`.
    pub async fn written(&self) -> Result<()> {
        self.shared.written().await
    }

    /// The event log.
    pub fn events(&self) -> EventLog {
        EventLog::new(self.clone())
    }

    /// Reads everything and says what is wrong. Blocks for as long as that
    /// takes; changes wait meanwhile.
    pub fn verify(&self) -> Result<Verified> {
        crate::verify::verify(self.shared.backend()?.get())
    }

    /// What was done since it was opened.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// Bytes that the store takes on disk.
    pub fn disk_bytes(&self) -> Result<u64> {
        crate::open::disk_bytes(&self.shared.dir)
    }

    /// Ends the store: everything is written and synced, event streams end,
    /// the stop is noted as a clean one, and the directory is free for the
    /// next process. Other handles get [`Kind::Unavailable`] from then on.
    /// Blocks.
    pub fn close(&self) -> Result<()> {
        self.shared.close()
    }
}

impl Shared {
    pub(crate) fn new(
        dir: PathBuf,
        options: Options,
        sync_watch: Option<SyncWatch>,
        backend: Backend,
        writer: Writer,
        dir_lock: DirLock,
    ) -> Self {
        Self {
            dir,
            options,
            sync_watch,
            backend: RwLock::new(Some(Arc::new(backend))),
            writer: Mutex::new(writer),
            inside: Mutex::new(None),
            failed: OnceLock::new(),
            sync: Sync::default(),
            log: Log::default(),
            counters: Counters::default(),
            dir_lock: Mutex::new(Some(dir_lock)),
        }
    }

    /// The backend for reading.
    pub(crate) fn backend(&self) -> Result<Reading<'_>> {
        let backend = self.backend.read().unwrap_or_else(|e| e.into_inner());
        if backend.is_none() {
            return Err(closed());
        }
        Ok(Reading(backend))
    }

    pub(crate) fn transaction<X>(&self, change: impl FnOnce(&Tx<'_>) -> Result<X>) -> Result<X> {
        let (mut writer, _inside) = self.enter()?;
        self.check()?;
        self.backend()?;
        let tx = Tx::new(self, writer.tail.clone());
        let result = change(&tx)?;
        self.commit(&mut writer, tx.into_changes())?;
        Ok(result)
    }

    /// Takes the writer's place.
    fn enter(&self) -> Result<(MutexGuard<'_, Writer>, Inside<'_>)> {
        let me = thread::current().id();
        if *lock(&self.inside) == Some(me) {
            return Err(Error::internal(
                "a transaction was begun within a transaction",
            ));
        }
        let writer = lock(&self.writer);
        *lock(&self.inside) = Some(me);
        Ok((writer, Inside(&self.inside)))
    }

    fn commit(&self, writer: &mut Writer, changes: transaction::Changes) -> Result<()> {
        if changes.values.is_empty() {
            return Ok(());
        }
        self.backend()?.get().has_room()?;
        if changes.tail.last > writer.state.event_ceiling() {
            writer.state.raise_event_ceiling(changes.tail.last)?;
        }
        let mut batch = values::batch(self.backend()?.get(), &changes.values)?;
        let seal = writer.seal.close(&mut batch);
        self.make_room(&batch)?;
        fail::fail_point!("store.commit.before-apply");
        let cost = self.sync.cost(&batch);
        {
            let backend = self.backend.write().unwrap_or_else(|e| e.into_inner());
            let backend = backend.as_ref().ok_or_else(closed)?;
            backend.apply(batch).map_err(|e| self.fail(e))?;
        }
        fail::fail_point!("store.commit.after-apply");
        writer.tail = changes.tail;
        writer.seal = seal;
        self.log.remember(changes.events);
        Counters::add(&self.counters.transactions, 1);
        self.committed(writer.tail.last, cost);
        Ok(())
    }

    fn scan<T: Table>(
        &self,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(T::Key, T::Record)>> {
        let entries = values::scan(self.backend()?.get(), prefix, from, limit)?;
        entries
            .iter()
            .map(|(key, value)| transaction::decode_entry::<T>(key, value))
            .collect()
    }

    /// The backend for work that must not keep commits waiting.
    pub(crate) fn backend_handle(&self) -> Result<Arc<Backend>> {
        let backend = self.backend()?;
        backend.0.as_ref().map(Arc::clone).ok_or_else(closed)
    }

    /// Notes that sled failed: what it holds in memory may not be what is on
    /// disk, so nothing more is written.
    pub(crate) fn fail(&self, error: Error) -> Error {
        if self.failed.set(error.chain()).is_ok() {
            tracing::error!(
                dir = %self.dir.display(),
                error = error.chain(),
                "the store failed; nothing can be changed until davitd is started again",
            );
        }
        error
    }

    /// Refuses to go on after a failure.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failed.get() {
            Some(why) => Err(Error::new(
                Kind::Unavailable,
                format!("the store failed ({why}); start davitd again"),
            )),
            None => Ok(()),
        }
    }

    fn close(&self) -> Result<()> {
        let mut writer = lock(&self.writer);
        if self.backend().is_err() {
            return Ok(());
        }
        let synced = self.sync_now();
        self.end();
        synced?;
        self.check()?;
        let commits = writer.seal.commits;
        writer.state.mark_clean(commits)?;
        *lock(&self.dir_lock) = None;
        Ok(())
    }
}

/// Clears the mark of [`Shared::enter`].
struct Inside<'a>(&'a Mutex<Option<ThreadId>>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *lock(self.0) = None;
    }
}

/// Locks; what a panic left behind is whole, since nothing is changed before
/// all that can fail is done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

pub(crate) fn closed() -> Error {
    Error::new(Kind::Unavailable, "the store is closed")
}
