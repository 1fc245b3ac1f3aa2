//! `mount_setattr`, which neither nix nor rustix has.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Changes to a mount: `MOUNT_ATTR_*` bits to set and to clear, and a propagation (`MS_SHARED` and so on, or 0).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MountAttr {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

#[repr(C)]
struct Raw {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

impl MountAttr {
    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Applies to the mount that `mount` refers to, with `recursive` to all below it too, in one step.
    ///
    /// # Errors
    /// What `mount_setattr` gives: `EPERM` for a flag locked by another user namespace, `ENOSYS` before Linux 5.12.
    pub fn apply(&self, mount: impl AsFd, recursive: bool) -> io::Result<()> {
        self.call(mount.as_fd(), recursive, 0)
    }

    /// As [`Self::apply`], and maps the owners of files as the user namespace `userns` does (an idmapped mount).
    ///
    /// # Errors
    /// As [`Self::apply`]; `EINVAL` when the file system can't be idmapped.
    pub fn apply_idmap(
        &self,
        mount: impl AsFd,
        recursive: bool,
        userns: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let with_map = Self {
            set: self.set | libc::MOUNT_ATTR_IDMAP,
            ..*self
        };
        with_map.call(mount.as_fd(), recursive, userns.as_raw_fd() as u64)
    }

    fn call(&self, mount: BorrowedFd<'_>, recursive: bool, userns_fd: u64) -> io::Result<()> {
        let raw = Raw {
            attr_set: self.set,
            attr_clr: self.clear,
            propagation: self.propagation,
            userns_fd,
        };
        let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
        // SAFETY: the path is an empty C string, `raw` has the size that is passed and outlives the call.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                mount.as_raw_fd(),
                c"".as_ptr(),
                flags,
                &raw const raw,
                size_of::<Raw>(),
            )
        };
        if answer < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}
