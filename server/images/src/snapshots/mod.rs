//! Snapshots: stacks of file system trees, one on top of the other.
//!
//! Active and view snapshots are mounted by containers; committed ones are
//! parents. Keys live in a namespace; the directories lie in
//! `<root>/snapshots/<snapshotter>/<n>/{fs,work}`.

mod backend;
#[cfg(test)]
mod conformance;
pub(crate) mod copy;
mod lifecycle;
mod recovery;
mod sidecar;
mod sync;
mod usage;

use std::{
    collections::HashSet,
    fmt,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use davit_store::{
    Error, Kind, Result, Store,
    table::{self, SnapshotRecord},
};
use jiff::Timestamp;
use tokio::sync::Notify;

pub(crate) use backend::{Backend, Overlay, SnapshotDir};
pub use copy::{contents as copy_contents, take_after};
pub use davit_sys::mount::{Mount, Placed};
pub use usage::measure;

use crate::{
    content::{Labels, blocking, labels, make_dir},
    lease::{Operation, Resource},
};

/// What a snapshot can be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Writable; no parent of anything.
    Active,
    /// Read-only view of its parent.
    View,
    /// Finished; may be a parent.
    Committed,
}

impl From<table::SnapshotKind> for SnapshotKind {
    fn from(kind: table::SnapshotKind) -> Self {
        match kind {
            table::SnapshotKind::Active => Self::Active,
            table::SnapshotKind::View => Self::View,
            table::SnapshotKind::Committed => Self::Committed,
        }
    }
}

/// What is known about a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotInfo {
    /// Its key (for committed ones: its name, a chain id in most cases).
    pub key: String,
    /// Key of its parent, or empty.
    pub parent: String,
    /// What it can be used for.
    pub kind: SnapshotKind,
    /// Its labels.
    pub labels: Labels,
    /// When it was made.
    pub created_at: Timestamp,
    /// When labels or kind changed last.
    pub updated_at: Timestamp,
}

impl From<SnapshotRecord> for SnapshotInfo {
    fn from(record: SnapshotRecord) -> Self {
        Self {
            kind: record.kind.into(),
            key: record.key,
            parent: record.parent,
            labels: record.labels,
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}

/// What a snapshot takes on disk, without its parents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in allocated blocks, each hard-linked file once.
    pub size: u64,
    /// Files, directories and other inodes.
    pub inodes: u64,
}

/// How to commit a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Labels of the committed snapshot.
    pub labels: Labels,
    /// Parent to put it on: only for one that was prepared without parent and
    /// filled by a layer (containerd's "rebase").
    pub parent: Option<String>,
}

/// The snapshots of one snapshotter. Cheap to clone.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

struct Inner {
    backend: Box<dyn Backend>,
    /// `<root>/snapshots/<snapshotter>`.
    dir: PathBuf,
    store: Store,
    /// Number of the next directory.
    next: AtomicU64,
    /// Directories that are being made, which no record knows yet.
    fresh: Mutex<HashSet<u64>>,
    /// This boot's id: what was written in another one may not be on disk.
    boot: String,
    /// Rung when there is something to sync to disk.
    unsynced: Notify,
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshots")
            .field(&self.0.backend)
            .field(&self.0.dir)
            .finish()
    }
}

impl Snapshots {
    /// Opens the snapshotter `name` ("overlayfs" or "native") below `root`,
    /// and makes records and directories agree. Blocks.
    pub(crate) fn at(root: &Path, name: &str, store: Store) -> Result<Self> {
        let backend = backend::backend(name)?;
        let dir = root.join("snapshots").join(name);
        make_dir(&dir)?;
        let snapshots = Self(Arc::new(Inner {
            backend,
            dir,
            store,
            next: AtomicU64::new(1),
            fresh: Mutex::default(),
            boot: boot_id()?,
            unsynced: Notify::new(),
        }));
        snapshots.recover()?;
        Ok(snapshots)
    }

