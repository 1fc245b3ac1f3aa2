//! Leases: what garbage collection must leave alone for a while.

use crate::{record::sparse, table::Table};
use jiff::Timestamp;
use std::collections::BTreeMap;

sparse! {
    /// One lease (containerd's `leases.Lease` with its resources).
    pub struct LeaseRecord {
        /// Its id.
        pub id: String,
        /// Its labels; `containerd.io/gc.expire` and `containerd.io/gc.flat`
        /// have a meaning.
        pub labels: BTreeMap<String, String>,
        /// When it was made.
        pub created_at: Timestamp,
        /// When it stops holding anything; never without it.
        pub expires_at: Option<Timestamp>,
        /// What it holds.
        pub resources: Vec<LeaseResource>,
    }

    /// One thing that a lease holds (containerd's `leases.Resource`).
    pub struct LeaseResource {
        /// "content", "ingests", "snapshots/<snapshotter>", "images".
        pub kind: String,
        /// Digest, reference, key or name.
        pub id: String,
    }
}

/// Leases, by (namespace, id).
#[derive(Debug)]
pub enum Leases {}

impl Table for Leases {
    const NAME: &'static str = "leases";
    type Key = (String, String);
    type Record = LeaseRecord;
}
