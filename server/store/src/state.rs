//! The file `state.json` beside sled: what has to be known even when sled
//! can't be read.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::Write,
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

    pub(crate) fn mark_clean(&mut self) -> Result<()> {
        self.state.clean = true;
        self.write()
    }

    fn write(&self) -> Result<()> {
        let path = &self.path;
        let failed = |what: &str, e| Error::io(format!("{what} {path:?}"), e);
        let text = serde_json::to_vec(&self.state)
            .map_err(|e| Error::internal("encoding state.json").with_source(e))?;
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary).map_err(|e| failed("making", e))?;
        file.write_all(&text).map_err(|e| failed("writing", e))?;
        file.sync_all().map_err(|e| failed("syncing", e))?;
        fs::rename(&temporary, path).map_err(|e| failed("replacing", e))?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))
    }
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
