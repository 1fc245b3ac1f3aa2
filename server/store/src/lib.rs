//! davit's metadata: typed tables and the numbered event log, on sled.
//!
//! Nothing outside this crate knows that it is sled.

pub mod error;

pub use error::{Error, Kind, Result};
