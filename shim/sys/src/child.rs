//! What a process does to itself between `clone` and `exec`, where nix and rustix have no safe call for it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

fn check(answer: impl Into<i64>) -> io::Result<()> {
    if answer.into() < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Marks all descriptors from `first` on close-on-exec.
///
/// # Errors
/// `ENOSYS` before Linux 5.11.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: only sets a flag on descriptors; none is closed.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
}

/// Closes all descriptors above 2 but those in `keep`.
///
/// Only for a process that [`crate::clone::spawn`] made and that will exec or exit without touching the descriptors of
/// the process that it is a copy of: their owners here are never dropped, because `spawn` never unwinds.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first: RawFd = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd.unsigned_abs() - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, libc::c_uint::MAX)
}

fn close_range(first: RawFd, last: libc::c_uint) -> io::Result<()> {
    // SAFETY: the process owns all of its descriptors; `close_all_but` says who may call it.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Gives every signal its default action and blocks none, as a new program expects it.
///
/// # Errors
/// None that a kernel gives in practice.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP | 32 | 33) {
            continue;
        }
        // SAFETY: SIG_DFL runs none of our code.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero set is made valid by sigemptyset, and outlives the calls.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null_mut(),
        ))
    }
}

/// Joins a new session keyring, so that the keys of the caller are out of reach.
///
/// # Errors
/// `ENOSYS` without keyrings, `EDQUOT` when the user has too many, `EPERM` under a filter.
pub fn join_session_keyring(name: &CStr) -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: `name` is a C string that outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            name.as_ptr(),
            0,
            0,
            0,
        )
    })
}

/// Sets the execution domain (`personality(2)`).
///
/// # Errors
/// `EINVAL` for one that the kernel does not know.
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: takes a number.
    check(unsafe { libc::personality(domain) })
}

/// Sets the I/O scheduling class and priority of the calling thread.
///
/// # Errors
/// `EPERM` for the real-time class without the capability, `EINVAL` for numbers out of range.
pub fn set_io_priority(class: u32, priority: u32) -> io::Result<()> {
    const WHO_PROCESS: libc::c_long = 1;
    // SAFETY: takes numbers.
    check(unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            WHO_PROCESS,
            0,
            (class << 13) | priority,
        )
    })
}

/// Scheduling parameters as in `struct sched_attr`; times in nanoseconds.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct SchedAttr {
    /// Filled in by [`set_scheduler`].
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets the scheduling policy of the calling thread.
///
/// # Errors
/// `EPERM` for a policy that needs CAP_SYS_NICE, `EINVAL` for numbers out of range.
pub fn set_scheduler(attr: SchedAttr) -> io::Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..attr
    };
    // SAFETY: `attr` has the size that it says and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })
}

/// Brings the loopback interface of the calling process's network namespace up.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN over the namespace.
pub fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `request` is a valid ifreq for SIOCSIFFLAGS and outlives the call.
    check(unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw mut request,
        )
    })
}

/// Puts copies of `fds` at the numbers from 3 on, for the program to inherit. What was at those numbers is gone.
///
/// Only for a process that [`crate::clone::spawn`] made, as [`close_all_but`].
///
/// # Errors
/// `EMFILE` when there are too many.
pub fn place_from_three(fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let first_free = 3 + i32::try_from(fds.len()).map_err(io::Error::other)?;
    let mut high = Vec::with_capacity(fds.len());
    for fd in fds {
        // SAFETY: duplicates a descriptor that is open; the copy is above all targets.
        let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first_free) };
        check(copy)?;
        high.push(copy);
    }
    for (number, copy) in (3..).zip(high) {
        // SAFETY: `copy` is open; the target number belongs to this process (see above).
        check(unsafe { libc::dup2(copy, number) })?;
    }
    Ok(())
}
