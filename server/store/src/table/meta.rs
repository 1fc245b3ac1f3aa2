//! Meta: single facts about the whole engine, and its counters
//! ([`Tx::next_number`](crate::Tx::next_number)).

use crate::{record::sparse, table::Table};

sparse! {
    /// One fact.
    pub struct MetaRecord {
        /// Its value as text.
        pub text: String,
        /// Its value as a number.
        pub number: u64,
    }
}

/// Facts, by name ("counter/<name>" for counters).
#[derive(Debug)]
pub enum Meta {}

impl Table for Meta {
    const NAME: &'static str = "meta";
    type Key = String;
    type Record = MetaRecord;
}
