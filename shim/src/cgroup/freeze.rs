//! Freezing and thawing all processes of a cgroup, and killing them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Cgroup, Error, Result, read_if_there, write};

const PATIENCE: Duration = Duration::from_secs(2);

enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

impl Cgroup {
    /// Freezes all processes and waits until they are. A cgroup with a process that can't be frozen in two seconds is
    /// thawed again.
    ///
    /// # Errors
    /// No freezer on this host, or it takes too long.
    pub(crate) fn freeze(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let freezer = self.freezer()?;
        while !freezer.freeze_once()? {
            if Instant::now() > deadline {
                freezer.thaw()?;
                return Err(Error::NotFrozen(freezer.path().to_owned()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets all processes run again.
    ///
    /// # Errors
    /// No freezer on this host, or the cgroup is gone.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.freezer()?.thaw()
    }

    /// Whether the cgroup is frozen by [`Cgroup::freeze`] (not by an ancestor).
    pub(crate) fn is_frozen(&self) -> bool {
        let Ok(freezer) = self.freezer() else {
            return false;
        };
        let (path, frozen) = match &freezer {
            Freezer::V1(directory) => (directory.join("freezer.self_freezing"), "1"),
            Freezer::V2(directory) => (directory.join("cgroup.freeze"), "1"),
        };
        read_if_there(&path)
            .ok()
            .flatten()
            .is_some_and(|state| state.trim() == frozen)
    }

    /// Sends SIGKILL to every process inside and below, also to frozen ones.
    ///
    /// # Errors
    /// The list of processes can't be read.
    pub(crate) fn kill_all(&self) -> Result<()> {
        let at_once = self.v2.as_ref().map(|d| write(&d.join("cgroup.kill"), "1"));
        if !matches!(at_once, Some(Ok(()))) {
            for pid in self.processes()? {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
        // A process that v1 froze only dies once it runs again.
        if self.member("freezer").is_some() && self.is_frozen() {
            self.thaw()?;
        }
        Ok(())
    }

    fn freezer(&self) -> Result<Freezer> {
        if let Some(member) = self.member("freezer") {
            return Ok(Freezer::V1(member.directory.clone()));
        }
        self.v2.clone().map(Freezer::V2).ok_or(Error::NoFreezer)
    }
}

impl Freezer {
    fn path(&self) -> &Path {
        match self {
            Freezer::V1(path) | Freezer::V2(path) => path,
        }
    }

    /// Whether everybody is frozen by now.
    fn freeze_once(&self) -> Result<bool> {
        match self {
            Freezer::V1(directory) => {
                // Written again each time: a process forked while freezing needs another push.
                let state = directory.join("freezer.state");
                write(&state, "FROZEN")?;
                Ok(read_if_there(&state)?.is_some_and(|s| s.trim() == "FROZEN"))
            }
            Freezer::V2(directory) => {
                write(&directory.join("cgroup.freeze"), "1")?;
                let events = read_if_there(&directory.join("cgroup.events"))?.unwrap_or_default();
                Ok(events.lines().any(|l| l == "frozen 1"))
            }
        }
    }

    fn thaw(&self) -> Result<()> {
        match self {
            Freezer::V1(directory) => write(&directory.join("freezer.state"), "THAWED"),
            Freezer::V2(directory) => write(&directory.join("cgroup.freeze"), "0"),
        }
    }
}
