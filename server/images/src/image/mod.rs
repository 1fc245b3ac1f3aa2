//! Images as people see them: names that point to manifests, and the
//! operations on them. The types mirror davit.v1's images.proto one to one.
//!
//! A name is a record of the images table: a normalised reference, or
//! `dangling@<digest>` for an image that lost its last name and is kept until
//! it is pruned (it has the label [`DANGLING_LABEL`]).

mod changes;
mod create;
mod disk_usage;
mod document;
pub(crate) mod facts;
mod filter;
mod history;
mod inspect;
pub(crate) mod layers;
mod list;
mod lookup;
pub(crate) mod names;
mod prune;
mod remote;
mod remove;
mod tag;
mod types;
mod usage;
mod view;

pub(crate) use create::{stored, wire};
pub(crate) use layers::LayerStep;
pub use types::*;

/// Label of image records that are no names but keep an image without one.
pub const DANGLING_LABEL: &str = "davit/dangling";
