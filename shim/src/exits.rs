//! How processes ended, on disk before anybody is told: `<bundle>/exits/<init|exec id>.json`.
//!
//! The file appears whole or not at all, and stays until `Task.Delete`, which is the daemon's acknowledgement.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The file name of the container's first process.
pub(crate) const INIT: &str = "init";

/// How one process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// "init" or the exec id.
    pub(crate) id: String,
    /// In the shim's pid namespace; 0 when the process never ran.
    pub(crate) pid: i32,
    /// The exit status, or 128 + signal.
    pub(crate) code: u32,
    /// When it was reaped, to the nanosecond.
    pub(crate) at: Timestamp,
    /// The kernel killed something in the container for want of memory.
    pub(crate) oom: bool,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
}

/// Writes the record so that a reader sees all of it or nothing.
///
/// # Errors
/// The file system's.
pub(crate) fn write(bundle: &Path, exit: &Exit) -> io::Result<()> {
    let directory = bundle.join("exits");
    match fs::create_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let aside = directory.join(format!(".{}", exit.id));
    fs::write(&aside, serde_json::to_vec(exit)?)?;
    fs::rename(&aside, path(bundle, &exit.id))
}

/// The record of `id`, if it ended.
pub(crate) fn read(bundle: &Path, id: &str) -> Option<Exit> {
    serde_json::from_slice(&fs::read(path(bundle, id)).ok()?).ok()
}

/// Forgets the record: it has been acknowledged.
pub(crate) fn remove(bundle: &Path, id: &str) {
    // Not there is as good as removed; anything else leaves a file in a bundle that is about to go.
    let _ = fs::remove_file(path(bundle, id));
}

fn path(bundle: &Path, id: &str) -> PathBuf {
    bundle.join("exits").join(format!("{id}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_read_and_removed() {
        let bundle = tempfile::tempdir().unwrap();
        let exit = Exit {
            id: INIT.into(),
            pid: 7,
            code: 137,
            at: Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap(),
            oom: true,
            signal: Some(9),
        };
        write(bundle.path(), &exit).unwrap();
        let text = fs::read_to_string(bundle.path().join("exits/init.json")).unwrap();
        assert!(
            text.contains(r#""at":"2023-11-14T22:13:20.123456789Z""#),
            "{text}"
        );
        assert_eq!(read(bundle.path(), INIT), Some(exit));
        remove(bundle.path(), INIT);
        assert_eq!(read(bundle.path(), INIT), None);
    }
}
