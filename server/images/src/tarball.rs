//! Reading tar streams that nobody vouches for: what layers are read with, for
//! others who take archives from strangers (`cp` into a container).

pub use crate::unpack::{
    inflate::Inflate,
    pax::SparseMap,
    remove::remove_tree,
    tar::{Entry, EntryKind, Tar},
};
