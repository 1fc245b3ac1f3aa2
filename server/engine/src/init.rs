//! The small init that containers run as PID 1 when they ask for one.
//!
//! It is a static program of a few kilobytes, carried inside the daemon, so
//! that it runs in any image; docker's is tini, and the behaviour is the same:
//! it starts the command, passes signals on, reaps, and ends as the command
//! did.

use std::path::{Path, PathBuf};

use davit_store::{Error, Kind, Result};

/// Puts the init binary at `path` (executable, replaced as a whole) and gives
/// it back, for [`Defaults::init`](crate::spec::Defaults::init).
///
/// # Errors
/// `Unimplemented` on architectures without one; I/O errors.
pub fn install(path: &Path) -> Result<PathBuf> {
    Err(Error::new(
        Kind::Unimplemented,
        format!("there is no init binary to put at {}", path.display()),
    ))
}
