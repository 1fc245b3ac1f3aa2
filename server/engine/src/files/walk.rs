//! Writes files of a tree as tar entries.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use davit_images::tarball::TreeWriter;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstatfs, openat, statat};

/// Directories within each other that are followed: no tree of a container
/// is deeper, and a walk holds a descriptor for each.
const MAX_DEPTH: usize = 512;

/// File systems that hold no files but views of the kernel; a copy of a tree
/// takes their mount points as empty directories (magic.h).
const VIRTUAL: &[i64] = &[
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6165_676c, // pstore
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x6e73_6673, // nsfs
    0x4249_4e4d, // binfmt_misc
];

/// Writes one tree.
pub(super) struct Walk<'a, W: Write> {
    tar: TreeWriter<&'a mut W>,
}

impl<'a, W: Write> Walk<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Self {
        Self {
            tar: TreeWriter::new(out),
        }
    }

    /// Writes `name` in `dir`, and everything below it, under the path `called`.
    pub(super) fn add(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        called: &Path,
        depth: usize,
    ) -> io::Result<()> {
        match self.add_now(dir, name, called, depth) {
            // Gone since its directory was read: as if it had never been.
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => Ok(()),
            other => other,
        }
    }

    fn add_now(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        called: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.tar.add(dir, name, called, &stat)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir, name, flags, Mode::empty())?;
        if depth > 0 && is_virtual(&fd) {
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            return Err(io::Error::other(format!(
                "{} lies deeper than {MAX_DEPTH} directories",
                called.display()
            )));
        }
        self.children(&fd, called, depth + 1)
    }

    /// Writes everything in the directory `dir`, in order, so that the same
    /// tree gives the same archive.
    pub(super) fn children(
        &mut self,
        dir: &OwnedFd,
        called: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let name = OsStr::from_bytes(&name);
            self.add(dir.as_fd(), name, &called.join(name), depth)?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> io::Result<()> {
        self.tar.finish()?.flush()
    }
}

fn is_virtual(fd: &OwnedFd) -> bool {
    // The type of the number differs between architectures.
    #[allow(clippy::useless_conversion)]
    fstatfs(fd).is_ok_and(|stat| VIRTUAL.contains(&i64::from(stat.f_type)))
}
