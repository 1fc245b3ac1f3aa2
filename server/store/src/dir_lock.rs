//! The lock on a store's directory: one process at a time.

use crate::{Error, Kind, Result};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::Path,
    process,
};

/// Holds the directory until it is dropped or the process dies.
pub(crate) struct DirLock(#[allow(dead_code)] File);

impl DirLock {
    /// Takes the lock; [`Kind::FailedPrecondition`] when somebody has it.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io(format!("opening {path:?}"), e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(held(dir, &mut file)),
            Err(e) => return Err(Error::io(format!("locking {path:?}"), e)),
        }
        // For the message of whoever comes next.
        let note = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", process::id()));
        note.map_err(|e| Error::io(format!("writing {path:?}"), e))?;
        Ok(Self(file))
    }
}

fn held(dir: &Path, file: &mut File) -> Error {
    let mut pid = String::new();
    let holder = match file.take(32).read_to_string(&mut pid) {
        Ok(n) if n > 0 => format!("process {}", pid.trim()),
        _ => "another process".to_owned(),
    };
    Error::new(
        Kind::FailedPrecondition,
        format!("the store {dir:?} is in use by {holder}: stop that daemon or choose another root directory"),
    )
}
