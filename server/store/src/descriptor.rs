//! Content descriptors and platforms, as the OCI image spec has them.

use crate::record::sparse;
use std::collections::BTreeMap;

sparse! {
    /// What identifies a blob (OCI image spec, descriptor.md).
    pub struct Descriptor {
        /// Media type of the content.
        pub media_type: String,
        /// "sha256:<64 hex>".
        pub digest: String,
        /// Size in bytes.
        pub size: i64,
        /// Annotations of the descriptor.
        pub annotations: BTreeMap<String, String>,
        /// Platform that the content is for; only in an index.
        pub platform: Option<Platform>,
    }

    /// A platform as in an OCI index; an empty field means the host's.
    pub struct Platform {
        /// Operating system, "linux".
        pub os: String,
        /// Architecture in Go's names, "amd64".
        pub architecture: String,
        /// Variant of the architecture, "v7".
        pub variant: String,
        /// Version of the operating system.
        pub os_version: String,
    }
}
