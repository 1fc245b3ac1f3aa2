//! The files beside sled: `state.json`, what has to be known even when sled
//! can't be read, and `making`, which is there while a store is being made.

use crate::{Condition, Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Event numbers that are set aside at a time.
const RESERVE: u64 = 1 << 20;

/// The state file and what it says.
pub(crate) struct StateFile {
    path: PathBuf,
    state: State,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// Boot in which the store was last open (the kernel's boot id).
    pub(crate) boot_id: String,
    /// Whether it was closed as it should be.
    pub(crate) clean: bool,
    /// No event has a higher number than this. After a power cut, and when
    /// sled is lost, numbers go on above it.
    pub(crate) event_ceiling: u64,
    /// Commits that the store had when this was written; it never has less.
    pub(crate) commits: u64,
}

impl StateFile {
    /// Reads the file; `None` when it is missing or damaged.
    pub(crate) fn read(dir: &Path) -> Option<State> {
        let text = fs::read(dir.join("state.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes `state` as what is so from now on.
    pub(crate) fn create(dir: &Path, state: State) -> Result<Self> {
        let file = Self {
            path: dir.join("state.json"),
            state,
        };
        file.write()?;
        Ok(file)
    }

    pub(crate) fn event_ceiling(&self) -> u64 {
        self.state.event_ceiling
    }

    /// Sets numbers aside so that `number` is below the ceiling.
    pub(crate) fn raise_event_ceiling(&mut self, number: u64) -> Result<()> {
        self.state.event_ceiling = number.saturating_add(RESERVE);
        self.write()
    }

    /// Notes that the store was closed after so many commits.
    pub(crate) fn mark_clean(&mut self, commits: u64) -> Result<()> {
        self.state.clean = true;
        self.state.commits = commits;
        self.write()
    }

    fn write(&self) -> Result<()> {
        write_json(&self.path, &self.state)
    }
}

/// A store that is not whole yet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Making {
    /// The damaged one that it replaces.
    pub(crate) instead_of: Option<Moved>,
}

/// A damaged store that is moved aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Moved {
    /// Where it goes.
    pub(crate) to: PathBuf,
    /// What was wrong.
    pub(crate) reason: String,
}

impl Making {
    /// What `condition` says of a store that is being made.
    pub(crate) fn of(condition: &Condition) -> Self {
        let instead_of = match condition {
            Condition::Rebuilt { moved_to, reason } => Some(Moved {
                to: moved_to.clone(),
                reason: reason.clone(),
            }),
            Condition::Fresh | Condition::Existing => None,
        };
        Self { instead_of }
    }

    /// What is being made in `dir`; `None` when nothing is.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        match fs::read(dir.join("making")) {
            // It is replaced as a whole, so it reads well or is no work of ours.
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("reading {:?}", dir.join("making")), e)),
        }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join("making"), self)
    }

    pub(crate) fn remove(dir: &Path) -> Result<()> {
        let path = dir.join("making");
        fs::remove_file(&path).map_err(|e| Error::io(format!("removing {path:?}"), e))?;
        sync_dir(dir)
    }
}

/// Replaces the file `path` by `value`, so that a crash leaves the old or the
/// new one.
fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let failed = |what: &str, e| Error::io(format!("{what} {path:?}"), e);
    let text = serde_json::to_vec(value)
        .map_err(|e| Error::internal(format!("encoding {path:?}")).with_source(e))?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).map_err(|e| failed("making", e))?;
    file.write_all(&text).map_err(|e| failed("writing", e))?;
    file.sync_all().map_err(|e| failed("syncing", e))?;
    fs::rename(&temporary, path).map_err(|e| failed("replacing", e))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in `dir` survive a power cut.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| Error::io(format!("syncing the directory {dir:?}"), e))
}

/// The kernel's id of this boot; empty when it has none.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
