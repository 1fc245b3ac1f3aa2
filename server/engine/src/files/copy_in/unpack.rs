//! What one entry of an archive does to a container's files.

use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use davit_images::tarball::{Entry, EntryKind, remove_tree};
use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid, XattrFlags,
        chownat, fchmod, fchown, fsetxattr, ftruncate, futimens, linkat, makedev, mkdirat, mknodat,
        openat, statat, symlinkat, utimensat,
    },
    io::Errno,
};

use super::super::Root;

/// Mode of directories that no entry makes.
const IMPLICIT: RawMode = 0o755;

/// Hands the data of an entry to a sink, block by block.
pub(super) type Data<'a> =
    &'a mut dyn FnMut(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;

/// One unpacking.
pub(super) struct Unpack<'a> {
    root: &'a Root,
    base: PathBuf,
    keep_kinds: bool,
    /// The directory of the last entry, which is most often the next one's.
    parent: Option<(PathBuf, Rc<OwnedFd>)>,
    /// Directories whose time is set when everything is in them.
    dirs: Vec<(PathBuf, (i64, u32))>,
}

impl<'a> Unpack<'a> {
    /// Unpacks into `base`, a path from the container's root. With
    /// `keep_kinds` a directory is not replaced by something else, nor the
    /// other way round.
    pub(super) fn new(root: &'a Root, base: PathBuf, keep_kinds: bool) -> Self {
        Self {
            root,
            base,
            keep_kinds,
            parent: None,
            dirs: Vec::new(),
        }
    }

