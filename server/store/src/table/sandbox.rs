//! Sandboxes: pods, as containerd's clients and Kubernetes see them.

use crate::{
    record::sparse,
    table::{
        Table,
        container::{Runtime, TypedBytes},
    },
};
use jiff::Timestamp;
use std::collections::BTreeMap;

sparse! {
    /// One sandbox (containerd's `sandbox.Sandbox`).
    pub struct SandboxRecord {
        /// Its id.
        pub id: String,
        /// Its labels.
        pub labels: BTreeMap<String, String>,
        /// Shim that runs it and its containers.
        pub runtime: Runtime,
        /// What it is to be, in the maker's type.
        pub spec: Option<TypedBytes>,
        /// Controller that runs it, "podsandbox" or "shim".
        pub sandboxer: String,
        /// When it was made.
        pub created_at: Timestamp,
        /// When the record was last changed.
        pub updated_at: Timestamp,
        /// Typed extensions, kept as they are.
        pub extensions: BTreeMap<String, TypedBytes>,
    }
}

/// Sandboxes, by (namespace, id).
#[derive(Debug)]
pub enum Sandboxes {}

impl Table for Sandboxes {
    const NAME: &'static str = "sandboxes";
    type Key = (String, String);
    type Record = SandboxRecord;
}
