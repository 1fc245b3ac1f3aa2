//! davit's metadata: typed tables and the numbered event log, on sled.
//!
//! Nothing outside this crate knows that it is sled.

pub mod descriptor;
pub mod error;
pub mod image_config;
pub mod options;
mod record;
pub mod table;

pub use error::{Error, Kind, Result};