    /// Does what the entry says.
    pub(super) fn entry(&mut self, entry: &Entry, data: Data<'_>) -> io::Result<()> {
        let Some((dir, name)) = self.place(&entry.path)? else {
            return Ok(()); // the directory that is unpacked into
        };
        let parent = self.parent(&dir)?;
        self.make_room(&parent, &name, entry)?;
        match entry.kind {
            EntryKind::Directory => self.directory(&parent, &dir, &name, entry),
            EntryKind::File => file(&parent, &name, entry, data),
            EntryKind::Symlink => {
                symlinkat(OsStr::from_bytes(&entry.link), &*parent, &name)?;
                chownat(
                    &*parent,
                    &name,
                    uid(entry),
                    gid(entry),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
                Ok(utimensat(
                    &*parent,
                    &name,
                    &times(entry.mtime),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?)
            }
            EntryKind::HardLink => self.hard_link(&parent, &name, entry),
            EntryKind::Char => node(&parent, &name, entry, FileType::CharacterDevice),
            EntryKind::Block => node(&parent, &name, entry, FileType::BlockDevice),
            EntryKind::Fifo => node(&parent, &name, entry, FileType::Fifo),
            // docker ignores them, too.
            EntryKind::Unknown(_) => Ok(()),
        }
    }

    /// Sets the times of the directories; the deepest first, though that makes
    /// no difference to them.
    pub(super) fn finish(self) -> io::Result<()> {
        for (path, mtime) in self.dirs.into_iter().rev() {
            match self
                .root
                .open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
            {
                Ok(dir) => futimens(&dir, &times(mtime))?,
                // Replaced by a later entry.
                Err(_) => continue,
            }
        }
        Ok(())
    }

    /// The directory, from the container's root, and the name in it; `None`
    /// for the base itself. Names that lead out of the base are refused.
    fn place(&self, path: &[u8]) -> io::Result<Option<(PathBuf, OsString)>> {
        let mut inside: Vec<&OsStr> = Vec::new();
        for component in Path::new(OsStr::from_bytes(path)).components() {
            match component {
                Component::Normal(part) => inside.push(part),
                Component::ParentDir if inside.pop().is_none() => {
                    return Err(invalid(
                        "its name leads out of the directory that is unpacked into",
                    ));
                }
                Component::ParentDir
                | Component::RootDir
                | Component::CurDir
                | Component::Prefix(_) => {}
            }
        }
        let Some(name) = inside.pop() else {
            return Ok(None);
        };
        let dir = inside
            .iter()
            .fold(self.base.clone(), |dir, part| dir.join(part));
        Ok(Some((dir, name.to_owned())))
    }

    /// Opens a directory, making what is missing.
    fn parent(&mut self, dir: &Path) -> io::Result<Rc<OwnedFd>> {
        if let Some((known, fd)) = &self.parent
            && known == dir
        {
            return Ok(Rc::clone(fd));
        }
        let fd = Rc::new(self.open_or_make(dir)?);
        self.parent = Some((dir.to_owned(), Rc::clone(&fd)));
        Ok(fd)
    }

    fn open_or_make(&self, dir: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut missing = Vec::new();
        let mut there = dir;
        let mut fd = loop {
            match self.root.open(there, flags) {
                Ok(fd) => break fd,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else {
                        return Err(error);
                    };
                    missing.push(name);
                    there = parent;
                }
                Err(error) => return Err(error),
            }
        };
        while let Some(name) = missing.pop() {
            match mkdirat(&fd, name, Mode::from_raw_mode(IMPLICIT)) {
                // A link that leads nowhere is there, and stays: making what it
                // points to is nobody's wish.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            fd = openat(
                &fd,
                name,
                flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
        }
        Ok(fd)
    }

    /// Takes away what is in the place of the entry, unless both are
    /// directories.
    fn make_room(&mut self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let there = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (was, is) = (
            there == FileType::Directory,
            entry.kind == EntryKind::Directory,
        );
        if self.keep_kinds && was != is {
            let shown = name.to_string_lossy();
            return Err(invalid(match was {
                true => format!("cannot overwrite directory {shown:?} with non-directory"),
                false => format!("cannot overwrite non-directory {shown:?} with directory"),
            }));
        }
        if was && is {
            return Ok(());
        }
        if was {
            // Directories below it may be open as parents.
            self.parent = None;
        }
        remove_tree(parent.as_fd(), name.as_bytes())
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        dir: &Path,
        name: &OsStr,
        entry: &Entry,
    ) -> io::Result<()> {
        match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty())?;
        attributes(&fd, entry)?;
        self.dirs.push((dir.join(name), entry.mtime));
        Ok(())
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let target = self
            .place(&entry.link)?
            .ok_or_else(|| invalid("it is a hard link to a directory"))?;
        let dir = self
            .root
            .open(&target.0, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(linkat(&dir, &target.1, parent, name, AtFlags::empty())?)
    }
}

fn file(parent: &OwnedFd, name: &OsStr, entry: &Entry, data: Data<'_>) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
    match &entry.sparse {
        Some(map) => sparse(&fd, &map.0, entry.size, data)?,
        None => data(&mut |block| write_all(&fd, block))?,
    }
    attributes(&fd, entry)?;
    Ok(futimens(&fd, &times(entry.mtime))?)
}

fn sparse(fd: &OwnedFd, pieces: &[(u64, u64)], size: u64, data: Data<'_>) -> io::Result<()> {
    ftruncate(fd, size)?;
    let mut pieces = pieces.iter().copied().filter(|&(_, length)| length > 0);
    let (mut at, mut left) = (0, 0);
    data(&mut |mut block| {
        while !block.is_empty() {
            if left == 0 {
                (at, left) = pieces
                    .next()
                    .ok_or_else(|| invalid("it has more data than its map of holes says"))?;
            }
            let take = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let written = rustix::io::pwrite(fd, &block[..take], at)?;
            block = &block[written..];
            at += written as u64;
            left -= written as u64;
        }
        Ok(())
    })
}

fn write_all(fd: &OwnedFd, mut block: &[u8]) -> io::Result<()> {
    while !block.is_empty() {
        match rustix::io::write(fd, block) {
            Ok(written) => block = &block[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn node(parent: &OwnedFd, name: &OsStr, entry: &Entry, kind: FileType) -> io::Result<()> {
    let device = if kind == FileType::Fifo {
        0
    } else {
        makedev(entry.device.0, entry.device.1)
    };
    mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)?;
    chownat(
        parent,
        name,
        uid(entry),
        gid(entry),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    // Opening a node could wait for its other end; a path to it can be had
    // without, and leads to this very inode whatever happens to the name.
    let path = openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let place = format!("/proc/self/fd/{}", path.as_raw_fd());
    rustix::fs::chmod(place, Mode::from_raw_mode(entry.mode & 0o7777))?;
    Ok(utimensat(
        parent,
        name,
        &times(entry.mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Owner, mode and extended attributes, in the order in which none undoes
/// another: a change of owner takes setuid and capabilities away.
fn attributes(fd: &OwnedFd, entry: &Entry) -> io::Result<()> {
    fchown(fd, uid(entry), gid(entry))?;
    fchmod(fd, Mode::from_raw_mode(entry.mode & 0o7777))?;
    for (name, value) in &entry.xattrs {
        // Users' own and file capabilities. Others belong to the host: labels
        // of its security modules, marks of overlayfs.
        let capability = name == b"security.capability";
        let of_user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if !capability && !of_user {
            continue;
        }
        let name = CString::new(name.as_slice())
            .map_err(|_| invalid("the name of an xattr has a NUL byte"))?;
        match fsetxattr(fd, &name, value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOTSUP) if of_user => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn uid(entry: &Entry) -> Option<Uid> {
    Some(Uid::from_raw(entry.uid))
}

fn gid(entry: &Entry) -> Option<Gid> {
    Some(Gid::from_raw(entry.gid))
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanoseconds.min(999_999_999)),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.into())
}
