//! A process known by its descriptor, so that its number can't come to mean
//! another one.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    fd: OwnedFd,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))?;
        // Non-blocking as descriptors for epoll should be; Linux 5.10.
        let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        Ok(Self { fd })
    }

    /// Sends KILL.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(
            &self.fd,
            rustix::event::PollFlags::IN,
        )];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(0))
    }

    /// Waits until it has ended.
    pub(crate) async fn gone(&self) -> io::Result<()> {
        let fd = davit_sys::ready::watch(self.fd.try_clone()?, Interest::READABLE)?;
        let _ready = fd.readable().await?;
        Ok(())
    }

    /// Waits until it has ended, so long at most; true when it has.
    pub(crate) async fn gone_within(&self, limit: Duration) -> bool {
        matches!(tokio::time::timeout(limit, self.gone()).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_process_is_seen_to_end() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(process.is_alive());
        assert!(!process.gone_within(Duration::from_millis(1)).await);
        process.kill().unwrap();
        assert!(process.gone_within(Duration::from_secs(10)).await);
        assert!(!process.is_alive());
        child.wait().unwrap();
        process.kill().unwrap();
    }
}
