//! The requests and answers of the engine: davit.v1's messages as plain Rust
//! types, so that a door only converts.

mod container;
mod files;
mod network;
mod stats;
mod task;
mod volume;

pub use container::*;
pub use files::*;
pub use network::*;
pub use stats::*;
pub use task::*;
pub use volume::*;
