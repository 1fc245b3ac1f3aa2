//! Ingests: content that is still coming in.

use crate::{record::sparse, table::Table};
use jiff::Timestamp;

sparse! {
    /// One unfinished blob (containerd's `content.Status`). How many bytes
    /// are there is the size of its file.
    pub struct IngestRecord {
        /// Reference that its writer is opened by.
        pub reference: String,
        /// Name of its directory or file below the content store.
        pub dir: String,
        /// Digest that all bytes must have; empty when not known.
        pub expected: String,
        /// Bytes in all; 0 when not known.
        pub total: u64,
        /// When it began.
        pub started_at: Timestamp,
        /// When it was last opened.
        pub updated_at: Timestamp,
        /// When garbage collection may take it although nothing finished it.
        pub expires_at: Option<Timestamp>,
    }
}

/// Ingests, by (namespace, reference).
#[derive(Debug)]
pub enum Ingests {}

impl Table for Ingests {
    const NAME: &'static str = "ingests";
    type Key = (String, String);
    type Record = IngestRecord;
}
