//! What each entry of a layer does to a directory.
//!
//! Two ways to handle what lies below: [`Onto::Nothing`] fills the layer's own
//! directory, whiteouts becoming overlayfs' marks; [`Onto::Parent`] works on
//! the merged tree of the layers below (a copy, or a mounted overlay), where
//! whiteouts really remove. The first needs no parent, so all layers of an
//! image unpack at once; what only the parent can answer ends in
//! [`Refusal::NeedsParent`] or in [`Extracted::implicit`].

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::OnceLock,
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
        chownat, fchmod, fchown, fsetxattr, ftruncate, futimens, linkat, lsetxattr, makedev,
        mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};

use crate::unpack::{
    remove::remove_tree,
    tar::{Entry, EntryKind},
    walk::{Missing, OPAQUE, Refusal, Walker, components, make_opaque},
};

/// What the directory shows of the layers below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Onto {
    /// There are none: this is the lowest layer.
    Bottom,
    /// Nothing; overlayfs will put the layer on top of them.
    Nothing,
    /// All of it.
    Parent,
}

/// What an extraction leaves to be done.
#[derive(Debug, Default)]
pub(crate) struct Extracted {
    /// Directories that no entry of the layer describes, by their paths ("" is
    /// the root): they take owner, mode and times from the layers below.
    pub(crate) implicit: BTreeSet<Vec<u8>>,
    /// Entries that were applied.
    pub(crate) entries: u64,
}

/// Applies entries to a directory.
#[derive(Debug)]
pub(crate) struct Extractor {
    walker: Walker,
    onto: Onto,
    extracted: Extracted,
    /// Times of directories, set at the end since every file changes them.
    directory_times: BTreeMap<Vec<u8>, (i64, u32)>,
    /// What this layer made, for whiteouts that must spare it.
    made: BTreeSet<Vec<u8>>,
}

type Applied<T = ()> = Result<T, Refusal>;

/// Hands out the data of the present entry.
pub(crate) type DataSource<'a> =
    &'a mut dyn FnMut(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;

impl Extractor {
    pub(crate) fn new(root: OwnedFd, onto: Onto) -> Self {
        let mut extracted = Extracted::default();
        if onto == Onto::Nothing {
            extracted.implicit.insert(Vec::new());
        }
        Self {
            walker: Walker::new(root, onto == Onto::Nothing),
            onto,
            extracted,
            directory_times: BTreeMap::new(),
            made: BTreeSet::new(),
        }
    }

    /// Applies one entry; `data` hands out its bytes if it is a file.
    pub(crate) fn apply(&mut self, entry: &Entry, data: DataSource<'_>) -> Applied {
        self.extracted.entries += 1;
        let parts = components(&entry.path)?;
        let Some((base, parent)) = parts.split_last() else {
            return self.root_entry(entry);
        };
        if base.starts_with(b".wh.") {
            return self.whiteout(base, parent);
        }
        self.enter(parent)?;
        match entry.kind {
            EntryKind::Directory => self.directory(base, entry),
            EntryKind::File => self.file(base, entry, data),
            EntryKind::HardLink => self.hard_link(base, parent, entry),
            EntryKind::Symlink => self.symlink(base, entry),
            EntryKind::Char | EntryKind::Block | EntryKind::Fifo => self.node(base, entry),
            EntryKind::Unknown(flag) => Err(Refusal::Hostile(format!(
                "its type {:?} is not known",
                char::from(flag)
            ))),
        }
    }

