//! Intents: what is about to be done to the world outside. On start each one
//! that is still here is finished or undone by its owner.

use crate::{record::sparse, table::Table};
use jiff::Timestamp;
use std::collections::BTreeMap;

sparse! {
    /// One intent.
    pub struct IntentRecord {
        /// Its id, unique in the store.
        pub id: String,
        /// Namespace of the object.
        pub namespace: String,
        /// What is to be done, "container.start"; its first part names the owner.
        pub kind: String,
        /// Id or key of what it is done to.
        pub object: String,
        /// What finishing or undoing needs to know.
        pub data: BTreeMap<String, String>,
        /// When it was recorded.
        pub at: Timestamp,
    }
}

/// Intents, by id.
#[derive(Debug)]
pub enum Intents {}

impl Table for Intents {
    const NAME: &'static str = "intents";
    type Key = String;
    type Record = IntentRecord;
}
