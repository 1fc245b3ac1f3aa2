//! The root directory of a container, opened.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use davit_store::{Error, Kind, Result};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};

/// Tries of a lookup that a rename somewhere above raced with; the kernel
/// tells by EAGAIN.
const TRIES: usize = 64;

/// A container's root directory.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    name: String,
    read_only: bool,
}

impl Root {
    /// The root of the process `pid`, with everything that is mounted there.
    /// `name` is how the container is called in errors.
    ///
    /// # Errors
    /// `NotFound` when the process is gone.
    pub fn of_process(name: &str, pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/root");
        let root = rustix::fs::open(
            &path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| {
            Error::io(
                format!("opening {path}, the root of container {name}"),
                error,
            )
        })?;
        Ok(Self {
            fd: root,
            name: name.to_owned(),
            read_only: false,
        })
    }

    /// The root of a tree that is mounted (or a plain directory). With
    /// `read_only`, because the container was made with a read-only root,
    /// nothing may be copied in.
    pub fn of_tree(name: &str, tree: OwnedFd, read_only: bool) -> Self {
        Self {
            fd: tree,
            name: name.to_owned(),
            read_only,
        }
    }

    /// How the container is called in errors.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Opens a path within the root, following links within the root unless
    /// `flags` say otherwise for the last one.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        open_beneath(self.fd.as_fd(), path, flags)
    }

    /// `error` as an answer to somebody who named `path`.
    pub(super) fn refuse(&self, path: &str, error: io::Error) -> Error {
        let kind = match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => {
                return Error::not_found(format!(
                    "Could not find the file {path} in container {}",
                    self.name
                ));
            }
            Some(Errno::NOTDIR) => Kind::InvalidArgument,
            Some(
                Errno::LOOP
                | Errno::NAMETOOLONG
                | Errno::INVAL
                | Errno::ISDIR
                | Errno::EXIST
                | Errno::NOTEMPTY,
            ) => Kind::InvalidArgument,
            Some(Errno::ROFS) => {
                return Error::new(Kind::PermissionDenied, read_only(path, &self.name))
                    .with_source(error);
            }
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::MLINK) => {
                Kind::ResourceExhausted
            }
            Some(Errno::ACCESS | Errno::PERM | Errno::TXTBSY | Errno::BUSY) => {
                Kind::FailedPrecondition
            }
            _ => Kind::Internal,
        };
        Error::new(kind, format!("{path} in container {}", self.name)).with_source(error)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(super) fn read_only(path: &str, container: &str) -> String {
    format!(
        "container rootfs is marked read-only: {path} in container {container} is on a read-only file system"
    )
}

fn open_beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match openat2(
            root,
            relative,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        ) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
    Err(Errno::AGAIN.into())
}