    /// Sets what had to wait for the end.
    pub(crate) fn finish(mut self) -> Applied<Extracted> {
        // Children before parents would do as well: setting times of a
        // directory does not touch the one above.
        for (path, mtime) in std::mem::take(&mut self.directory_times) {
            let parts = components(&path)?;
            match self.walker.enter(&parts, Missing::Fail) {
                Ok(()) => set_times(self.walker.here(), b".", mtime)?,
                // Replaced or removed by a later entry.
                Err(Refusal::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(Refusal::Hostile(_) | Refusal::NeedsParent) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(self.extracted)
    }

    fn enter(&mut self, parent: &[&[u8]]) -> Applied {
        self.walker.enter(parent, Missing::Make)?;
        for path in self.walker.take_implicit() {
            if self.onto == Onto::Nothing {
                self.extracted.implicit.insert(path.clone());
            }
            self.remember(path);
        }
        Ok(())
    }

    fn remember(&mut self, path: Vec<u8>) {
        if self.onto == Onto::Parent {
            self.made.insert(path);
        }
    }

    fn path_of(&self, base: &[u8]) -> Vec<u8> {
        let mut path = self.walker.real_path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(base);
        path
    }

    fn root_entry(&mut self, entry: &Entry) -> Applied {
        if entry.kind != EntryKind::Directory {
            return Err(Refusal::Hostile(
                "it would replace the root directory".into(),
            ));
        }
        // A detached mount's own descriptor is good for looking up only.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = &openat(self.walker.root(), c".", flags, Mode::empty())?;
        fchown(
            root,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )?;
        fchmod(root, Mode::from_raw_mode(entry.mode))?;
        set_xattrs(entry, |name, value| {
            fsetxattr(root, name, value, XattrFlags::empty())
        })?;
        self.extracted.implicit.remove(&Vec::new());
        self.directory_times.insert(Vec::new(), entry.mtime);
        Ok(())
    }

    fn directory(&mut self, base: &[u8], entry: &Entry) -> Applied {
        let dir = self.walker.here();
        let mode = Mode::from_raw_mode(entry.mode);
        let mut fresh = true;
        match mkdirat(dir, base, mode & Mode::from_raw_mode(0o777)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = statat(dir, base, AtFlags::SYMLINK_NOFOLLOW)?;
                fresh = FileType::from_raw_mode(stat.st_mode) != FileType::Directory;
                if fresh {
                    unlinkat(dir, base, AtFlags::empty())?;
                    mkdirat(dir, base, mode & Mode::from_raw_mode(0o777))?;
                    if self.onto == Onto::Nothing && is_whiteout(&stat) {
                        make_opaque(dir, base)?;
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        if !fresh || entry.uid != 0 || entry.gid != 0 {
            own(dir, base, entry)?;
        }
        if !fresh || entry.mode & (0o7000 | umask()) != 0 {
            chmodat(dir, base, mode, AtFlags::empty())?;
        }
        if !entry.xattrs.is_empty() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(dir, base, flags, Mode::empty())?;
            set_xattrs(entry, |name, value| {
                fsetxattr(&fd, name, value, XattrFlags::empty())
            })?;
        }
        let path = self.path_of(base);
        self.extracted.implicit.remove(&path);
        self.directory_times.insert(path.clone(), entry.mtime);
        self.remember(path);
        Ok(())
    }

    fn file(&mut self, base: &[u8], entry: &Entry, data: DataSource<'_>) -> Applied {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let fd = self.replacing(base, |dir| openat(dir, base, flags, mode))?;
        match &entry.sparse {
            Some(map) => write_sparse(&fd, &map.0, entry.size, data)?,
            None if entry.size > 0 => data(&mut |block| write_all(&fd, block))?,
            None => {}
        }
        let owned = entry.uid != 0 || entry.gid != 0;
        if owned {
            fchown(
                &fd,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            )?;
        }
        // After the owner, which takes setuid and setgid away.
        if entry.mode & (0o7000 | umask()) != 0 {
            fchmod(&fd, Mode::from_raw_mode(entry.mode))?;
        }
        set_xattrs(entry, |name, value| {
            fsetxattr(&fd, name, value, XattrFlags::empty())
        })?;
        futimens(&fd, &times(entry.mtime))?;
        let path = self.path_of(base);
        self.remember(path);
        Ok(())
    }

    fn symlink(&mut self, base: &[u8], entry: &Entry) -> Applied {
        self.replacing(base, |dir| symlinkat(entry.link.as_slice(), dir, base))?;
        let dir = self.walker.here();
        if entry.uid != 0 || entry.gid != 0 {
            own(dir, base, entry)?;
        }
        self.xattrs_by_name(base, entry)?;
        set_times(self.walker.here(), base, entry.mtime)?;
        let path = self.path_of(base);
        self.remember(path);
        Ok(())
    }

    fn node(&mut self, base: &[u8], entry: &Entry) -> Applied {
        let kind = match entry.kind {
            EntryKind::Char => FileType::CharacterDevice,
            EntryKind::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(entry.mode);
        self.replacing(base, |dir| mknodat(dir, base, kind, mode, device))?;
        let dir = self.walker.here();
        own(dir, base, entry)?;
        chmodat(dir, base, mode, AtFlags::empty())?;
        self.xattrs_by_name(base, entry)?;
        set_times(self.walker.here(), base, entry.mtime)?;
        let path = self.path_of(base);
        self.remember(path);
        Ok(())
    }

    fn hard_link(&mut self, base: &[u8], parent: &[&[u8]], entry: &Entry) -> Applied {
        let hostile = |why: &str| {
            let target = String::from_utf8_lossy(&entry.link).into_owned();
            Refusal::Hostile(format!("it is a hard link to {target:?}, {why}"))
        };
        let target = match components(&entry.link) {
            Ok(target) => target,
            Err(_) => return Err(hostile("which leaves the layer")),
        };
        let Some((target_base, target_parent)) = target.split_last() else {
            return Err(hostile("which is the root directory"));
        };
        let missing = |this: &Self| match this.onto {
            Onto::Nothing => Refusal::NeedsParent,
            Onto::Bottom | Onto::Parent => hostile("which is not there"),
        };
        match self.walker.enter(target_parent, Missing::Fail) {
            Ok(()) => {}
            Err(Refusal::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(missing(self));
            }
            Err(other) => return Err(other),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let target_dir = openat(self.walker.here(), ".", flags, Mode::empty())?;
        let found = match statat(&target_dir, *target_base, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(missing(self)),
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return Err(hostile("which is a directory"));
        }
        self.enter(parent)?;
        if let Ok(here) = statat(self.walker.here(), base, AtFlags::SYMLINK_NOFOLLOW)
            && (here.st_dev, here.st_ino) == (found.st_dev, found.st_ino)
        {
            return Ok(());
        }
        self.replacing(base, |dir| {
            linkat(&target_dir, *target_base, dir, base, AtFlags::empty())
        })?;
        let path = self.path_of(base);
        self.remember(path);
        Ok(())
    }

    /// Makes something named `base`; whatever is there already goes first.
    fn replacing<T>(
        &mut self,
        base: &[u8],
        mut make: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Applied<T> {
        match make(self.walker.here()) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(Refusal::from),
        }
        match unlinkat(self.walker.here(), base, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return make(self.walker.here()).map_err(Refusal::from),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        remove_tree(self.walker.here(), base)?;
        let path = self.path_of(base);
        self.forget_below(&path);
        // Only directories below this one were closed, if any: no other is gone.
        make(self.walker.here()).map_err(Refusal::from)
    }

    fn forget_below(&mut self, path: &[u8]) {
        let below = |other: &Vec<u8>| {
            other.starts_with(path) && matches!(other.get(path.len()), None | Some(b'/'))
        };
        self.extracted.implicit.retain(|other| !below(other));
        self.directory_times.retain(|other, _| !below(other));
        self.made.retain(|other| !below(other));
    }

    /// xattrs of what can't be opened: by name, through the directory's
    /// descriptor, never following the last component.
    fn xattrs_by_name(&self, base: &[u8], entry: &Entry) -> Applied {
        if entry.xattrs.is_empty() {
            return Ok(());
        }
        let dir = self.walker.here();
        let path = [
            format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(),
            base,
        ]
        .concat();
        set_xattrs(entry, |name, value| {
            lsetxattr(path.as_slice(), name, value, XattrFlags::empty())
        })
        .map_err(Refusal::from)
    }

    fn whiteout(&mut self, base: &[u8], parent: &[&[u8]]) -> Applied {
        if base == b".wh..wh..opq" {
            return self.opaque(parent);
        }
        let name = &base[4..];
        if name.starts_with(b".wh.") {
            // aufs' own bookkeeping (".wh..wh.plnk" and the like).
            return Ok(());
        }
        if matches!(name, b"" | b"." | b"..") {
            return Err(Refusal::Hostile(
                "it is a whiteout of nothing that can be removed".into(),
            ));
        }
        match self.onto {
            Onto::Bottom => Ok(()),
            Onto::Nothing => self.mark_whiteout(name, parent),
            Onto::Parent => self.remove_lower(name, parent),
        }
    }

    fn mark_whiteout(&mut self, name: &[u8], parent: &[&[u8]]) -> Applied {
        self.enter(parent)?;
        let dir = self.walker.here();
        if is_opaque(dir)? {
            // Nothing below is seen here, and overlayfs would list the mark.
            return Ok(());
        }
        match mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // A whiteout hides what lies below, never what its own layer has
            // (OCI image spec, layer.md, "Whiteouts").
            Err(Errno::EXIST) => {
                let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    make_opaque(dir, name)?;
                    let path = self.path_of(name);
                    self.extracted.implicit.remove(&path);
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn remove_lower(&mut self, name: &[u8], parent: &[&[u8]]) -> Applied {
        match self.walker.enter(parent, Missing::Fail) {
            Ok(()) => {}
            Err(Refusal::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(other) => return Err(other),
        }
        let path = self.path_of(name);
        self.spare_and_remove(name, &path)?;
        self.walker.forget();
        Ok(())
    }

    /// Removes `name` in the directory entered, except for what this layer made.
    fn spare_and_remove(&mut self, name: &[u8], path: &[u8]) -> Applied {
        let dir = openat(
            self.walker.here(),
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        self.clear(dir.as_fd(), name, path)
    }

    fn clear(&self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Applied {
        let mut below = path.to_vec();
        below.push(b'/');
        let spared_below = self
            .made
            .range(below.clone()..)
            .next()
            .is_some_and(|other| other.starts_with(&below));
        if !spared_below && !self.made.contains(path) {
            return Ok(remove_tree(dir, name)?);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(dir, name, flags, Mode::empty()) {
            Ok(inner) => self.clear_children(&inner, path),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn clear_children(&self, dir: &OwnedFd, path: &[u8]) -> Applied {
        let mut names = Vec::new();
        for child in Dir::read_from(dir)? {
            let child = child?;
            let name = child.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
        }
        for name in names {
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            self.clear(dir.as_fd(), &name, &child)?;
        }
        Ok(())
    }

    fn opaque(&mut self, parent: &[&[u8]]) -> Applied {
        match self.onto {
            Onto::Bottom => Ok(()),
            Onto::Nothing => {
                self.enter(parent)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = openat(self.walker.here(), ".", flags, Mode::empty())?;
                fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())?;
                Ok(drop_whiteouts(&fd)?)
            }
            Onto::Parent => {
                match self.walker.enter(parent, Missing::Fail) {
                    Ok(()) => {}
                    Err(Refusal::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(());
                    }
                    Err(other) => return Err(other),
                }
                let path = self.walker.real_path();
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = openat(self.walker.here(), ".", flags, Mode::empty())?;
                self.clear_children(&fd, &path)?;
                self.walker.forget();
                Ok(())
            }
        }
    }
}

/// Whether a directory, of which we have a path, is marked opaque.
fn is_opaque(dir: BorrowedFd<'_>) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(dir, c".", flags, Mode::empty())?;
    let mut value = [0u8; 4];
    Ok(matches!(rustix::fs::fgetxattr(&fd, OPAQUE, &mut value), Ok(1..) if value[0] == b'y'))
}

/// Removes the marks of removed files from a directory that has become opaque.
fn drop_whiteouts(dir: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let stat = statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
        if is_whiteout(&stat) {
            unlinkat(dir, entry.file_name(), AtFlags::empty())?;
        }
    }
    Ok(())
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn own(dir: BorrowedFd<'_>, base: &[u8], entry: &Entry) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    Ok(chownat(
        dir,
        base,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Sets access and modification time of `name`, of the link itself if it is one.
pub(crate) fn set_times(dir: BorrowedFd<'_>, name: &[u8], mtime: (i64, u32)) -> io::Result<()> {
    Ok(utimensat(
        dir,
        name,
        &times(mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn set_xattrs(
    entry: &Entry,
    set: impl Fn(&std::ffi::CStr, &[u8]) -> Result<(), Errno>,
) -> io::Result<()> {
    for (name, value) in &entry.xattrs {
        // overlayfs' own marks are ours to set: in a layer they could point
        // its directories elsewhere.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let text = CString::new(name.as_slice()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "an xattr's name has a NUL byte")
        })?;
        match set(&text, value) {
            Ok(()) => {}
            // A file system or host that has no such attributes; containerd
            // and tar go on as well. File capabilities must not get lost.
            Err(Errno::NOTSUP | Errno::PERM) if name != b"security.capability" => {
                tracing::debug!(name = %OsStr::from_bytes(name).display(), "xattr not supported here");
            }
            Err(error) => {
                let name = String::from_utf8_lossy(name).into_owned();
                let error = io::Error::from(error);
                return Err(io::Error::new(
                    error.kind(),
                    format!("setting its xattr {name:?}: {error}"),
                ));
            }
        }
    }
    Ok(())
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn write_sparse(
    fd: &OwnedFd,
    pieces: &[(u64, u64)],
    size: u64,
    data: DataSource<'_>,
) -> io::Result<()> {
    ftruncate(fd, size)?;
    let mut pieces = pieces.iter().copied().filter(|(_, length)| *length > 0);
    let (mut at, mut left) = pieces.next().unwrap_or((0, 0));
    data(&mut |mut block| {
        while !block.is_empty() {
            if left == 0 {
                (at, left) = pieces.next().ok_or(io::ErrorKind::InvalidData)?;
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

/// The bits that the process takes from modes of files it makes.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        // umask(2) can only be read by changing it, for all threads.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("Umask:"))
            .and_then(|text| u32::from_str_radix(text.trim(), 8).ok())
            .unwrap_or(0o777)
    })
}
