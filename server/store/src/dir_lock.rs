//! The lock on a store's directory: one process at a time.

use crate::{Error, Kind, Result};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

/// How long to try. A process that is being spawned shares its parent's files
/// until it executes its program, so the lock of a daemon that is gone can be
/// held for a moment more.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);

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
        let patience = Instant::now() + PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < patience => thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => return Err(held(dir, &mut file)),
                Err(e) => return Err(Error::io(format!("locking {path:?}"), e)),
            }
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
        format!(
            "the store {dir:?} is in use by {holder}: stop that daemon or choose another root directory"
        ),
    )
}
