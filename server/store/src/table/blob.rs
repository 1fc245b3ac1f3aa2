//! Blobs: which namespace knows which content, and its labels there. The
//! bytes are shared by all namespaces and lie in the content directory.

use crate::{record::sparse, table::Table};
use jiff::Timestamp;
use std::collections::BTreeMap;

sparse! {
    /// One blob in one namespace (containerd's `content.Info`).
    pub struct BlobRecord {
        /// "sha256:<64 hex>".
        pub digest: String,
        /// Size in bytes.
        pub size: u64,
        /// Labels, those that tell garbage collection what it refers to among them.
        pub labels: BTreeMap<String, String>,
        /// When this namespace got it.
        pub created_at: Timestamp,
        /// When its labels changed last.
        pub updated_at: Timestamp,
    }
}

/// Blobs, by (namespace, digest).
#[derive(Debug)]
pub enum Blobs {}

impl Table for Blobs {
    const NAME: &'static str = "blobs";
    type Key = (String, String);
    type Record = BlobRecord;
}
