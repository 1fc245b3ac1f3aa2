//! Finds what differs between a snapshot's tree and its parent's.
//!
//! Of an overlay only the snapshot's own directory is walked, where whiteouts
//! and opaque directories tell what is gone; a plain copy is walked whole,
//! beside its parent. Directories are opened one at a time and by path, so
//! depth costs neither descriptors nor much stack; the kernel keeps every
//! path beneath its tree and follows no link.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, statat},
    io::Errno,
};

use super::ChangeKind;
use crate::unpack::walk::OPAQUE;

/// Directories within each other that are walked.
const MAX_DEPTH: usize = 2048;

/// The two trees.
pub(super) struct Trees {
    /// The snapshot's own directory.
    pub(super) upper: OwnedFd,
    /// The parent's merged tree.
    pub(super) lower: Option<OwnedFd>,
    /// `upper` is a whole tree of its own, not a layer on `lower`.
    pub(super) whole: bool,
}

/// One difference.
#[derive(Debug)]
pub(super) struct Found {
    /// Path without a leading slash.
    pub(super) path: PathBuf,
    pub(super) kind: ChangeKind,
    /// What is there now; `None` when it is gone.
    pub(super) stat: Option<Stat>,
    /// For a directory in the place of another: nothing of that is seen in it.
    pub(super) opaque: bool,
    /// It lies in an opaque directory, at any depth.
    pub(super) covered: bool,
}

/// Takes the differences one by one, a directory before what is in it.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&Found) -> io::Result<()>;

/// Compares the trees. `Modified` directories are given when they differ, or
/// when something in them was added or is gone.
pub(super) fn compare(trees: &Trees, visit: Visit<'_>) -> io::Result<()> {
    let mut walk = Walk {
        trees,
        visit,
        pending: Vec::new(),
    };
    walk.directory(
        Path::new(""),
        Below {
            there: trees.lower.is_some(),
            covered: false,
        },
        0,
    )
}

struct Walk<'a, 'b> {
    trees: &'a Trees,
    visit: Visit<'b>,
    /// Directories on the way here, each with whether it was given already.
    pending: Vec<(Found, bool)>,
}

/// The parent's directory under one of the snapshot's.
#[derive(Clone, Copy)]
struct Below {
    /// There is one.
    there: bool,
    /// Nothing of it is seen, because of an opaque directory here or above.
    covered: bool,
}

/// What a name is in the two directories.
#[derive(Default)]
struct Pair {
    upper: Option<Stat>,
    lower: Option<Stat>,
}

