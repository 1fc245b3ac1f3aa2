//! A path as somebody names it, and the place in a container that it means.
//!
//! docker's rule: everything but the last component is resolved, links
//! included; the last one is taken as it is, unless a slash or "/." behind it
//! asks for the directory that it leads to.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use davit_store::{Error, Result};
use rustix::fs::{AtFlags, FileType, OFlags, Stat, statat};

use super::Root;
use crate::model::PathStat;

/// Most links that are followed for `link_target`, as in the kernel.
const MAX_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    /// Directory that holds it, or it is itself when `name` is ".".
    pub(super) parent: OwnedFd,
    /// Name in `parent`; "." when the path means a directory itself.
    pub(super) name: OsString,
    /// What archives and answers call it: the last component as given, "." for
    /// "dir/.", "/" for the root.
    pub(super) called: String,
    pub(super) stat: Stat,
}

impl Place {
    /// Finds `path` in `root`.
    ///
    /// # Errors
    /// `NotFound` in docker's words; `InvalidArgument` for paths that can't be.
    pub(super) fn find(root: &Root, path: &str) -> Result<Self> {
        let asked = Asked::parse(path)?;
        let refuse = |error: io::Error| root.refuse(path, error);
        let parent = root
            .open(&asked.dir, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(refuse)?;
        let stat = statat(parent.as_fd(), &asked.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| root.refuse(path, error.into()))?;
        Ok(Self {
            parent,
            name: asked.name,
            called: asked.called,
            stat,
        })
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// What is there, as davit.v1 tells it.
    pub(super) fn to_stat(&self, root: &Root, path: &str) -> Result<PathStat> {
        let link_target = match self.kind() {
            FileType::Symlink => resolve(root, path)?.to_string_lossy().into_owned(),
            _ => String::new(),
        };
        let nanos = i32::try_from(self.stat.st_mtime_nsec).unwrap_or(0);
        Ok(PathStat {
            name: self.called.clone(),
            size: u64::try_from(self.stat.st_size).unwrap_or(0),
            mode: self.stat.st_mode,
            mtime: jiff::Timestamp::new(self.stat.st_mtime, nanos)
                .unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            link_target,
        })
    }
}

/// A path, taken apart.
struct Asked {
    dir: PathBuf,
    name: OsString,
    called: String,
}

impl Asked {
    fn parse(path: &str) -> Result<Self> {
        if path.contains('\0') {
            return Err(Error::invalid("the path contains a NUL byte"));
        }
        if path.is_empty() {
            return Err(Error::invalid("the path is empty"));
        }
        let itself = path.ends_with('/') || path.ends_with("/.") || path == ".";
        let clean = clean(Path::new(path));
        let Some(last) = clean.file_name() else {
            return Ok(Self {
                dir: clean,
                name: ".".into(),
                called: "/".to_owned(),
            });
        };
        let called = if path.ends_with("/.") {
            ".".to_owned()
        } else {
            last.to_string_lossy().into_owned()
        };
        if itself {
            return Ok(Self {
                dir: clean,
                name: ".".into(),
                called,
            });
        }
        let name = last.to_owned();
        let dir = clean.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { dir, name, called })
    }
}

/// The path from the root on, "." and ".." taken out as Go's `path.Clean` does
/// it: by text, whatever links there are.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// `path` with all links resolved, as a path from the container's root; what
/// does not exist stays as it is written. Whoever opens it resolves again:
/// the container may change it meanwhile.
pub(super) fn resolve(root: &Root, path: &str) -> Result<PathBuf> {
    let mut resolved = PathBuf::from("/");
    let mut todo: Vec<OsString> = parts(&clean(Path::new(path)));
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == ".." {
            resolved.pop();
            continue;
        }
        resolved.push(&part);
        let Some(link) = read_link(root, &resolved) else {
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(root.refuse(path, rustix::io::Errno::LOOP.into()));
        }
        resolved.pop();
        if link.is_absolute() {
            resolved = PathBuf::from("/");
        }
        todo.extend(parts(&link));
    }
    Ok(resolved)
}

/// The components, last first.
fn parts(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some(OsStr::new("..").to_owned()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    parts.reverse();
    parts
}

fn read_link(root: &Root, path: &Path) -> Option<PathBuf> {
    let link = root.open(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
    let target = rustix::fs::readlinkat(link, "", Vec::new()).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
}
