//! Volumes: data that outlives containers.

use crate::{record::sparse, table::Table};
use jiff::Timestamp;
use std::collections::BTreeMap;

sparse! {
    /// One volume.
    pub struct VolumeRecord {
        /// Its name, unique in its namespace.
        pub name: String,
        /// "local", or the name of a volume plugin.
        pub driver: String,
        /// Its labels.
        pub labels: BTreeMap<String, String>,
        /// Options for the driver.
        pub options: BTreeMap<String, String>,
        /// When it was made.
        pub created_at: Timestamp,
        /// Where a plugin said that it is; empty for "local".
        pub mountpoint: String,
        /// "global" when a plugin shares it between hosts; else empty.
        pub scope: String,
    }
}

/// Volumes, by (namespace, name).
#[derive(Debug)]
pub enum Volumes {}

impl Table for Volumes {
    const NAME: &'static str = "volumes";
    type Key = (String, String);
    type Record = VolumeRecord;
}
