//! Paths inside a container's root file system, which are hostile: an image may hold any symlink, and another
//! container may change a shared volume while we look. Nothing here ever steps outside of the root.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::{Errno, Result};

/// What a mount goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    Directory,
    File,
}

/// As many symlinks as the kernel follows.
const MOST_LINKS: u32 = 40;

/// Opens `path` as if `root` were `/`. Magic links (`/proc/self/fd/1`) are refused.
pub(super) fn open(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    again(|| {
        openat2(
            &root,
            relative(path),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    })
}

/// As [`open`] with `O_PATH`, and refuses any symlink on the way.
pub(super) fn open_without_symlinks(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    again(|| openat2(&root, relative(path), flags, Mode::empty(), resolve))
}

/// Opens `path` with `O_PATH`; makes it, as `leaf`, and the directories above it when it is not there.
pub(super) fn ensure(root: impl AsFd, path: &Path, leaf: Leaf, mode: Mode) -> Result<OwnedFd> {
    match open(&root, path, OFlags::PATH) {
        Err(Errno::NOENT) => Walk::new(&root, path)?.make(leaf, mode),
        other => other,
    }
}

/// Opens the directory that holds `path` (made when it is not there), and gives the last part of the path.
pub(super) fn parent(root: impl AsFd, path: &Path) -> Result<(OwnedFd, OsString)> {
    let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
    let above = path.parent().unwrap_or(Path::new(""));
    Ok((
        ensure(root, above, Leaf::Directory, Mode::from_raw_mode(0o755))?,
        name,
    ))
}

/// `openat2` below a root answers `EAGAIN` when something was renamed meanwhile.
fn again<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 0..100 {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

fn relative(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

/// A walk one part of the path at a time, never following a symlink but by hand.
struct Walk {
    /// The directories from the root to where we are.
    trail: Vec<OwnedFd>,
    rest: VecDeque<OsString>,
    links: u32,
}

impl Walk {
    fn new(root: impl AsFd, path: &Path) -> Result<Walk> {
        let root = root
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        let mut walk = Walk {
            trail: vec![root],
            rest: VecDeque::new(),
            links: 0,
        };
        walk.push(path);
        Ok(walk)
    }

    /// Puts the parts of `path` in front of what is still to go.
    fn push(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(part) => self.rest.push_front(part.to_owned()),
                Component::ParentDir => self.rest.push_front("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn make(mut self, leaf: Leaf, mode: Mode) -> Result<OwnedFd> {
        while let Some(part) = self.rest.pop_front() {
            self.step(&part, leaf, mode)?;
        }
        self.trail.pop().ok_or(Errno::NOENT)
    }

    fn step(&mut self, part: &OsStr, leaf: Leaf, mode: Mode) -> Result<()> {
        if part == ".." {
            if self.trail.len() > 1 {
                self.trail.pop();
            }
            return Ok(());
        }
        let here = self.trail.last().ok_or(Errno::NOENT)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = match openat(here, part, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                let is_file = self.rest.is_empty() && leaf == Leaf::File;
                create(here, part, is_file, mode)?;
                openat(here, part, flags, Mode::empty())?
            }
            other => other?,
        };
        if rustix::fs::FileType::from_raw_mode(fstat(&next)?.st_mode)
            != rustix::fs::FileType::Symlink
        {
            self.trail.push(next);
            return Ok(());
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP);
        }
        use std::os::unix::ffi::OsStrExt;
        let target = readlinkat(&next, "", Vec::new())?;
        let target = Path::new(OsStr::from_bytes(target.as_bytes())).to_owned();
        if target.is_absolute() {
            self.trail.truncate(1);
        }
        self.push(&target);
        Ok(())
    }
}

fn create(here: &OwnedFd, part: &OsStr, is_file: bool, mode: Mode) -> Result<()> {
    let made = if is_file {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        openat(here, part, flags, mode).map(drop)
    } else {
        mkdirat(here, part, Mode::from_raw_mode(0o755))
    };
    match made {
        // Somebody else was faster; what it is, the next open tells.
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let fd = std::fs::File::open(&root).unwrap().into();
        (dir, fd)
    }

    #[test]
    fn links_stay_inside() {
        let (dir, fd) = root();
        symlink("/../../../outside", dir.path().join("root/link")).unwrap();
        ensure(
            &fd,
            Path::new("/link/a/b"),
            Leaf::File,
            Mode::from_raw_mode(0o644),
        )
        .unwrap();
        assert!(dir.path().join("root/outside/a/b").is_file());
        assert!(!dir.path().join("outside").exists());
    }

    #[test]
    fn dots_stay_inside() {
        let (dir, fd) = root();
        ensure(
            &fd,
            Path::new("../../x/../y"),
            Leaf::Directory,
            Mode::empty(),
        )
        .unwrap();
        assert!(dir.path().join("root/y").is_dir());
    }

    #[test]
    fn loops_end() {
        let (dir, fd) = root();
        symlink("b", dir.path().join("root/a")).unwrap();
        symlink("a", dir.path().join("root/b")).unwrap();
        let made = ensure(&fd, Path::new("/a/c"), Leaf::Directory, Mode::empty());
        assert_eq!(made.unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn symlinks_can_be_refused() {
        let (dir, fd) = root();
        std::fs::create_dir(dir.path().join("root/real")).unwrap();
        symlink("real", dir.path().join("root/proc")).unwrap();
        assert_eq!(
            open_without_symlinks(&fd, Path::new("/proc")).unwrap_err(),
            Errno::LOOP
        );
        open_without_symlinks(&fd, Path::new("/real")).unwrap();
    }
}
