//! The last stretch before a program runs, the same for init and for further processes: stdio, privileges, working
//! directory, and `execve`. Runs in the forked process.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use davit_sys::child;
use oci_spec::runtime::{
    IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, PosixRlimit, Process,
};
use rustix::fs::{Mode, fstat};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid};

use super::channel::{Channel, Message};
use super::lookup::{self, Home};
use super::namespaces::reason;
use super::privileges;
use super::procfs::{self, HostSecurity};
use super::seccomp::Filter;
use super::terminal;
use crate::error::{Error, Kind, Result};

/// What the process becomes.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) process: &'a Process,
    pub(super) filter: Option<&'a Filter>,
    pub(super) security: HostSecurity,
    /// Descriptors above 2 that the program gets.
    pub(super) preserved: usize,
}

/// stdin, stdout and stderr of the program.
#[derive(Debug)]
pub(super) enum Stdio<'a> {
    Fds([BorrowedFd<'a>; 3]),
    Terminal(OwnedFd),
}

impl Program<'_> {
    /// Turns the calling process into the program. `before_exec` waits for the start when there is one to wait for.
    ///
    /// # Errors
    /// What keeps the program from running, in runc's words.
    pub(super) fn run(
        &self,
        channel: &Channel,
        stdio: Stdio<'_>,
        before_exec: impl FnOnce() -> Result<()>,
    ) -> Result<Infallible> {
        let process = self.process;
        let user = process.user();
        limits(process, channel)?;
        scheduling(process)?;
        procfs::set_labels(process, &self.security)?;
        self.take_stdio(stdio)?;
        let environment = environment(process);
        let no_new_privileges = process.no_new_privileges().unwrap_or(false);
        if no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs"))?;
        } else {
            // Needs CAP_SYS_ADMIN, which may be gone later.
            self.load_filter(channel)?;
        }
        child::close_all_but(&self.kept(channel))
            .map_err(|e| Error::because("close descriptors", reason(&e)))?;
        privileges::drop_bounding(process)?;
        let early = enter_cwd(process.cwd());
        privileges::become_user(user)?;
        rustix::process::umask(Mode::from_raw_mode(user.umask().unwrap_or(0o022)));
        if early.is_err() {
            // Root may be kept out where the user is let in (NFS with root squash).
            enter_cwd(process.cwd())?;
        }
        check_cwd()?;
        privileges::set_capabilities(process, channel)?;
        let args = process.args().as_deref().unwrap_or_default();
        let name = args
            .first()
            .ok_or_else(|| Error::new(Kind::InvalidArgument, "process.args must not be empty"))?;
        let path = lookup::find(name, &environment)?;
        before_exec()?;
        if no_new_privileges {
            self.load_filter(channel)?;
        }
        let error = execute(&path, args, &environment);
        Err(Error::because(
            format!("exec {}", path.display()),
            reason(&error),
        ))
    }

    fn load_filter(&self, channel: &Channel) -> Result<()> {
        let Some(filter) = self.filter else {
            return Ok(());
        };
        match filter.load()? {
            Some(listener) => channel.send(&Message::Notify(listener)),
            None => Ok(()),
        }
    }

    /// Nothing of the shim's stays open for the program, nor for a working directory or program path that points
    /// into `/proc/self/fd` (CVE-2024-21626).
    fn kept(&self, channel: &Channel) -> Vec<i32> {
        let first_free = 3 + i32::try_from(self.preserved).unwrap_or(0);
        (3..first_free).chain([channel.raw()]).collect()
    }

    fn take_stdio(&self, stdio: Stdio<'_>) -> Result<()> {
        let dup = |fds: [BorrowedFd<'_>; 3]| -> rustix::io::Result<()> {
            rustix::stdio::dup2_stdin(fds[0])?;
            rustix::stdio::dup2_stdout(fds[1])?;
            rustix::stdio::dup2_stderr(fds[2])
        };
        match &stdio {
            Stdio::Fds(fds) => dup(*fds).map_err(failed("stdio"))?,
            Stdio::Terminal(peer) => {
                dup([peer.as_fd(); 3]).map_err(failed("stdio"))?;
                terminal::control(peer)?;
            }
        }
        give_stdio(self.process.user().uid(), self.process.user().gid())
    }
}

/// The user must be able to open `/dev/stdout` again, so it becomes the owner of its pipes.
fn give_stdio(uid: u32, gid: u32) -> Result<()> {
    for fd in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        let stat = fstat(fd).map_err(failed("stat stdio"))?;
        let null = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        ) == (1, 3);
        if stat.st_uid == uid || null {
            continue;
        }
        match rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            // Owned by somebody whom this user namespace does not know, or on a read-only file system: as it is.
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
            Err(e) => return Err(failed("give stdio to the user")(e)),
        }
    }
    Ok(())
}

fn environment(process: &Process) -> Vec<String> {
    let mut environment: Vec<String> = Vec::new();
    for variable in process.env().iter().flatten() {
        // Of a name given twice the last counts.
        let name = variable.split('=').next().unwrap_or_default();
        environment.retain(|v| v.split('=').next() != Some(name));
        environment.push(variable.clone());
    }
    if !environment.iter().any(|v| v.starts_with("HOME=")) {
        environment.push(format!("HOME={}", Home::of(process.user().uid())));
    }
    environment
}

