//! Descriptors that the parent left at a known number, and children in a session of their own.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Takes ownership of the inherited descriptor `number` and marks it close-on-exec.
///
/// Call it once a number, at the start of `main`, before anything else opens files: it is meant for descriptors that
/// the parent put there by agreement (3 for a listening socket).
///
/// # Errors
/// `EBADF` when no such descriptor is open.
pub fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on an arbitrary number is harmless: it fails with EBADF when the number is not open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above; the descriptor was just seen open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and, by this function's contract, nothing else in the process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets the child inherit `fds` at the numbers given, in this order, whatever their numbers here are.
///
/// The descriptors must be close-on-exec in this process (all of Rust's are); they are duplicated onto their numbers
/// after the fork. Use numbers from 3 on.
pub fn inherit(command: &mut Command, fds: Vec<(OwnedFd, RawFd)>) {
    let highest = fds.iter().map(|(_, number)| *number).max().unwrap_or(2);
    let lift = move || -> io::Result<()> {
        // Two passes: first above every target, so that no target closes a source that is still to come.
        let mut lifted = [(-1, -1); MAX_INHERITED];
        for (slot, (fd, number)) in lifted.iter_mut().zip(&fds) {
            // SAFETY: async-signal-safe fcntl on descriptors that the closure owns.
            let high = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, highest + 1) };
            if high < 0 {
                return Err(io::Error::last_os_error());
            }
            *slot = (high, *number);
        }
        for (high, number) in lifted.into_iter().filter(|(high, _)| *high >= 0) {
            // SAFETY: dup2 is async-signal-safe; in this forked child nobody else owns the target number.
            if unsafe { libc::dup2(high, number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and only makes async-signal-safe calls; it allocates nothing.
    unsafe { command.pre_exec(lift) };
}

/// The most descriptors [`inherit`] passes on; more are ignored.
pub const MAX_INHERITED: usize = 64;

/// Makes the child a session leader, away from the spawner's terminal and process group.
pub fn new_session(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Has the kernel kill the child when the thread that spawns it ends.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: prctl and getppid are async-signal-safe and touch no memory of the parent.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the call took effect.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Sends any signal of the kernel's, also a real-time one, to one process.
///
/// # Errors
/// `EINVAL` for a pid that is not positive; else the kernel's.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        // To the kernel such a number would mean a whole group.
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: kill takes two numbers and touches no memory.
    if unsafe { libc::kill(pid, signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
