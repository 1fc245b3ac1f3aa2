//! Tar streams for others than layers: reading what nobody vouches for (`cp`
//! into a container), and writing files as they lie in a tree (`cp` out,
//! `export`, and the layers of `commit`).

mod write;

pub use crate::unpack::{
    inflate::Inflate,
    pax::SparseMap,
    remove::remove_tree,
    tar::{Entry, EntryKind, Tar},
};
pub use write::TreeWriter;
