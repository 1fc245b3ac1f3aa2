//! Space on the disk that is the store's before it needs it.
//!
//! sled can't go on after a write that failed, and a full disk is nothing rare: one container that writes without
//! end is enough. So blocks are set aside behind the end of sled's file, where its log grows to, and commits that
//! would go beyond them are refused while the disk is full. What frees space again (stopping, removing, collecting
//! garbage) goes on within them.

use crate::{Error, Kind, Result, store::lock};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Bytes set aside behind the end of sled's file: some thousand commits, when sled finds no room in the file itself.
const AHEAD: u64 = 8 << 20;
/// With less than this left nothing is committed.
const LEAST: u64 = 1 << 20;
/// What opening a store may write: sled's snapshot of its index, and the files beside it.
const SPARE: u64 = 2 << 20;

/// What is set aside for one open sled.
#[derive(Debug)]
pub(crate) struct Headroom {
    /// sled's file, open for writing: without that nothing can be set aside.
    file: File,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Length of the file when it was last looked at.
    length: u64,
    /// Where what is set aside ends.
    end: u64,
    /// The file system can't do it.
    unsupported: bool,
}

impl Headroom {
    /// Takes charge of sled's file.
    pub(crate) fn of(path: PathBuf) -> Result<Self> {
        let file = File::options()
            .write(true)
            .open(&path)
            .map_err(|e| Error::io(format!("opening {path:?}"), e))?;
        Ok(Self {
            file,
            path,
            state: Mutex::default(),
        })
    }

    /// Sets more aside when it is time; [`Kind::ResourceExhausted`] when the disk is full and too little is left.
    pub(crate) fn secure(&self) -> Result<()> {
        let mut state = lock(&self.state);
        if state.unsupported {
            return Ok(());
        }
        let length = self
            .file
            .metadata()
            .map_err(|e| Error::io(format!("looking at {:?}", self.path), e))?
            .len();
        if length < state.length {
            // sled cut the file, and what was behind its end went with that.
            state.end = length;
        }
        state.length = length;
        if state.end >= length + AHEAD / 2 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, length, AHEAD) {
            Ok(()) => {
                state.end = length + AHEAD;
                Ok(())
            }
            Err(Errno::NOSPC | Errno::DQUOT) if state.end >= length + LEAST => Ok(()),
            Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "no space left on device: nothing can be recorded in {:?} until there are {} MiB free; \
                     free some, for example by removing containers or images",
                    self.path,
                    AHEAD >> 20
                ),
            )
            .with_source(std::io::Error::from(errno))),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                tracing::info!(path = %self.path.display(), "the file system can't set space aside: a full disk will stop the store");
                state.unsupported = true;
                Ok(())
            }
            Err(errno) => Err(Error::io(format!("setting space aside for {:?}", self.path), std::io::Error::from(errno))),
        }
    }
}

/// A file that holds the space for opening the store in `dir`: let go of while that happens.
#[derive(Debug)]
pub(crate) struct Spare(PathBuf);

impl Spare {
    /// Frees the space.
    pub(crate) fn let_go(dir: &Path) -> Self {
        let path = dir.join("spare");
        // Not there at the first start, nor on file systems that can't set space aside.
        let _ = fs::remove_file(&path);
        Self(path)
    }

    /// Takes space again, for the next time. A full disk is no reason to stop here: headroom was secured before.
    pub(crate) fn take_again(self) {
        let taken = File::create(&self.0).and_then(|file| {
            fallocate(&file, FallocateFlags::empty(), 0, SPARE).map_err(std::io::Error::from)
        });
        if let Err(error) = taken {
            tracing::debug!(path = %self.0.display(), %error, "no space is held for the next start");
            let _ = fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn space_is_set_aside_behind_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        fs::write(&path, vec![1; 10_000]).unwrap();
        let headroom = Headroom::of(path.clone()).unwrap();
        headroom.secure().unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 10_000);
        assert!(metadata.blocks() * 512 >= AHEAD);
        // A file that was cut gets its space back.
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(100)
            .unwrap();
        headroom.secure().unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 100);
        assert!(metadata.blocks() * 512 >= AHEAD);
    }
}
