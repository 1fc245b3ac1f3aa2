//! Opening: lock, read, check, and start afresh when what is there is
//! damaged.

use crate::{
    Error, Kind, Result, Store,
    backend::Backend,
    dir_lock::DirLock,
    event_log::Tail,
    migrate::Schema,
    state::{State, StateFile, boot_id, sync_dir},
    store::{Shared, Writer},
    verify,
};
use jiff::Timestamp;
use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Where event numbers go on when it is not known where they were: far above
/// what a daemon that made a million events in each second of its life could
/// have used, and below 2^53, so that JSON readers keep them exact.
const EVENTS_A_SECOND: u64 = 1 << 20;

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

/// Takes the number of commits that became durable.
pub(crate) type AfterSync = Arc<dyn Fn(u64) + Send + Sync>;

/// What only this crate's tests set.
#[derive(Clone, Default)]
pub(crate) struct Seams {
    /// Called after each `fdatasync` with the number of commits that are
    /// durable now, before anybody is told.
    pub(crate) after_sync: Option<AfterSync>,
    pub(crate) schema: Schema,
}

/// An opened store and what was found.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What was there.
    pub condition: Condition,
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
    /// A damaged store. The one that is open now is empty; its contents have
    /// to be made anew from what lies on disk.
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
    let before = StateFile::read(dir);
    let sled_dir = dir.join("sled");
    let existed = sled_dir.exists();
    let (backend, condition) = match open_checked(&sled_dir, &options, seams.schema) {
        Ok(backend) if existed => (backend, Condition::Existing),
        Ok(backend) => (backend, Condition::Fresh),
        Err(e) if e.kind() == Kind::DataLoss && existed => rebuild(dir, &options, seams.schema, &e)?,
        Err(e) => return Err(e.context(format!("the store {dir:?} can't be opened"))),
    };
    sync_files(dir, &sled_dir)?;
    let boot_id = boot_id();
    let tail = first_tail(&backend, &condition, before.as_ref(), &boot_id)?;
    let state = State {
        boot_id: boot_id.clone(),
        clean: false,
        event_ceiling: before.as_ref().map_or(0, |b| b.event_ceiling).max(tail.last),
    };
    let state = StateFile::create(dir, state)?;
    let last_event = tail.last;
    let writer = Writer { state, tail };
    let shared = Shared::new(
        dir.to_owned(),
        options,
        seams.after_sync,
        backend,
        writer,
        dir_lock,
    );
    shared.sync.begin(last_event);
    Ok(Opened {
        store: Store::start(shared)?,
        condition,
        previous: before.map(|b| Previous {
            boot_id: b.boot_id,
            clean: b.clean,
        }),
        boot_id,
    })
}

/// Opens sled, migrates, and reads everything once.
fn open_checked(sled_dir: &Path, options: &Options, schema: Schema) -> Result<Backend> {
    let backend = Backend::open(sled_dir, options.cache_bytes)?;
    schema.apply(&backend)?;
    let found = verify::verify(&backend)?;
    match found.problems.first() {
        None => Ok(backend),
        Some(first) => {
            let count = found.problem_count;
            Err(Error::new(
                Kind::DataLoss,
                format!("{count} entries are damaged, the first one: {first}"),
            ))
        }
    }
}

/// Moves the damaged store away and makes a new one.
fn rebuild(
    dir: &Path,
    options: &Options,
    schema: Schema,
    error: &Error,
) -> Result<(Backend, Condition)> {
    let reason = error.chain();
    let moved_to = free_name(dir);
    let sled_dir = dir.join("sled");
    fs::rename(&sled_dir, &moved_to)
        .map_err(|e| Error::io(format!("moving the damaged store {sled_dir:?} to {moved_to:?}"), e))?;
    sync_dir(moved_to.parent().unwrap_or(dir))?;
    tracing::error!(
        store = %dir.display(),
        moved_to = %moved_to.display(),
        reason,
        "THE STORE IS DAMAGED and was moved aside; everything is rebuilt from what is on disk. Keep the moved directory for a bug report, or delete it",
    );
    let backend = open_checked(&sled_dir, options, schema)
        .map_err(|e| e.context(format!("making a new store in {dir:?}")))?;
    Ok((backend, Condition::Rebuilt { moved_to, reason }))
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

/// What sled makes and does not sync: its settings and the names of its files.
fn sync_files(dir: &Path, sled_dir: &Path) -> Result<()> {
    for name in ["conf", "db"] {
        let path = sled_dir.join(name);
        fs::File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(|e| Error::io(format!("syncing {path:?}"), e))?;
    }
    sync_dir(&sled_dir.join("blobs"))?;
    sync_dir(sled_dir)?;
    sync_dir(dir)?;
    sync_dir(dir.parent().unwrap_or(dir))
}

/// Where the event log goes on.
fn first_tail(
    backend: &Backend,
    condition: &Condition,
    before: Option<&State>,
    boot_id: &str,
) -> Result<Tail> {
    let mut tail = verify::tail(backend)?;
    let lost = match (condition, before) {
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
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
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
