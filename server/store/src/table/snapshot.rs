//! Snapshots: layers of root file systems, and the writable layers of
//! containers.

use crate::{record::sparse, table::Table};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

sparse! {
    /// One snapshot (containerd's `snapshots.Info`).
    pub struct SnapshotRecord {
        /// Its key; a committed one's is its name, a chain id in most cases.
        pub key: String,
        /// Key of its parent in the same namespace and snapshotter; empty for none.
        pub parent: String,
        /// What it can be used for.
        pub kind: SnapshotKind,
        /// Its labels.
        pub labels: BTreeMap<String, String>,
        /// Number of its directory, `<root>/snapshots/<snapshotter>/<dir>`.
        /// Namespaces may share a directory, so it is not part of the key.
        pub dir: u64,
        /// When it was made.
        pub created_at: Timestamp,
        /// When labels or kind changed last.
        pub updated_at: Timestamp,
        /// The boot (its id) in which its files were written, until they are
        /// synced to disk; then empty. On another boot an unsynced snapshot
        /// may lack files and has to be made again.
        pub unsynced_boot: String,
        /// Bytes on disk without parents, when it was last measured.
        pub size: Option<u64>,
        /// Inodes without parents, when they were last counted.
        pub inodes: Option<u64>,
    }
}

/// What a snapshot can be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotKind {
    /// Writable, and not a parent.
    #[default]
    Active,
    /// Read-only, and not a parent.
    View,
    /// Finished: a parent of others.
    Committed,
}

/// Snapshots, by (namespace, snapshotter, key).
#[derive(Debug)]
pub enum Snapshots {}

impl Table for Snapshots {
    const NAME: &'static str = "snapshots";
    type Key = (String, String, String);
    type Record = SnapshotRecord;
}
