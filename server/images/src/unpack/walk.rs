//! Finding the directory of an entry beneath a root that may be hostile.
//!
//! Paths are walked component by component with descriptors; nothing is ever
//! resolved by the host's root. The stack of open directories stays from one
//! entry to the next, since tars list a directory's files together.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, openat, readlinkat, statat},
    io::Errno,
};

/// Symbolic links followed for one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// Longest path of an entry, as in the kernel (PATH_MAX).
const MAX_PATH: usize = 4096;
/// Deepest directory: every level of a walk costs a descriptor, and a frame
/// where trees are walked by recursion.
pub(crate) const MAX_DEPTH: usize = 1000;

/// Why a directory could not be entered.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The answer lies in layers below this one.
    NeedsParent,
    /// The entry may not do this; a sentence about it.
    Hostile(String),
    /// The system said no.
    Io(io::Error),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What to do about missing directories and links into the unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make the directory, mode 0755, and remember that no entry made it.
    Make,
    /// Fail with `NotFound`.
    Fail,
}

/// Splits an entry's path into components; leading slashes, `.` and inner
/// `..` are taken out as `path.Clean` does, and a path that would climb over
/// the root is refused.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if path.len() > MAX_PATH {
        return Err(Refusal::Hostile(format!(
            "its path is longer than {MAX_PATH} bytes"
        )));
    }
    let mut parts: Vec<&[u8]> = Vec::with_capacity(8);
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return Err(Refusal::Hostile(
                        "its path leaves the layer by \"..\"".into(),
                    ));
                }
            }
            part if part.contains(&0) => {
                return Err(Refusal::Hostile("its path has a NUL byte".into()));
            }
            part => parts.push(part),
        }
    }
    Ok(parts)
}

/// A root directory with a stack of open directories in it.
#[derive(Debug)]
pub(crate) struct Walker {
    root: OwnedFd,
    /// Real components (no links) from the root, each opened.
    stack: Vec<(Vec<u8>, OwnedFd)>,
    /// The path that `stack` was last entered by, while it had no links.
    implicit: Vec<Vec<u8>>,
    /// Whether there are layers below that this root does not show.
    parent_hidden: bool,
}

impl Walker {
    pub(crate) fn new(root: OwnedFd, parent_hidden: bool) -> Self {
        Self {
            root,
            stack: Vec::new(),
            implicit: Vec::new(),
            parent_hidden,
        }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory last entered.
    pub(crate) fn here(&self) -> BorrowedFd<'_> {
        self.stack
            .last()
            .map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    /// Its path without links.
    pub(crate) fn real_path(&self) -> Vec<u8> {
        let parts: Vec<&[u8]> = self.stack.iter().map(|(name, _)| name.as_slice()).collect();
        parts.join(&b'/')
    }

    /// Directories made on the way since the last call, by their real paths.
    pub(crate) fn take_implicit(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.implicit)
    }

    /// Forgets all open directories: some directory was removed or replaced.
    pub(crate) fn forget(&mut self) {
        self.stack.clear();
    }

    /// Enters the directory `path`. Links in it are followed within the root.
    pub(crate) fn enter(&mut self, path: &[&[u8]], missing: Missing) -> Result<(), Refusal> {
        let same = self
            .stack
            .iter()
            .zip(path)
            .take_while(|((have, _), want)| have == *want)
            .count();
        self.stack.truncate(same);
        if same == path.len() {
            return Ok(());
        }
        // Components still to go, the next one last.
        let mut pending: Vec<Vec<u8>> = path[same..].iter().rev().map(|p| p.to_vec()).collect();
        let mut links = Links::default();
        while let Some(name) = pending.pop() {
            match name.as_slice() {
                b"" | b"." => {}
                b".." => {
                    if self.stack.pop().is_none() {
                        links.climbed = true;
                    }
                }
                _ => self.step(name, &mut pending, &mut links, missing)?,
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        name: Vec<u8>,
        pending: &mut Vec<Vec<u8>>,
        links: &mut Links,
        missing: Missing,
    ) -> Result<(), Refusal> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(Refusal::Hostile(format!(
                "it is nested deeper than {MAX_DEPTH} directories"
            )));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(self.here(), name.as_slice(), flags, Mode::empty()) {
            Ok(fd) => self.stack.push((name, fd)),
            Err(Errno::NOENT) => {
                self.refuse_strays(links)?;
                if missing == Missing::Fail {
                    return Err(Errno::NOENT.into());
                }
                mkdirat(self.here(), name.as_slice(), Mode::from_raw_mode(0o755))?;
                let fd = openat(self.here(), name.as_slice(), flags, Mode::empty())?;
                self.stack.push((name, fd));
                self.implicit.push(self.real_path());
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                if let Some(target) = self.link_target(&name)? {
                    self.follow(&target, pending, links)?;
                } else {
                    self.replace_file(name, missing)?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn link_target(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        match readlinkat(self.here(), name, Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn follow(
        &mut self,
        target: &[u8],
        pending: &mut Vec<Vec<u8>>,
        links: &mut Links,
    ) -> Result<(), Refusal> {
        links.count += 1;
        if links.count > MAX_LINKS {
            return Err(Refusal::Hostile(
                "its path goes round in symbolic links".into(),
            ));
        }
        links.last = String::from_utf8_lossy(target).into_owned();
        if target.starts_with(b"/") {
            links.absolute = true;
            self.stack.clear();
        }
        pending.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
        Ok(())
    }

    /// A path through a link may go where directories are, but a link that
    /// points out of the layer and happens to name nothing here is an attempt
    /// to get out, or the way to a directory of a lower layer.
    fn refuse_strays(&self, links: &Links) -> Result<(), Refusal> {
        if links.count > 0 && self.parent_hidden {
            return Err(Refusal::NeedsParent);
        }
        if links.absolute || links.climbed {
            return Err(Refusal::Hostile(format!(
                "its path goes through a symbolic link to {:?}, which leaves the layer",
                links.last
            )));
        }
        Ok(())
    }

    /// Something that is no directory where one is needed. A whiteout of this
    /// very layer makes room for a directory that shows nothing from below.
    fn replace_file(&mut self, name: Vec<u8>, missing: Missing) -> Result<(), Refusal> {
        let stat = statat(self.here(), name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
        let whiteout =
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0;
        if missing == Missing::Fail || !(whiteout && self.parent_hidden) {
            return Err(Refusal::Hostile(format!(
                "its path goes through {:?}, which is no directory",
                String::from_utf8_lossy(&name)
            )));
        }
        rustix::fs::unlinkat(self.here(), name.as_slice(), AtFlags::empty())?;
        mkdirat(self.here(), name.as_slice(), Mode::from_raw_mode(0o755))?;
        make_opaque(self.here(), &name)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.here(), name.as_slice(), flags, Mode::empty())?;
        self.stack.push((name, fd));
        Ok(())
    }
}

#[derive(Default)]
struct Links {
    count: usize,
    absolute: bool,
    climbed: bool,
    last: String,
}

/// The xattr by which overlayfs hides what lies below a directory.
pub(crate) const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// Makes the directory `name` in `dir` hide what layers below have there.
pub(crate) fn make_opaque(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(dir, name, flags, Mode::empty())?;
    rustix::fs::fsetxattr(&fd, OPAQUE, b"y", rustix::fs::XattrFlags::empty())?;
    Ok(())
}

/// Opens a directory by a path of the host's, to walk in it.
pub(crate) fn open_root(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}
