//! Opening: lock, read, check, and start afresh when what is there is
//! damaged.

use crate::{
    Error, Kind, Result, Store,
    backend::Backend,
    dir_lock::DirLock,
    event_log::Tail,
    headroom::Spare,
    migrate::Schema,
    salvage,
    seal::Seal,
    state::{Making, Moved, State, StateFile, boot_id, sync_dir},
    store::{Shared, Writer},
    verify::{self, Verified},
};
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// Where event numbers go on when it is not known where they were: far above
/// what a daemon that made a million events in each second of its life could
/// have used, and below 2^53, so that JSON readers keep them exact.
const EVENTS_A_SECOND: u64 = 1 << 20;

/// How long reading a store may take before it counts as stuck.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);

/// Values by key.
type Records = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// How a store behaves. `Options::default()` is what davitd uses.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of sled's page cache.
    pub cache_bytes: u64,
    /// How long events are kept.
    pub event_max_age: Duration,
    /// How many events are kept (a few more until they are trimmed).
    pub event_max_count: u64,
    /// Bytes of events that are kept, as encoded.
    pub event_max_bytes: u64,
    /// After how long a commit that nobody waits for survives a kill.
    pub write_interval: Duration,
    /// After how long a commit that nobody waits for survives a power cut.
    pub sync_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 8 << 20,
            event_max_age: Duration::from_secs(7 * 24 * 3600),
            event_max_count: 20_000,
            event_max_bytes: 8 << 20,
            write_interval: Duration::from_millis(100),
            sync_interval: Duration::from_secs(2),
        }
    }
}

/// Watches syncs: told before and after each `fdatasync` how many commits it
/// makes durable.
pub(crate) type SyncWatch = Arc<dyn Fn(SyncMoment, u64) + Send + Sync>;

/// When a [`SyncWatch`] is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncMoment {
    /// Everything is with the kernel, and `fdatasync` comes next.
    Before,
    /// It came back, and nobody was told yet.
    After,
}

/// What only this crate's tests set.
#[derive(Clone, Default)]
pub(crate) struct Seams {
    pub(crate) sync_watch: Option<SyncWatch>,
    pub(crate) schema: Schema,
}

/// An opened store and what was found.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What was there.
    pub condition: Condition,
    /// Records that were saved from a damaged store and are in the new one.
    pub salvaged: u64,
    /// How it was left; `None` for a store that was just made.
    pub previous: Option<Previous>,
    /// The kernel's id of this boot.
    pub boot_id: String,
}

impl Opened {
    /// Whether the machine was started since the store was last open (also
    /// when nothing is known of the last time).
    pub fn rebooted(&self) -> bool {
        let previous = self.previous.as_ref();
        previous.is_none_or(|p| p.boot_id != self.boot_id || self.boot_id.is_empty())
    }
}

/// What was found in the store's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing: the store is new.
    Fresh,
    /// A store in order.
    Existing,
    /// A damaged store. The one that is open now is new. It has the records
    /// that could be read ([`Opened::salvaged`]): some may be old, and some
    /// missing, so everything has to be compared with what lies on disk.
    Rebuilt {
        /// Where the damaged one was moved.
        moved_to: PathBuf,
        /// What was wrong.
        reason: String,
    },
}

/// How the store was last left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The kernel's id of that boot.
    pub boot_id: String,
    /// Whether [`Store::close`] was reached.
    pub clean: bool,
}

pub(crate) fn open(dir: &Path, options: Options, seams: Seams) -> Result<Opened> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(dir)
        .map_err(|e| Error::io(format!("making the directory {dir:?}"), e))?;
    let dir_lock = DirLock::take(dir)?;
    let spare = Spare::let_go(dir);
    let before = StateFile::read(dir);
    let place = Place {
        dir,
        sled: dir.join("sled"),
        cache_bytes: options.cache_bytes,
        schema: seams.schema,
        before: before.as_ref(),
    };
    let found = place
        .open()
        .map_err(|e| e.context(format!("the store {dir:?} can't be opened")))?;
    let boot_id = boot_id();
    let tail = first_tail(&found, before.as_ref(), &boot_id)?;
    let state = State {
        boot_id: boot_id.clone(),
        clean: false,
        event_ceiling: before
            .as_ref()
            .map_or(0, |b| b.event_ceiling)
            .max(tail.last),
        commits: found.seal.commits,
    };
    let state = StateFile::create(dir, state)?;
    spare.take_again();
    let last_event = tail.last;
    let writer = Writer {
        state,
        tail,
        seal: found.seal,
    };
    let shared = Shared::new(
        dir.to_owned(),
        options,
        seams.sync_watch,
        found.backend,
        writer,
        dir_lock,
    );
    shared.sync.begin(last_event);
    Ok(Opened {
        store: Store::start(shared)?,
        condition: found.condition,
        salvaged: found.salvaged,
        previous: before.map(|b| Previous {
            boot_id: b.boot_id,
            clean: b.clean,
        }),
        boot_id,
    })
}

