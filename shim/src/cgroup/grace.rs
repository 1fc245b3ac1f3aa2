//! The grace period that moving a process into a cgroup costs, paid ahead.
//!
//! A write of a process to `cgroup.procs` takes a lock of the whole kernel for writing, and the first to do so after a
//! while waits for an RCU grace period: 8 to 15 ms. Those that follow within such a period pass at once. A runtime of
//! its own binary moves the container's init that way some 15 ms after it was started, so a small process opens the
//! door meanwhile, and keeps it open until the container is there.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use davit_sys::child;
use davit_sys::clone::{self, Child, CloneArgs};
use rustix::process::{Signal, pidfd_send_signal};

use super::{Cgroup, Layout, Result};

/// Shorter than the shortest grace period.
const AGAIN: Duration = Duration::from_millis(3);
/// With [`AGAIN`], longer than any runtime takes until it has moved the init.
const TIMES: u32 = 100;

/// Holds the lock cheap for others until it is dropped, 0.3 s at most.
#[derive(Debug)]
pub(crate) struct GracePeriod(Child);

impl GracePeriod {
    /// Starts the process, which moves itself again and again to where it is.
    ///
    /// # Errors
    /// No cgroup to be found, or no process to be had. It is a shortcut: callers go on without.
    pub(crate) fn begin() -> Result<GracePeriod> {
        let own = std::process::id().cast_signed();
        let cgroup = Cgroup::of_process(&Layout::detect()?, own)?;
        let directory = match (cgroup.v1.first(), &cgroup.v2) {
            (Some(member), _) => &member.directory,
            (None, Some(directory)) => directory,
            (None, None) => {
                return Err(super::Error::open(
                    Path::new("/proc/self/cgroup"),
                    rustix::io::Errno::NOENT.into(),
                ));
            }
        };
        let procs = directory.join("cgroup.procs");
        let child = clone::spawn(
            &CloneArgs::default(),
            |_| Ok(()),
            || {
                // Streams of the container among them, which must not look open when they are not.
                if child::close_all_but(&[]).is_err() {
                    return 1;
                }
                let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(&procs) else {
                    return 1;
                };
                for _ in 0..TIMES {
                    if file.write_all(b"0").is_err() {
                        return 1;
                    }
                    std::thread::sleep(AGAIN);
                }
                0
            },
        );
        child
            .map(GracePeriod)
            .map_err(|error| super::Error::open(directory, error))
    }
}

impl Drop for GracePeriod {
    fn drop(&mut self) {
        // It may have ended; the shim's reaper waits for all children.
        let _ = pidfd_send_signal(&self.0.pidfd, Signal::KILL);
    }
}
