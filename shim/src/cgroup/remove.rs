//! Removing a container's cgroups, with those that it made below its own.

use std::path::Path;

use super::{Cgroup, Error, Result, children};

impl Cgroup {
    /// Removes the directories, children first. What is gone already is success.
    ///
    /// # Errors
    /// [`Error::Busy`] while a process is inside; a process leaves shortly after it was waited for, so try again.
    pub(crate) fn remove(&self) -> Result<()> {
        let mut outcome = Ok(());
        for directory in self.directories() {
            // One that is busy must not keep the others.
            if let Err(e) = remove_tree(directory) {
                outcome = Err(e);
            }
        }
        match outcome {
            Err(Error::Busy { path, source, .. }) => Err(Error::Busy {
                path,
                source,
                pids: self.processes().unwrap_or_default(),
            }),
            other => other,
        }
    }
}

impl Error {
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Error::Busy { .. })
    }
}

fn remove_tree(directory: &Path) -> Result<()> {
    if rmdir(directory)? {
        return Ok(());
    }
    for child in children(directory) {
        remove_tree(&child)?;
    }
    if rmdir(directory)? {
        return Ok(());
    }
    let source = std::io::Error::from_raw_os_error(libc::EBUSY);
    Err(Error::Busy {
        path: directory.to_owned(),
        pids: Vec::new(),
        source,
    })
}

/// Whether it is gone; `false` while it has processes or children.
fn rmdir(directory: &Path) -> Result<bool> {
    match rustix::fs::rmdir(directory) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(true),
        Err(rustix::io::Errno::BUSY | rustix::io::Errno::NOTEMPTY) => Ok(false),
        Err(e) => Err(Error::open(directory, e.into())),
    }
}