/// Verifies the store in `dir` without changing it: what is looked at is a
/// copy. [`Kind::FailedPrecondition`] while a daemon has it open,
/// [`Kind::NotFound`] when there is none.
pub fn check(dir: impl AsRef<Path>) -> Result<Verified> {
    let dir = dir.as_ref();
    if !dir.join("sled").is_dir() || Making::read(dir)?.is_some() {
        return Err(Error::not_found(format!("there is no store in {dir:?}")));
    }
    let _lock = DirLock::take(dir)?;
    let before = StateFile::read(dir);
    let copy = dir.join("check");
    remove_dir(&copy)?;
    let place = Place {
        dir,
        sled: dir.join("sled"),
        cache_bytes: Options::default().cache_bytes,
        schema: Schema::default(),
        before: before.as_ref(),
    };
    let found = copy_dir(&dir.join("sled"), &copy).and_then(|()| place.look_in_time(&copy));
    remove_dir(&copy)?;
    match found {
        Ok(Look::Whole(_, found) | Look::Damaged(found, _)) => Ok(found),
        Err(e) if e.kind() == Kind::DataLoss => Ok(Verified {
            problem_count: 1,
            problems: vec![e.chain()],
            ..Verified::default()
        }),
        Err(e) => Err(e),
    }
}

/// Where a store lies and what is known of it before it is opened.
struct Place<'a> {
    dir: &'a Path,
    /// sled's own directory.
    sled: PathBuf,
    cache_bytes: u64,
    schema: Schema,
    before: Option<&'a State>,
}

/// Reads all of a store.
struct Examination {
    sled: PathBuf,
    cache_bytes: u64,
    schema: Schema,
    /// Commits that it must have.
    commits: u64,
}

/// What reading all of it came to.
enum Look {
    Whole(Backend, Verified),
    /// What is wrong, and what can be saved.
    Damaged(Verified, Records),
}

impl Examination {
    /// Opens sled, migrates, and reads everything once.
    fn look(&self) -> Result<Look> {
        let backend = Backend::open(&self.sled, self.cache_bytes)?;
        let version = self.schema.found(&backend)?;
        let seal = Seal::read(&backend)?.unwrap_or_default();
        let mut found = Verified::default();
        if self.schema.is_newer_than(version) {
            found = verify::verify_seal(&backend)?;
            if found.problems.is_empty() {
                self.schema.apply(&backend, version)?;
            }
        }
        if found.problems.is_empty() {
            found = verify::verify(&backend)?;
        }
        if seal.commits < self.commits {
            found.problem(format!(
                "{} commits were written and {} are there",
                self.commits, seal.commits
            ));
        }
        if found.problems.is_empty() {
            Ok(Look::Whole(backend, found))
        } else {
            Ok(Look::Damaged(found, salvage::records(&backend)))
        }
    }
}

/// What opening came to.
struct Found {
    backend: Backend,
    condition: Condition,
    seal: Seal,
    salvaged: u64,
}

