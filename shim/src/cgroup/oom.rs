//! Out-of-memory kills: how many there were, and a descriptor that tells of new ones.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use super::{Cgroup, Error, Result, read_if_there, write};

/// Becomes readable when the cgroup's memory events change (an OOM, also the cgroup's removal). After
/// [`OomWatch::drain`] compare [`Cgroup::oom_kills`] with what it was.
#[derive(Debug)]
pub(crate) struct OomWatch {
    events: OwnedFd,
    /// v1 forgets the registration when this is closed.
    _control: Option<File>,
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl OomWatch {
    /// Empties the descriptor, which does not block.
    pub(crate) fn drain(&self) {
        let mut buffer = [0u8; 512];
        while rustix::io::read(&self.events, &mut buffer).is_ok_and(|n| n > 0) {}
    }
}

impl Cgroup {
    /// How many processes the kernel has killed here for lack of memory. 0 when it does not count.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(path) = self.oom_file() else {
            return 0;
        };
        let text = read_if_there(&path).ok().flatten().unwrap_or_default();
        let count = text
            .lines()
            .find_map(|l| l.strip_prefix("oom_kill "))
            .and_then(|n| n.trim().parse().ok());
        count.unwrap_or(0)
    }

    /// A watch for out-of-memory kills; `None` on a host without the memory controller.
    ///
    /// # Errors
    /// The cgroup is gone, or the kernel is out of watches.
    pub(crate) fn oom_watch(&self) -> Result<Option<OomWatch>> {
        let Some(path) = self.oom_file() else {
            return Ok(None);
        };
        if self.is_pure_v2() {
            watch_v2(&path).map(Some)
        } else {
            watch_v1(&path).map(Some)
        }
    }

    fn oom_file(&self) -> Option<PathBuf> {
        if self.is_pure_v2() {
            return self.v2.as_ref().map(|d| d.join("memory.events"));
        }
        self.v1_file("memory", "memory.oom_control")
    }
}

fn watch_v1(path: &Path) -> Result<OomWatch> {
    let fail = |e: std::io::Error| Error::Oom {
        path: path.to_owned(),
        source: e,
    };
    let events =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| fail(e.into()))?;
    let control = File::open(path).map_err(fail)?;
    let registration = format!("{} {}", events.as_raw_fd(), control.as_raw_fd());
    write(&path.with_file_name("cgroup.event_control"), &registration)?;
    Ok(OomWatch {
        events,
        _control: Some(control),
    })
}

fn watch_v2(path: &Path) -> Result<OomWatch> {
    let fail = |e: rustix::io::Errno| Error::Oom {
        path: path.to_owned(),
        source: e.into(),
    };
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .map_err(fail)?;
    inotify::add_watch(&events, path, inotify::WatchFlags::MODIFY).map_err(fail)?;
    Ok(OomWatch {
        events,
        _control: None,
    })
}