    /// "overlayfs" or "native".
    pub fn name(&self) -> &'static str {
        self.0.backend.name()
    }

    /// The mounts that show an active or view snapshot, to be stacked in
    /// order on one target (`davit_sys::mount` does it). A writable mount of
    /// an active snapshot exists at most once.
    pub fn mounts(&self, namespace: &str, key: &str) -> Result<Vec<Mount>> {
        let record = self.record(namespace, key)?;
        if record.kind == table::SnapshotKind::Committed {
            return Err(Error::precondition(format!(
                "snapshot {key:?} is committed: make a view of it, or an active one on it"
            )));
        }
        let parents = self.parents(namespace, &record)?;
        self.0
            .backend
            .mounts(&self.dir(record.dir), record.kind.into(), &parents)
    }

    /// What is known about it. `NotFound` when there is none.
    pub fn stat(&self, namespace: &str, key: &str) -> Result<SnapshotInfo> {
        self.record(namespace, key).map(SnapshotInfo::from)
    }

    /// Whether there is a snapshot of that key.
    pub fn contains(&self, namespace: &str, key: &str) -> Result<bool> {
        self.0
            .store
            .contains::<table::Snapshots>((namespace, self.name(), key))
    }

    /// Sets labels (empty value: removes).
    pub fn label(&self, namespace: &str, key: &str, changes: &Labels) -> Result<SnapshotInfo> {
        labels::check(changes)?;
        let place = (namespace, self.name(), key);
        let record = self.0.store.transaction(|tx| {
            let Some(mut record) = tx.get::<table::Snapshots>(place)? else {
                return Err(self.missing(namespace, key));
            };
            labels::merge(&mut record.labels, changes);
            record.updated_at = Timestamp::now();
            tx.put::<table::Snapshots>(place, &record)?;
            Ok(record)
        })?;
        Ok(record.into())
    }

    /// What it takes on disk, without its parents. Measured once for committed
    /// snapshots, anew for the others.
    pub async fn usage(&self, namespace: &str, key: &str) -> Result<Usage> {
        let record = self.record(namespace, key)?;
        if let (Some(size), Some(inodes)) = (record.size, record.inodes) {
            return Ok(Usage { size, inodes });
        }
        if record.kind == table::SnapshotKind::View {
            return Ok(Usage::default());
        }
        let (path, what) = (self.dir(record.dir).fs(), key.to_owned());
        let usage = blocking(move || {
            measure(&path).map_err(|error| Error::io(format!("measuring snapshot {what:?}"), error))
        })
        .await?;
        if record.kind == table::SnapshotKind::Committed {
            let place = (namespace, self.name(), key);
            self.0
                .store
                .transaction(|tx| match tx.get::<table::Snapshots>(place)? {
                    Some(mut now) if now.dir == record.dir => {
                        (now.size, now.inodes) = (Some(usage.size), Some(usage.inodes));
                        tx.put::<table::Snapshots>(place, &now)
                    }
                    _ => Ok(()),
                })?;
        }
        Ok(usage)
    }

    /// All snapshots of a namespace, in order of their keys.
    pub fn walk(&self, namespace: &str) -> Result<Vec<SnapshotInfo>> {
        let found = self
            .0
            .store
            .scan::<table::Snapshots>((namespace, self.name()))?;
        Ok(found.into_iter().map(|(_, record)| record.into()).collect())
    }

    /// The directories under a snapshot, topmost first (its own among them
    /// when it is committed or active).
    pub fn layer_paths(&self, namespace: &str, key: &str) -> Result<Vec<PathBuf>> {
        let record = self.record(namespace, key)?;
        let parents = self.parents(namespace, &record)?;
        let mut layers = self.0.backend.layers(&self.dir(record.dir), &parents);
        if record.kind == table::SnapshotKind::View {
            layers.remove(0);
        }
        Ok(layers)
    }

    /// The merged tree of any snapshot, read-only, through a mount that is
    /// attached nowhere and goes with the descriptor. For `cp`, `export` and
    /// `diff` of containers that do not run (and, reading only, of those that
    /// do). Open files in it with `openat2` and `RESOLVE_IN_ROOT`.
    pub async fn open_tree(&self, namespace: &str, key: &str) -> Result<OwnedFd> {
        mounted(key, self.tree_mounts(namespace, key)?).await
    }

    /// As [`Snapshots::open_tree`] (or the writable one), with directories of
    /// the host placed in it. A writable tree gets the places that are missing.
    pub async fn open_tree_with(
        &self,
        namespace: &str,
        key: &str,
        writable: bool,
        placed: Vec<Placed>,
    ) -> Result<OwnedFd> {
        let mounts = if writable {
            self.writable_mounts(namespace, key)?
        } else {
            self.tree_mounts(namespace, key)?
        };
        let key = key.to_owned();
        blocking(move || {
            davit_sys::mount::detached_with(&mounts, &placed, writable).map_err(|error| {
                Error::io(
                    format!("mounting snapshot {key:?}: {error}"),
                    error.into_io(),
                )
            })
        })
        .await
    }

    fn tree_mounts(&self, namespace: &str, key: &str) -> Result<Vec<Mount>> {
        let record = self.record(namespace, key)?;
        let parents = self.parents(namespace, &record)?;
        let dir = self.dir(record.dir);
        let kind = SnapshotKind::from(record.kind);
        let mounts = match (self.name(), kind) {
            ("overlayfs", SnapshotKind::Active | SnapshotKind::Committed)
                if !parents.is_empty() =>
            {
                // Its own files as the topmost read-only layer, so that a
                // writable mount elsewhere is not disturbed.
                Overlay::new().read_only(&self.0.backend.layers(&dir, &parents))?
            }
            ("overlayfs", SnapshotKind::Active | SnapshotKind::Committed) => self
                .0
                .backend
                .mounts(&dir, SnapshotKind::View, std::slice::from_ref(&dir))?,
            _ => self.0.backend.mounts(&dir, kind, &parents)?,
        };
        let read_only = mounts.into_iter().map(|mut mount| {
            mount.options.retain(|option| option != "rw");
            if !mount.options.iter().any(|option| option == "ro") {
                mount.options.push("ro".into());
            }
            mount
        });
        Ok(read_only.collect())
    }

    /// The same, writable: only while the snapshot is mounted nowhere else.
    pub async fn open_tree_writable(&self, namespace: &str, key: &str) -> Result<OwnedFd> {
        mounted(key, self.writable_mounts(namespace, key)?).await
    }

    fn writable_mounts(&self, namespace: &str, key: &str) -> Result<Vec<Mount>> {
        let mounts = self.mounts(namespace, key)?;
        if self.stat(namespace, key)?.kind != SnapshotKind::Active {
            return Err(Error::precondition(format!(
                "snapshot {key:?} is not writable"
            )));
        }
        Ok(mounts)
    }

    /// A writable tree for unpacking a layer into a snapshot that nobody has
    /// seen yet: when it fails, all of it goes, so nothing is synced.
    pub(crate) async fn open_tree_for_unpacking(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<OwnedFd> {
        let mut mounts = self.mounts(namespace, key)?;
        for mount in mounts.iter_mut().filter(|mount| mount.kind == "overlay") {
            // Else unmounting waits for a sync of the whole file system.
            mount.options.push("volatile".into());
        }
        mounted(key, mounts).await
    }

    /// Where a snapshot's own files are.
    pub(crate) fn own_dir(&self, namespace: &str, key: &str) -> Result<PathBuf> {
        Ok(self.dir(self.record(namespace, key)?.dir).fs())
    }

    /// Whether layers can be unpacked before their parents are there.
    pub(crate) fn unpacks_apart(&self) -> bool {
        self.0.backend.unpacks_apart()
    }

    /// The directories of the snapshots below `record`, nearest first.
    fn parents(&self, namespace: &str, record: &SnapshotRecord) -> Result<Vec<SnapshotDir>> {
        let mut dirs = Vec::new();
        let mut seen = HashSet::new();
        let mut parent = record.parent.clone();
        while !parent.is_empty() {
            let found = self
                .0
                .store
                .get::<table::Snapshots>((namespace, self.name(), &parent))?;
            let Some(found) = found.filter(|_| seen.insert(parent.clone())) else {
                return Err(Error::new(
                    Kind::DataLoss,
                    format!(
                        "snapshot {parent:?} below {:?} is missing: its image has to be unpacked again",
                        record.key
                    ),
                ));
            };
            dirs.push(self.dir(found.dir));
            parent = found.parent;
        }
        Ok(dirs)
    }

    fn record(&self, namespace: &str, key: &str) -> Result<SnapshotRecord> {
        let found = self
            .0
            .store
            .get::<table::Snapshots>((namespace, self.name(), key))?;
        found.ok_or_else(|| self.missing(namespace, key))
    }

    fn dir(&self, number: u64) -> SnapshotDir {
        SnapshotDir(self.0.dir.join(number.to_string()))
    }

    fn missing(&self, namespace: &str, key: &str) -> Error {
        Error::not_found(format!(
            "snapshot {key:?} does not exist in namespace {namespace:?} ({})",
            self.name()
        ))
    }

    fn resource(&self, key: &str) -> Resource {
        Resource::Snapshot {
            snapshotter: self.name().to_owned(),
            key: key.to_owned(),
        }
    }

    /// A number that no directory has, marked as being filled until the guard
    /// is dropped.
    fn fresh_dir(&self) -> Fresh {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0
            .fresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number);
        Fresh {
            snapshots: self.clone(),
            number,
            keep: false,
        }
    }
}

/// A directory without record; it is removed unless it gets one.
struct Fresh {
    snapshots: Snapshots,
    number: u64,
    keep: bool,
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let inner = &self.snapshots.0;
        inner
            .fresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
        if !self.keep {
            self.snapshots.remove_later(self.number);
        }
    }
}

async fn mounted(key: &str, mounts: Vec<Mount>) -> Result<OwnedFd> {
    let key = key.to_owned();
    blocking(move || {
        davit_sys::mount::detached(&mounts).map_err(|error| {
            Error::io(
                format!("mounting snapshot {key:?}: {error}"),
                error.into_io(),
            )
        })
    })
    .await
}

/// The kernel's id of this boot.
fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::io(format!("reading {path}"), error))?;
    Ok(text.trim().to_owned())
}

/// Opens an operation's hold on what a new snapshot needs.
fn hold(op: &Operation, snapshots: &Snapshots, keys: &[&str]) {
    for key in keys.iter().filter(|key| !key.is_empty()) {
        op.hold(snapshots.resource(key));
    }
}
