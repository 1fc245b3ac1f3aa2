//! What is on disk of a container, so that another process can clean up after a dead shim:
//! `<root>/<id>/state.json`. It is written before anything is made, and again when there is a process.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{Error, Kind, Result};

/// Everything that has to be undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Saved {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) cgroup: Cgroup,
    /// `None` until there is one.
    pub(super) init: Option<Identity>,
    /// Whether the spec has hooks for later, so that it need not be read again to find out.
    #[serde(default)]
    pub(super) has_late_hooks: bool,
}

/// A process that can't be taken for another one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    pub(super) pid: i32,
    /// In clock ticks since boot.
    pub(super) started: u64,
}

impl Identity {
    /// `None` when there is no such process.
    pub(super) fn of(pid: i32) -> Option<Identity> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may hold anything.
        let after_name = stat.rsplit_once(')')?.1;
        let started = after_name.split_whitespace().nth(19)?.parse().ok()?;
        Some(Identity { pid, started })
    }

    /// Whether it still runs; a zombie does not.
    pub(super) fn is_alive(&self) -> bool {
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
            stat.rsplit_once(')')?
                .1
                .split_whitespace()
                .next()
                .map(str::to_owned)
        };
        Identity::of(self.pid) == Some(*self)
            && !matches!(state().as_deref(), Some("Z" | "X") | None)
    }
}

/// The directory of `id` below `root`.
///
/// # Errors
/// An id that is not one path component.
pub(super) fn directory(root: &Path, id: &str) -> Result<PathBuf> {
    let bad = id.is_empty() || id == "." || id == ".." || id.contains(['/', '\0']);
    if bad {
        Err(Error::new(
            Kind::InvalidArgument,
            format!("invalid container id {id:?}"),
        ))
    } else {
        Ok(root.join(id))
    }
}

impl Saved {
    /// Makes the directory and the first state in it.
    ///
    /// # Errors
    /// Already exists.
    pub(super) fn claim(&self, root: &Path) -> Result<()> {
        let directory = directory(root, &self.id)?;
        std::fs::create_dir_all(root).map_err(|e| Error::because(root.display(), e))?;
        match std::fs::create_dir(&directory) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(Error::new(
                Kind::AlreadyExists,
                format!("container with id {} already exists", self.id),
            )),
            other => other.map_err(|e| Error::because(directory.display(), e)),
        }?;
        self.save(root)
    }

    /// Written whole or not at all.
    pub(super) fn save(&self, root: &Path) -> Result<()> {
        let directory = directory(root, &self.id)?;
        let (path, new) = (
            directory.join("state.json"),
            directory.join("state.json.new"),
        );
        let json = serde_json::to_vec(self).map_err(|e| Error::because("encoding the state", e))?;
        std::fs::write(&new, json)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|e| Error::because(path.display(), e))
    }

    /// `None` when there is no such container.
    ///
    /// # Errors
    /// A file that can't be read.
    pub(super) fn load(root: &Path, id: &str) -> Result<Option<Saved>> {
        let path = directory(root, id)?.join("state.json");
        match std::fs::read(&path) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(e) => Err(Error::because(path.display(), e)),
            Ok(json) => serde_json::from_slice(&json)
                .map(Some)
                .map_err(|e| Error::because(path.display(), e)),
        }
    }

    pub(super) fn remove(root: &Path, id: &str) -> Result<()> {
        let directory = directory(root, id)?;
        // The usual case first, which needs no listing.
        let _ = std::fs::remove_file(directory.join("state.json"));
        if std::fs::remove_dir(&directory).is_ok() {
            return Ok(());
        }
        match std::fs::remove_dir_all(&directory) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Error::because(directory.display(), e))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let init = Identity::of(std::process::id().cast_signed());
        let saved = Saved {
            id: "a".into(),
            bundle: "/b".into(),
            cgroup: Cgroup::default(),
            init,
            has_late_hooks: false,
        };
        saved.claim(dir.path()).unwrap();
        assert_eq!(
            saved.claim(dir.path()).unwrap_err().kind,
            Kind::AlreadyExists
        );
        let read = Saved::load(dir.path(), "a").unwrap().unwrap();
        assert!(read.init.unwrap().is_alive());
        Saved::remove(dir.path(), "a").unwrap();
        assert!(Saved::load(dir.path(), "a").unwrap().is_none());
    }

    #[test]
    fn ids_are_one_component() {
        for id in ["", ".", "..", "a/b", "/"] {
            assert!(directory(Path::new("/r"), id).is_err(), "{id}");
        }
    }
}
