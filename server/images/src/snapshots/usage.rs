//! What a tree takes on disk.

use std::{collections::HashSet, io, os::fd::OwnedFd, path::Path};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};

use super::Usage;
use crate::unpack::walk::{MAX_DEPTH, open_root};

/// Counts blocks and inodes of the tree at `path`, each hard-linked file once.
pub fn measure(path: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    let root = open_root(path)?;
    let stat = rustix::fs::fstat(&root)?;
    usage.size += stat.st_blocks as u64 * 512;
    usage.inodes += 1;
    add(&root, &mut usage, &mut seen, 0)?;
    Ok(usage)
}

fn add(
    dir: &OwnedFd,
    usage: &mut Usage,
    seen: &mut HashSet<(u64, u64)>,
    depth: usize,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!(
            "directories nested deeper than {MAX_DEPTH}"
        )));
    }
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // A running container removes files while we look.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory
            && stat.st_nlink > 1
            && !seen.insert((stat.st_dev, stat.st_ino))
        {
            continue;
        }
        usage.size += stat.st_blocks as u64 * 512;
        usage.inodes += 1;
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(dir, name, flags, Mode::empty()) {
                Ok(inner) => add(&inner, usage, seen, depth + 1)?,
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
