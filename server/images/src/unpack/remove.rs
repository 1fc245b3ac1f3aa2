//! Removing trees without ever leaving them.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat},
    io::Errno,
};

/// Removes `name` in `dir`, whatever it is, with everything below. Nothing
/// there is success. Links are removed, not followed; depth costs no stack.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let mut stack: Vec<(Vec<u8>, OwnedFd)> = vec![(name.to_vec(), open(dir, name)?)];
    while let Some((_, top)) = stack.last() {
        match empty(top.as_fd())? {
            Some(child) => {
                let fd = open(top.as_fd(), &child)?;
                stack.push((child, fd));
                // Every level holds a descriptor; very deep trees are flattened.
                if stack.len() > 256 {
                    flatten(&mut stack)?;
                }
            }
            None => {
                let Some((name, _)) = stack.pop() else { break };
                let above = stack.last().map_or(dir, |(_, fd)| fd.as_fd());
                match unlinkat(above, name.as_slice(), AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    // A directory that was moved up in between may have kept the top alive.
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => remove_tree(dir, name),
        Err(error) => Err(error.into()),
    }
}

/// Removes the tree at a path of the host's.
pub(crate) fn remove_path(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    match openat(
        CWD,
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(dir) => remove_tree(dir.as_fd(), std::os::unix::ffi::OsStrExt::as_bytes(name)),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Moves the deepest directory up beside the top, so that its parents can be
/// closed.
fn flatten(stack: &mut Vec<(Vec<u8>, OwnedFd)>) -> io::Result<()> {
    let (name, _) = stack.pop().ok_or(Errno::INVAL)?;
    let spot = format!(".davit-remove-{}", uuid::Uuid::new_v4().simple());
    {
        let from = stack.last().ok_or(Errno::INVAL)?.1.as_fd();
        let to = stack.first().ok_or(Errno::INVAL)?.1.as_fd();
        rustix::fs::renameat(from, name.as_slice(), to, spot.as_str())?;
    }
    stack.truncate(1);
    Ok(())
}

fn open(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

/// Unlinks everything that is no directory and every empty directory; names a
/// directory that is left.
fn empty(dir: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_bytes().to_vec())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_and_odd_trees_go() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        let top = root.path().join("top");
        std::fs::create_dir(&top).unwrap();
        std::os::unix::fs::symlink(&outside, top.join("link")).unwrap();
        // Deeper than PATH_MAX and than the descriptors that we want to hold.
        let mut here =
            openat(CWD, &top, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..700 {
            rustix::fs::mkdirat(&here, "some-name", Mode::from_raw_mode(0o755)).unwrap();
            rustix::fs::mkdirat(&here, "other", Mode::from_raw_mode(0o755)).unwrap();
            here = open(here.as_fd(), b"some-name").unwrap();
        }
        remove_path(&top).unwrap();
        assert!(!top.exists());
        assert!(outside.join("kept").exists());
        remove_path(&top).unwrap();
    }
}
