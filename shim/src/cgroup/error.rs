//! What can go wrong with a cgroup.

use std::io;
use std::path::{Path, PathBuf};

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// A cgroup operation that failed. The messages hold their causes: they go to callers as text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cgroup path {0:?} is not below the root of the hierarchy")]
    BadPath(PathBuf),
    #[error("failed to make cgroup {path:?}: {source}")]
    Make { path: PathBuf, source: io::Error },
    #[error("failed to open {path:?}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("failed to write {value:?} to {path:?}: {source}")]
    Write {
        path: PathBuf,
        value: String,
        source: io::Error,
    },
    #[error("failed to enter cgroup {path:?}: {source}")]
    Join { path: PathBuf, source: io::Error },
    #[error("invalid resource limit: {0}")]
    BadLimit(String),
    #[error("failed to set device rules: {source}")]
    Devices { source: io::Error },
    #[error("cgroup {path:?} could not be removed: {source}; processes left: {pids:?}")]
    Busy {
        path: PathBuf,
        pids: Vec<i32>,
        source: io::Error,
    },
    #[error("processes in cgroup {0:?} did not freeze in time")]
    NotFrozen(PathBuf),
    #[error("this host has no freezer cgroup")]
    NoFreezer,
    #[error("out-of-memory notification for {path:?}: {source}")]
    Oom { path: PathBuf, source: io::Error },
}

impl Error {
    pub(super) fn open(path: &Path, source: io::Error) -> Error {
        Error::Open {
            path: path.to_owned(),
            source,
        }
    }

    fn io(&self) -> Option<&io::Error> {
        match self {
            Error::Make { source, .. }
            | Error::Open { source, .. }
            | Error::Write { source, .. }
            | Error::Join { source, .. }
            | Error::Oom { source, .. }
            | Error::Busy { source, .. }
            | Error::Devices { source } => Some(source),
            Error::BadPath(_) | Error::BadLimit(_) | Error::NotFrozen(_) | Error::NoFreezer => None,
        }
    }

    fn errno(&self) -> Option<i32> {
        self.io().and_then(io::Error::raw_os_error)
    }

    /// The file or the cgroup is not there. A removed cgroup's open files answer `ENODEV`.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ENODEV))
    }

    /// The kernel has the file but not what it is for.
    pub(crate) fn is_unsupported(&self) -> bool {
        self.errno() == Some(libc::EOPNOTSUPP)
    }

    pub(super) fn is(&self, errno: i32) -> bool {
        self.errno() == Some(errno)
    }
}
