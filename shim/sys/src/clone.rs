//! New processes by `clone3`, without `exec`: the built-in runtime forks the shim and goes on in the child.
//!
//! A raw `clone3` copies the memory of a process but none of its other threads, so a lock that another thread held
//! stays locked for ever in the child. [`spawn`] therefore clones directly only when the caller has one thread; with
//! more it goes through the C library's `fork`, which takes the allocator's locks first, and clones from there.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, PidfdFlags};

/// `libc`'s constant of this name has too narrow a type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What is special about a new process.
#[derive(Debug, Default, Clone, Copy)]
pub struct CloneArgs<'a> {
    /// `CLONE_NEW*` flags of the namespaces to make.
    pub namespaces: u64,
    /// A cgroup v2 directory to be born in (`CLONE_INTO_CGROUP`), so that nothing has to be moved.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Go through an intermediate process, which runs the `before` function of [`spawn`].
    pub staged: bool,
}

/// A process made by [`spawn`]; it is the caller's child and the caller has to wait for it.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// Runs `body` in a new process, which ends with the number that `body` returns.
///
/// With `args.staged` (or when the caller has several threads) an intermediate process runs `before` first, for what
/// only takes effect on children of the process that does it, and the new process is made from there. It is the
/// caller's child either way. Neither function returns into the caller's stack. `before` gets the number of a
/// descriptor that it must leave open. A caller with one thread makes the intermediate process in `args.cgroup`
/// already, so that `before` may close that.
///
/// # Errors
/// What `clone3`, `fork` or `before` failed with.
pub fn spawn(
    args: &CloneArgs<'_>,
    before: impl FnOnce(RawFd) -> io::Result<()>,
    body: impl FnOnce() -> i32,
) -> io::Result<Child> {
    let single = threads()? == 1;
    if args.staged || !single {
        return staged(args, single, before, body);
    }
    match clone3(args, libc::SIGCHLD as u64, 0)? {
        Cloned::Child => run(body),
        Cloned::Parent(child) => Ok(child),
    }
}

enum Cloned {
    Child,
    Parent(Child),
}

/// How many threads the calling process has: `/proc/self/task` has one link for each, and two of its own.
fn threads() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/self/task")?
        .nlink()
        .saturating_sub(2))
}

fn clone3(args: &CloneArgs<'_>, exit_signal: u64, extra: u64) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut raw: libc::clone_args = unsafe { std::mem::zeroed() };
    raw.flags = args.namespaces | libc::CLONE_PIDFD as u64 | extra;
    raw.pidfd = (&raw mut pidfd) as u64;
    raw.exit_signal = exit_signal;
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child works on a copy of this memory and this stack; `raw` and `pidfd` outlive the
    // call. The caller has one thread (`spawn` checked, or it is a fresh fork), so no lock is left locked in the copy.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut raw,
            size_of::<libc::clone_args>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: the kernel put a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::other("clone3 gave no process id"))?;
            Ok(Cloned::Parent(Child { pid, pidfd }))
        }
    }
}

/// By way of an intermediate process; see [`spawn`]. It reports the new pid, or an errno as a negative number.
fn staged(
    args: &CloneArgs<'_>,
    single: bool,
    before: impl FnOnce(RawFd) -> io::Result<()>,
    body: impl FnOnce() -> i32,
) -> io::Result<Child> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let middle = if single {
        let middle = CloneArgs {
            cgroup: args.cgroup,
            ..CloneArgs::default()
        };
        match clone3(&middle, libc::SIGCHLD as u64, 0)? {
            Cloned::Child => {
                let args = CloneArgs {
                    cgroup: None,
                    ..*args
                };
                intermediate(&args, before, body, &write)
            }
            Cloned::Parent(middle) => middle.pid,
        }
    } else {
        // SAFETY: the child only runs `intermediate`, which never returns; `fork` leaves the C library usable in it.
        match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => intermediate(args, before, body, &write),
            pid => Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork gave no process id"))?,
        }
    };
    drop(write);
    let mut answer = [0u8; 4];
    let count = rustix::io::retry_on_intr(|| rustix::io::read(&read, &mut answer));
    let _ = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(middle), rustix::process::WaitOptions::empty())
    });
    if count? != answer.len() {
        return Err(io::Error::other("the intermediate process died"));
    }
    let answer = i32::from_ne_bytes(answer);
    match Pid::from_raw(answer) {
        Some(pid) if answer > 0 => {
            // Nobody else waits for our child, so its number can't have been given to another process yet.
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Child { pid, pidfd })
        }
        _ => Err(io::Error::from_raw_os_error(-answer)),
    }
}

fn intermediate(
    args: &CloneArgs<'_>,
    before: impl FnOnce(RawFd) -> io::Result<()>,
    body: impl FnOnce() -> i32,
    report: &OwnedFd,
) -> ! {
    let before = std::panic::AssertUnwindSafe(|| before(report.as_raw_fd()));
    let before =
        std::panic::catch_unwind(before).unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    let made = before.and_then(|()| clone3(args, 0, libc::CLONE_PARENT as u64));
    let answer = match made {
        Ok(Cloned::Child) => run(body),
        Ok(Cloned::Parent(child)) => child.pid.as_raw_nonzero().get(),
        Err(e) => -e.raw_os_error().unwrap_or(libc::EIO),
    };
    let _ = rustix::io::write(report, &answer.to_ne_bytes());
    end(0)
}

/// A panic must not unwind into the copy of the caller's stack: it ends the process with 70 (`EX_SOFTWARE`).
fn run(body: impl FnOnce() -> i32) -> ! {
    end(std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(70))
}

/// Ends the process at once: no destructors or exit handlers of the process that it is a copy of.
fn end(code: i32) -> ! {
    // SAFETY: `_exit` is always allowed.
    unsafe { libc::_exit(code) }
}
