//! Leases: what keeps content and snapshots alive while nothing refers to
//! them yet.
//!
//! Whoever creates or is about to refer to something opens an [`Operation`]
//! first, holds the thing, then reads it, then writes the record that refers
//! to it. Garbage collection never takes what any operation holds, nor what a
//! recorded, unexpired lease lists.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use davit_store::{Error, Result};
use jiff::Timestamp;

use crate::Digest;

/// Something that a lease can keep alive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// A blob, and by its labels all that it refers to.
    Blob(Digest),
    /// A snapshot and its parents.
    Snapshot {
        /// Name of the snapshotter.
        snapshotter: String,
        /// Key in that snapshotter.
        key: String,
    },
    /// A partial download, by its reference.
    Ingest(String),
    /// An image name and what it points to.
    Image(String),
}

/// A recorded lease.
#[derive(Debug, Clone)]
pub struct LeaseInfo {
    /// Its id in the namespace.
    pub id: String,
    /// Its labels; `containerd.io/gc.expire` and `containerd.io/gc.flat` have a meaning.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops holding anything; never without it.
    pub expires_at: Option<Timestamp>,
    /// What it lists.
    pub resources: Vec<Resource>,
}

/// All leases and operations. Cheap to clone.
#[allow(dead_code)]
#[derive(Debug, Clone)]
pub struct Leases(Arc<()>);

impl Leases {
    /// Opens an operation that lives in memory only: for work that ends with
    /// its process, such as creating a container.
    pub fn operation(&self, namespace: &str) -> Operation {
        Operation {
            namespace: namespace.to_owned(),
            lease: None,
        }
    }

    /// Opens an operation that is recorded too, so that what it brought in
    /// outlives a crash or a broken connection for `ttl` and need not be
    /// brought in again: for pulls and imports.
    pub fn recorded_operation(
        &self,
        namespace: &str,
        what: &str,
        ttl: Duration,
    ) -> Result<Operation> {
        let _ = (namespace, what, ttl);
        Err(pending())
    }

    /// Opens an operation whose resources are also recorded in the lease `id`
    /// of a client. `NotFound` when there is none.
    pub fn operation_in(&self, namespace: &str, id: &str) -> Result<Operation> {
        let _ = (namespace, id);
        Err(pending())
    }
}

/// Work under way; see the module. Everything that it touches stays until it
/// is dropped. Cheap to clone: all clones are one operation.
#[derive(Debug, Clone)]
pub struct Operation {
    namespace: String,
    lease: Option<String>,
}

impl Operation {
    /// The namespace that it works in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Keeps `resource` alive from now on. Hold first, then look whether it
    /// exists, then refer to it.
    pub fn hold(&self, resource: Resource) {
        let _ = resource;
    }

    /// The id of the recorded lease, if there is one.
    pub fn lease(&self) -> Option<&str> {
        self.lease.as_deref()
    }

    /// The work is done and what should stay is referred to by records: the
    /// recorded lease goes at once. Without this call (failure, crash) it
    /// stays until it expires, so that a second try finds what is there.
    pub fn done(self) -> Result<()> {
        Ok(())
    }

    /// The work failed for good (hostile or broken content): the recorded
    /// lease goes, and garbage collection is asked to run.
    pub fn discard(self) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn pending() -> Error {
    Error::new(davit_store::Kind::Unimplemented, "not written yet")
}
