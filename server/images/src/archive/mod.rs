//! Archives of images: OCI layouts and docker-archives, as tar streams.
//!
//! ```text
//! bytes ─► inflate ─► tar ─► blobs into the content store as they come
//!                        └─► index.json, manifest.json, links: in memory
//! end   ─► images: names, layers unpacked, recorded
//! ```
//!
//! What describes an archive may come last in it, so everything that is not
//! known to be small goes into the content store at once; what no image of
//! the archive turns out to need is left to garbage collection.

mod contents;
mod docker;
mod export;
mod import;
mod layout;
mod reader;
