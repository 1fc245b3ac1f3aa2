//! Images: names for manifests and indexes.

use crate::{descriptor::Descriptor, record::sparse, table::Table};
use jiff::Timestamp;
use std::collections::BTreeMap;

sparse! {
    /// One image name (containerd's `images.Image`).
    pub struct ImageRecord {
        /// Full name, "docker.io/library/busybox:latest".
        pub name: String,
        /// The manifest or index that it stands for.
        pub target: Descriptor,
        /// Its labels.
        pub labels: BTreeMap<String, String>,
        /// When the name was made.
        pub created_at: Timestamp,
        /// When target or labels changed last.
        pub updated_at: Timestamp,
    }
}

/// Images, by (namespace, name).
#[derive(Debug)]
pub enum Images {}

impl Table for Images {
    const NAME: &'static str = "images";
    type Key = (String, String);
    type Record = ImageRecord;
}