impl Walk<'_, '_> {
    fn directory(&mut self, path: &Path, below: Below, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!(
                "{} lies deeper than {MAX_DEPTH} directories",
                path.display()
            )));
        }
        for (name, pair) in self.pairs(path, below)? {
            let place = path.join(&name);
            match pair {
                Pair {
                    upper: None,
                    lower: Some(_),
                } => self.give(place, ChangeKind::Deleted, None, below)?,
                Pair {
                    upper: None,
                    lower: None,
                } => {}
                Pair {
                    upper: Some(stat),
                    lower,
                } if is_dir(&stat) => {
                    self.subdirectory(place, stat, lower, below, depth)?;
                }
                Pair {
                    upper: Some(stat),
                    lower: None,
                } => self.give(place, ChangeKind::Added, Some(stat), below)?,
                Pair {
                    upper: Some(stat),
                    lower: Some(old),
                } => {
                    if !(self.trees.whole && same(&stat, &old) && self.same_link(&place)) {
                        self.give(place, ChangeKind::Modified, Some(stat), below)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        place: PathBuf,
        stat: Stat,
        lower: Option<Stat>,
        above: Below,
        depth: usize,
    ) -> io::Result<()> {
        let there = lower.as_ref().is_some_and(is_dir);
        let changed = lower.as_ref().is_none_or(|old| !same(&stat, old));
        let kind = if lower.is_some() {
            ChangeKind::Modified
        } else {
            ChangeKind::Added
        };
        let marked = lower.is_some() && !self.trees.whole && self.is_opaque(&place)?;
        let opaque = !above.covered && (marked || lower.is_some() && !there);
        let found = Found {
            path: place.clone(),
            kind,
            stat: Some(stat),
            opaque,
            covered: above.covered,
        };
        let given = changed || opaque;
        if given {
            self.give_parent()?;
            (self.visit)(&found)?;
        }
        self.pending.push((found, given));
        let covered = above.covered || marked;
        self.directory(&place, Below { there, covered }, depth + 1)?;
        self.pending.pop();
        Ok(())
    }

    /// Gives one difference, and before it the directory that it is in.
    fn give(
        &mut self,
        path: PathBuf,
        kind: ChangeKind,
        stat: Option<Stat>,
        above: Below,
    ) -> io::Result<()> {
        self.give_parent()?;
        (self.visit)(&Found {
            path,
            kind,
            stat,
            opaque: false,
            covered: above.covered,
        })
    }

    fn give_parent(&mut self) -> io::Result<()> {
        // Those further up too: an archive is easier to read with them, and
        // extractors need not invent directories.
        for (directory, given) in &mut self.pending {
            if !*given {
                *given = true;
                (self.visit)(directory)?;
            }
        }
        Ok(())
    }

    /// The names in both directories, in order. A name that the parent has
    /// and that is neither hidden nor in the snapshot's own directory is in no
    /// pair: nothing happened to it.
    fn pairs(&self, path: &Path, below: Below) -> io::Result<BTreeMap<OsString, Pair>> {
        let upper = open(self.trees.upper.as_fd(), path)?;
        let mut pairs: BTreeMap<OsString, Pair> = BTreeMap::new();
        for name in names(&upper)? {
            let stat = statat(&upper, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let upper = (!is_whiteout(&stat)).then_some(stat);
            pairs.insert(name, Pair { upper, lower: None });
        }
        let Some(tree) = self.trees.lower.as_ref().filter(|_| below.there) else {
            return Ok(pairs);
        };
        let lower = open(tree.as_fd(), path)?;
        if self.trees.whole || below.covered {
            for name in names(&lower)? {
                pairs.entry(name).or_default();
            }
        }
        for (name, pair) in &mut pairs {
            pair.lower = match statat(&lower, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(pairs)
    }

    fn is_opaque(&self, path: &Path) -> io::Result<bool> {
        Ok(is_marked_opaque(&open(self.trees.upper.as_fd(), path)?))
    }

    /// Of two symbolic links with the same facts: whether they lead to the
    /// same place.
    fn same_link(&self, path: &Path) -> bool {
        let target = |tree: BorrowedFd<'_>| {
            let dir = open(tree, path.parent().unwrap_or(Path::new(""))).ok()?;
            rustix::fs::readlinkat(dir, path.file_name()?, Vec::new()).ok()
        };
        match &self.trees.lower {
            Some(lower) => target(self.trees.upper.as_fd()) == target(lower.as_fd()),
            None => false,
        }
    }
}

/// Opens a directory of a tree.
pub(super) fn open(tree: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(tree, path, flags, Mode::empty(), resolve)?)
}

fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
        if name != OsStr::new(".") && name != OsStr::new("..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_marked_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0u8; 4];
    matches!(rustix::fs::fgetxattr(dir, OPAQUE, &mut value), Ok(1..) if value[0] == b'y')
}

/// Whether two files of one kind look the same from outside. Contents are
/// told by time and size, as rsync and containerd do it.
fn same(new: &Stat, old: &Stat) -> bool {
    let facts = |stat: &Stat| {
        let size = if is_dir(stat) { 0 } else { stat.st_size };
        (
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            stat.st_rdev,
            size,
            stat.st_mtime,
            stat.st_mtime_nsec,
        )
    };
    facts(new) == facts(old)
}

/// The name that hides `path` in a layer (OCI image spec, layer.md).
pub(super) fn whiteout_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(".wh.");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// The name that makes the directory `path` opaque in a layer.
pub(super) fn opaque_in(path: &Path) -> PathBuf {
    path.join(OsStr::from_bytes(b".wh..wh..opq"))
}
