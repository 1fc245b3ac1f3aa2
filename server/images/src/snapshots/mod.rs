//! Snapshots: stacks of file system trees, one on top of the other.
//!
//! Active and view snapshots are mounted by containers; committed ones are
//! parents. Keys live in a namespace; the directories lie in
//! `<root>/snapshots/<snapshotter>/<n>/{fs,work}`.

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc};

use davit_store::Result;
use jiff::Timestamp;

pub use davit_sys::mount::Mount;

use crate::{
    content::Labels,
    lease::{Operation, pending},
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

/// What is known about a snapshot.
#[derive(Debug, Clone)]
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
#[allow(dead_code)]
#[derive(Debug, Clone)]
pub struct Snapshots(Arc<()>);

#[allow(unused_variables)]
impl Snapshots {
    /// "overlayfs" or "native".
    pub fn name(&self) -> &'static str {
        "overlayfs"
    }

    /// Makes a writable snapshot on `parent` (empty: on nothing).
    /// `AlreadyExists` for a key in use, `NotFound` for an unknown parent,
    /// `FailedPrecondition` for one that is not committed.
    pub async fn prepare(
        &self,
        op: &Operation,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        Err(pending())
    }

    /// Makes a read-only view of `parent`; errors as [`Self::prepare`].
    pub async fn view(
        &self,
        op: &Operation,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        Err(pending())
    }

    /// The mounts that show an active or view snapshot, to be stacked in
    /// order on one target (`davit_sys::mount` does it). A writable mount of
    /// an active snapshot exists at most once.
    pub fn mounts(&self, namespace: &str, key: &str) -> Result<Vec<Mount>> {
        Err(pending())
    }

    /// Turns the active snapshot `key` into the committed one `name`.
    /// `AlreadyExists` when there is one of that name; the active one stays.
    pub async fn commit(&self, op: &Operation, name: &str, key: &str, how: Commit) -> Result<()> {
        Err(pending())
    }

    /// Removes a snapshot; its directory goes in the background.
    /// `FailedPrecondition` while it is a parent.
    pub async fn remove(&self, namespace: &str, key: &str) -> Result<()> {
        Err(pending())
    }

    /// What is known about it. `NotFound` when there is none.
    pub fn stat(&self, namespace: &str, key: &str) -> Result<SnapshotInfo> {
        Err(pending())
    }

    /// Sets labels (empty value: removes).
    pub fn label(&self, namespace: &str, key: &str, changes: &Labels) -> Result<SnapshotInfo> {
        Err(pending())
    }

    /// What it takes on disk, without its parents.
    pub async fn usage(&self, namespace: &str, key: &str) -> Result<Usage> {
        Err(pending())
    }

    /// All snapshots of a namespace, in order of their keys.
    pub fn walk(&self, namespace: &str) -> Result<Vec<SnapshotInfo>> {
        Err(pending())
    }

    /// The directories under a snapshot, topmost first (its own among them
    /// when it is committed or active).
    pub fn layer_paths(&self, namespace: &str, key: &str) -> Result<Vec<PathBuf>> {
        Err(pending())
    }

    /// The merged tree of any snapshot, read-only, through a mount that is
    /// attached nowhere and goes with the descriptor. For `cp`, `export` and
    /// `diff` of containers that do not run (and, reading only, of those that
    /// do). Open files in it with `openat2` and `RESOLVE_IN_ROOT`.
    pub async fn open_tree(&self, namespace: &str, key: &str) -> Result<OwnedFd> {
        Err(pending())
    }

    /// The same, writable: only while the snapshot is mounted nowhere else.
    pub async fn open_tree_writable(&self, namespace: &str, key: &str) -> Result<OwnedFd> {
        Err(pending())
    }
}