fn enter_cwd(cwd: &Path) -> Result<()> {
    let cwd = if cwd.as_os_str().is_empty() {
        Path::new("/")
    } else {
        cwd
    };
    rustix::process::chdir(cwd).map_err(|e| {
        let text = format!(
            "chdir to cwd ({:?}) set in config.json failed: {}",
            cwd,
            reason(&e.into())
        );
        Error::new(Kind::Unknown, text)
    })
}

fn check_cwd() -> Result<()> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(cwd) if cwd.as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(Error::new(
            Kind::FailedPrecondition,
            "current working directory is outside of container mount namespace root -- possible container breakout detected",
        )),
    }
}

fn execute(path: &Path, args: &[String], environment: &[String]) -> std::io::Error {
    let strings = |list: &[String]| -> std::io::Result<Vec<CString>> {
        list.iter()
            .map(|s| CString::new(s.as_str()).map_err(std::io::Error::from))
            .collect()
    };
    let run = || -> std::io::Result<Infallible> {
        use std::os::unix::ffi::OsStrExt;
        let path = CString::new(path.as_os_str().as_bytes())?;
        Ok(nix::unistd::execve(
            &path,
            &strings(args)?,
            &strings(environment)?,
        )?)
    };
    match run() {
        Err(e) => e,
        Ok(never) => match never {},
    }
}

/// Limits that this process may not raise are set as high as it may, with a warning: the container gets less than
/// asked for, which it would anyway on this host.
fn limits(process: &Process, channel: &Channel) -> Result<()> {
    for limit in process.rlimits().iter().flatten() {
        let resource = resource(limit);
        let known = |n: u64| (n != u64::MAX).then_some(n);
        let wanted = Rlimit {
            current: known(limit.soft()),
            maximum: known(limit.hard()),
        };
        match rustix::process::setrlimit(resource, wanted) {
            Ok(()) => {}
            Err(Errno::PERM) => lower(resource, wanted, limit, channel)?,
            Err(e) => {
                return Err(Error::because(
                    format!("error setting rlimit type {}", limit.typ()),
                    reason(&e.into()),
                ));
            }
        }
    }
    Ok(())
}

fn lower(resource: Resource, wanted: Rlimit, limit: &PosixRlimit, channel: &Channel) -> Result<()> {
    let most = rustix::process::getrlimit(resource).maximum;
    let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    };
    let possible = Rlimit {
        current: least(wanted.current, most),
        maximum: least(wanted.maximum, most),
    };
    let shown = |n: Option<u64>| n.map_or("unlimited".to_owned(), |n| n.to_string());
    let _ = rustix::process::setrlimit(resource, possible);
    channel.send(&Message::Warning(format!(
        "{} stays at {} instead of {}: raising hard limits is not allowed here",
        limit.typ(),
        shown(possible.maximum),
        shown(wanted.maximum),
    )))
}

fn resource(limit: &PosixRlimit) -> Resource {
    use oci_spec::runtime::PosixRlimitType as Type;
    match limit.typ() {
        Type::RlimitCpu => Resource::Cpu,
        Type::RlimitFsize => Resource::Fsize,
        Type::RlimitData => Resource::Data,
        Type::RlimitStack => Resource::Stack,
        Type::RlimitCore => Resource::Core,
        Type::RlimitRss => Resource::Rss,
        Type::RlimitNproc => Resource::Nproc,
        Type::RlimitNofile => Resource::Nofile,
        Type::RlimitMemlock => Resource::Memlock,
        Type::RlimitAs => Resource::As,
        Type::RlimitLocks => Resource::Locks,
        Type::RlimitSigpending => Resource::Sigpending,
        Type::RlimitMsgqueue => Resource::Msgqueue,
        Type::RlimitNice => Resource::Nice,
        Type::RlimitRtprio => Resource::Rtprio,
        Type::RlimitRttime => Resource::Rttime,
    }
}

fn scheduling(process: &Process) -> Result<()> {
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = u32::try_from(priority.priority()).unwrap_or(u32::MAX) & 0x1fff;
        child::set_io_priority(class, level)
            .map_err(|e| Error::because("failed to set ioprio", reason(&e)))?;
    }
    let Some(scheduler) = process.scheduler() else {
        return Ok(());
    };
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let bit = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    let attr = child::SchedAttr {
        policy,
        flags: scheduler
            .flags()
            .iter()
            .flatten()
            .map(bit)
            .fold(0, |a, b| a | b),
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler
            .priority()
            .and_then(|p| u32::try_from(p).ok())
            .unwrap_or(0),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
        ..child::SchedAttr::default()
    };
    child::set_scheduler(attr).map_err(|e| Error::because("error setting scheduler", reason(&e)))
}

fn failed(what: &'static str) -> impl Fn(Errno) -> Error {
    move |e| Error::because(what, reason(&e.into()))
}
