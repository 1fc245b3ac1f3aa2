//! The tables: one file a table, each with its key, its record and nothing
//! else.
//!
//! A new table needs a file here, an entry in [`ALL`], and no migration.

pub mod blob;
pub mod container;
pub mod image;
pub mod ingest;
pub mod intent;
pub mod lease;
pub mod meta;
pub mod namespace;
pub mod network;
pub mod sandbox;
pub mod snapshot;
pub mod volume;

pub use blob::{BlobRecord, Blobs};
pub use container::ContainerRecord;
pub use image::{ImageRecord, Images};
pub use ingest::{IngestRecord, Ingests};
pub use intent::{IntentRecord, Intents};
pub use lease::{LeaseRecord, LeaseResource, Leases};
pub use meta::{Meta, MetaRecord};
pub use namespace::{NamespaceRecord, Namespaces};
pub use network::{NetworkRecord, Networks, SubnetRecord};
pub use sandbox::{SandboxRecord, Sandboxes};
pub use snapshot::{SnapshotKind, SnapshotRecord, Snapshots};
pub use volume::{VolumeRecord, Volumes};

use crate::{Result, key::Key, record};
use serde::{Serialize, de::DeserializeOwned};

/// A table: records of one type under keys of one type. Tables share one
/// tree; the name keeps them apart.
pub trait Table: 'static {
    /// Name on disk: lower-case ASCII letters, never changed.
    const NAME: &'static str;
    /// Key, as its parts.
    type Key: Key;
    /// Record. It is stored with its field names, so that fields can be added
    /// (with `#[serde(default)]`) and taken away.
    type Record: Serialize + DeserializeOwned + Clone + Send + 'static;
}

/// Containers, by (namespace, id).
#[derive(Debug)]
pub enum Containers {}

impl Table for Containers {
    const NAME: &'static str = "containers";
    type Key = (String, String);
    type Record = ContainerRecord;
}

/// Reads one entry of a table without knowing its types.
pub(crate) type Check = fn(key: &[u8], value: &[u8]) -> Result<()>;

fn check<T: Table>(key: &[u8], value: &[u8]) -> Result<()> {
    T::Key::decode(key)?;
    record::decode::<T::Record>(value)?;
    Ok(())
}

/// Every table, for what looks at all of them.
pub(crate) const ALL: &[(&str, Check)] = &[
    (Blobs::NAME, check::<Blobs>),
    (Containers::NAME, check::<Containers>),
    (Images::NAME, check::<Images>),
    (Ingests::NAME, check::<Ingests>),
    (Intents::NAME, check::<Intents>),
    (Leases::NAME, check::<Leases>),
    (Meta::NAME, check::<Meta>),
    (Namespaces::NAME, check::<Namespaces>),
    (Networks::NAME, check::<Networks>),
    (Sandboxes::NAME, check::<Sandboxes>),
    (Snapshots::NAME, check::<Snapshots>),
    (Volumes::NAME, check::<Volumes>),
];