impl Place<'_> {
    fn open(&self) -> Result<Found> {
        if let Some(making) = Making::read(self.dir)? {
            return self.resume(making);
        }
        if !self.sled.exists() {
            return self.make(Records::new(), Condition::Fresh);
        }
        match self.look_in_time(&self.sled) {
            Ok(Look::Whole(backend, _)) => self.found(backend, Condition::Existing, 0),
            Ok(Look::Damaged(found, records)) => {
                let count = found.problem_count;
                let first = found.problems.first().map_or("", String::as_str);
                self.rebuild(records, format!("{count} problems, the first one: {first}"))
            }
            Err(e) if e.kind() == Kind::DataLoss => self.rebuild(Records::new(), e.chain()),
            Err(e) => Err(e),
        }
    }

    /// Goes on with making a store, after a crash in the midst of it.
    fn resume(&self, making: Making) -> Result<Found> {
        let Some(Moved { to, reason }) = making.instead_of else {
            remove_dir(&self.sled)?;
            return self.make(Records::new(), Condition::Fresh);
        };
        if !to.exists() {
            return self.rebuild_as(to, Records::new(), reason);
        }
        remove_dir(&self.sled)?;
        let records = match self.look_in_time(&to) {
            Ok(Look::Damaged(_, records)) => records,
            Ok(Look::Whole(..)) | Err(_) => Records::new(),
        };
        self.make(
            records,
            Condition::Rebuilt {
                moved_to: to,
                reason,
            },
        )
    }

    /// [`Examination::look`] on a thread of its own: on some damaged files
    /// sled waits for threads that have panicked, and would wait for ever.
    fn look_in_time(&self, sled: &Path) -> Result<Look> {
        let examination = Examination {
            sled: sled.to_owned(),
            cache_bytes: self.cache_bytes,
            schema: self.schema,
            commits: self.before.map_or(0, |b| b.commits),
        };
        let (done, looked) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("store-open".to_owned())
            .spawn(move || drop(done.send(examination.look())))
            .map_err(|e| Error::io("starting the thread that opens the store", e))?;
        looked.recv_timeout(OPEN_DEADLINE).unwrap_or_else(|_| {
            let seconds = OPEN_DEADLINE.as_secs();
            Err(Error::new(
                Kind::DataLoss,
                format!("reading the store did not end within {seconds} s"),
            ))
        })
    }

    fn found(&self, backend: Backend, condition: Condition, salvaged: u64) -> Result<Found> {
        backend.flush()?;
        self.sync_files()?;
        let seal = Seal::read(&backend)?.unwrap_or_default();
        Ok(Found {
            backend,
            condition,
            seal,
            salvaged,
        })
    }

    /// Makes a store with `records` in it. Until it is whole the file
    /// `making` says so: a store without a seal is always a damaged one.
    fn make(&self, records: Records, condition: Condition) -> Result<Found> {
        let salvaged = records.len() as u64;
        Making::of(&condition).write(self.dir)?;
        let backend = Backend::open(&self.sled, self.cache_bytes)?;
        fail::fail_point!("store.make.after-open");
        self.schema.begin(&backend)?;
        salvage::put_back(records, &backend)?;
        let found = self.found(backend, condition, salvaged)?;
        Making::remove(self.dir)?;
        Ok(found)
    }

    /// Moves the damaged store away and makes a new one.
    fn rebuild(&self, records: Records, reason: String) -> Result<Found> {
        self.rebuild_as(free_name(self.dir), records, reason)
    }

    fn rebuild_as(&self, moved_to: PathBuf, records: Records, reason: String) -> Result<Found> {
        let (dir, sled) = (self.dir, &self.sled);
        let condition = Condition::Rebuilt {
            moved_to: moved_to.clone(),
            reason: reason.clone(),
        };
        Making::of(&condition).write(dir)?;
        fs::rename(sled, &moved_to).map_err(|e| {
            Error::io(
                format!("moving the damaged store {sled:?} to {moved_to:?}"),
                e,
            )
        })?;
        sync_dir(moved_to.parent().unwrap_or(dir))?;
        fail::fail_point!("store.rebuild.after-move");
        tracing::error!(
            store = %dir.display(),
            moved_to = %moved_to.display(),
            reason,
            salvaged = records.len(),
            "THE STORE IS DAMAGED and was moved aside; everything is rebuilt from what is on disk. Keep the moved directory for a bug report, or delete it",
        );
        self.make(records, condition)
    }

    fn sync_files(&self) -> Result<()> {
        sync_sled_dir(&self.sled)?;
        sync_dir(self.dir)?;
        sync_dir(self.dir.parent().unwrap_or(self.dir))
    }
}

/// `<dir>.corrupt-<time>`, with a number behind it when that is taken.
fn free_name(dir: &Path) -> PathBuf {
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let mut name = dir.as_os_str().to_owned();
    name.push(format!(".corrupt-{time}"));
    let first = PathBuf::from(&name);
    let numbered = (2..).map(|n: u32| {
        let mut name = name.clone();
        name.push(format!("-{n}"));
        PathBuf::from(name)
    });
    std::iter::once(first.clone())
        .chain(numbered)
        .find(|path| !path.exists())
        .unwrap_or(first)
}

/// What sled makes and does not sync: its settings, and the names of its files.
fn sync_sled_dir(sled: &Path) -> Result<()> {
    for name in ["conf", "db"] {
        let path = sled.join(name);
        fs::File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(|e| Error::io(format!("syncing {path:?}"), e))?;
    }
    sync_dir(&sled.join("blobs"))?;
    sync_dir(sled)
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {dir:?}"), e))
        }
        _ => Ok(()),
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("copying {from:?} to {to:?}"), e);
    fs::create_dir(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}

/// Where the event log goes on.
fn first_tail(found: &Found, before: Option<&State>, boot_id: &str) -> Result<Tail> {
    let mut tail = verify::tail(&found.backend)?;
    let lost = match (&found.condition, before) {
        (Condition::Fresh, None) => return Ok(tail),
        // Nothing that anybody saw can be missing: what subscribers see is
        // with the kernel, and the kernel lives.
        (Condition::Existing, Some(b)) => !b.clean && b.boot_id != boot_id,
        (Condition::Existing, None)
        | (Condition::Fresh, Some(_))
        | (Condition::Rebuilt { .. }, _) => true,
    };
    if lost {
        let seconds = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let ceiling = before.map_or(seconds.saturating_mul(EVENTS_A_SECOND), |b| b.event_ceiling);
        tail.gap = ceiling > tail.last && tail.last > 0;
        tail.last = tail.last.max(ceiling);
    }
    Ok(tail)
}

/// Bytes that the files below `dir` take.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64> {
    let failed = |e| Error::io(format!("measuring {dir:?}"), e);
    let mut bytes = 0;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(failed(e)),
        };
        if meta.is_dir() {
            bytes += disk_bytes(&entry.path())?;
        } else {
            bytes += meta.blocks() * 512;
        }
    }
    Ok(bytes)
}
