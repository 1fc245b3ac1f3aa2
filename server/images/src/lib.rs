//! davit's images: registry, content, snapshots, unpacking, garbage collection.
//!
//! This crate knows blobs, manifests and layers; it knows nothing of
//! containers beyond the snapshots that they hold, and no wire format of the
//! daemon's own APIs.

mod archive;
pub mod content;
pub mod diff;
pub mod digest;
pub mod gc;
pub mod image;
pub mod images;
mod labels;
pub mod lease;
mod media;
mod names;
pub mod platform;
mod progress;
mod pull;
mod push;
pub mod reference;
pub mod registry;
mod repair;
mod single_flight;
pub mod snapshots;
pub mod tarball;
pub mod unpack;

pub use content::Content;
pub use davit_store::{Error, Kind, Result};
pub use digest::Digest;
pub use images::{Images, ImagesConfig, Progress};
pub use lease::{Leases, Operation, Resource};
pub use reference::Reference;
pub use snapshots::Snapshots;
pub use unpack::Unpacker;
