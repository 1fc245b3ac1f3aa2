//! davit's images: registry, content, snapshots, unpacking, garbage collection.
//!
//! This crate knows blobs, manifests and layers; it knows nothing of
//! containers beyond the snapshots that they hold, and no wire format of the
//! daemon's own APIs.

pub mod content;
pub mod diff;
pub mod digest;
pub mod gc;
pub mod image;
pub mod images;
pub mod lease;
mod labels;
mod media;
pub mod platform;
mod progress;
pub mod reference;
mod single_flight;
pub mod registry;
pub mod snapshots;
pub mod unpack;

pub use content::Content;
pub use davit_store::{Error, Kind, Result};
pub use digest::Digest;
pub use images::{Images, ImagesConfig, Progress};
pub use lease::{Leases, Operation, Resource};
pub use reference::Reference;
pub use snapshots::Snapshots;
pub use unpack::Unpacker;
