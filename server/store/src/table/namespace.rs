//! Namespaces: what keeps one user's objects apart from another's.

use crate::{record::sparse, table::Table};
use jiff::Timestamp;
use std::collections::BTreeMap;

sparse! {
    /// One namespace.
    pub struct NamespaceRecord {
        /// Its name.
        pub name: String,
        /// Its labels; containerd's clients keep defaults in them.
        pub labels: BTreeMap<String, String>,
        /// When it was made.
        pub created_at: Timestamp,
        /// When its labels changed last.
        pub updated_at: Timestamp,
    }
}

/// Namespaces, by name.
#[derive(Debug)]
pub enum Namespaces {}

impl Table for Namespaces {
    const NAME: &'static str = "namespaces";
    type Key = String;
    type Record = NamespaceRecord;
}
