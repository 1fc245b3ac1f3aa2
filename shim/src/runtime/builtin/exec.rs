//! A further process in a running container.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use davit_sys::child;
use davit_sys::clone::{self, Child, CloneArgs};
use nix::sched::CloneFlags;
use oci_spec::runtime::{Process, Spec};
use rustix::fs::OFlags;
use rustix::process::{PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};

use super::channel::{Channel, Message};
use super::create::load_spec;
use super::init::{become_root, errno, failed, join_keyring, raw_io, set_oom_score};
use super::namespaces::flags_of;
use super::notify;
use super::process::{Program, Stdio};
use super::procfs::HostSecurity;
use super::seccomp::Filter;
use super::state::Saved;
use super::terminal::Terminal;
use crate::cgroup::{Cgroup, Entrance, Layout};
use crate::error::{Error, Kind, Result};
use crate::runtime::{ExecRequest, ProcessIo};

/// A process that has executed its program.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) console: Option<OwnedFd>,
    pub(super) warnings: Vec<String>,
}

/// What the new process needs.
struct Further<'a> {
    id: &'a str,
    process: &'a Process,
    io: &'a ProcessIo,
    init: &'a OwnedFd,
    join: CloneFlags,
    entrance: &'a Entrance,
    filter: Option<&'a Filter>,
    security: HostSecurity,
    no_keyring: bool,
}

/// Starts `request.process` in the container that `saved` tells of.
pub(super) fn exec(
    request: &ExecRequest<'_>,
    saved: &Saved,
    layout: &Layout,
    no_keyring: bool,
) -> Result<Running> {
    let process: Process = serde_json::from_slice(request.process)
        .map_err(|e| Error::new(Kind::InvalidArgument, format!("exec process: {e}")))?;
    let spec = load_spec(request.bundle)?;
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| Error::new(Kind::InvalidArgument, "the spec has no linux section"))?;
    let init = init_of(saved)?;
    let filter = linux.seccomp().as_ref().map(Filter::compile).transpose()?;
    let security = HostSecurity::detect();
    let join = others_than_mine(flags_of(linux), saved)?;
    let entrance = saved
        .cgroup
        .entrance()
        .map_err(|e| Error::because("unable to apply cgroup configuration", e))?;
    let further = Further {
        id: request.id,
        process: &process,
        io: &request.io,
        init: &init,
        join,
        entrance: &entrance,
        filter: filter.as_ref(),
        security,
        no_keyring,
    };
    let (child, channel) = match further.spawn(&entrance) {
        // A container that has made cgroups below its own may have no processes beside them (v2): go where init is.
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            let pid = saved.init.map_or(0, |i| i.pid);
            let beside = Cgroup::of_process(layout, pid).and_then(|c| c.entrance());
            let beside =
                beside.map_err(|e| Error::because("unable to apply cgroup configuration", e))?;
            Further {
                entrance: &beside,
                ..further
            }
            .spawn(&beside)
        }
        other => other,
    }
    .map_err(failed("exec failed: clone"))?;
    talk(child, &channel, &spec, saved, security.missing(&process))
}

/// Hears of the process until it has executed its program.
fn talk(
    child: Child,
    channel: &Channel,
    spec: &Spec,
    saved: &Saved,
    mut warnings: Vec<String>,
) -> Result<Running> {
    let mut console = None;
    loop {
        let failure = match channel.receive() {
            Ok(None) => {
                return Ok(Running {
                    child,
                    console,
                    warnings,
                });
            }
            Ok(Some(Message::Warning(text))) => {
                warnings.push(text);
                continue;
            }
            Ok(Some(Message::Console(master))) => {
                console = Some(master);
                continue;
            }
            Ok(Some(Message::Notify(fd))) => match notify::pass_on(spec, saved, &fd, "running") {
                Ok(()) => continue,
                Err(error) => error,
            },
            Ok(Some(Message::Failed(error))) | Err(error) => error,
            Ok(Some(Message::Go | Message::Hooks | Message::Ready)) => {
                Error::new(Kind::Unknown, "unexpected message from the new process")
            }
        };
        let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(child.pid), WaitOptions::empty()));
        return Err(failure.within("exec failed: unable to start container process"));
    }
}

/// The init, sure to be the same process.
fn init_of(saved: &Saved) -> Result<OwnedFd> {
    let gone = || {
        Error::new(
            Kind::FailedPrecondition,
            "cannot exec in a stopped container",
        )
    };
    let identity = saved.init.ok_or_else(gone)?;
    let pid = rustix::process::Pid::from_raw(identity.pid).ok_or_else(gone)?;
    let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    if identity.is_alive() {
        Ok(fd)
    } else {
        Err(gone())
    }
}

/// Joining the user namespace that one is in already is an error to the kernel.
fn others_than_mine(mut flags: CloneFlags, saved: &Saved) -> Result<CloneFlags> {
    use std::os::unix::fs::MetadataExt;
    let number = |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/user")).map(|m| m.ino());
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        let pid = saved.init.map_or(0, |i| i.pid).to_string();
        if number("self").ok() == number(&pid).ok() {
            flags.remove(CloneFlags::CLONE_NEWUSER);
        }
    }
    Ok(flags)
}

impl Further<'_> {
    /// The new process is made from an intermediate one that has gone into the container already. So it is born with
    /// nothing of the host in it: not its files, and no descriptor but its stdio and the channel. From its birth on it
    /// is visible inside, and somebody there may have the right to look into it.
    fn spawn(&self, entrance: &Entrance) -> std::io::Result<(Child, Channel)> {
        let (ours, theirs) = Channel::pair().map_err(|e| std::io::Error::other(e.message))?;
        let args = CloneArgs {
            namespaces: 0,
            cgroup: entrance.birthplace(),
            staged: true,
        };
        let before = |report| match self.go_inside(&theirs, report) {
            Ok(()) => Ok(()),
            Err(error) => {
                let _ = theirs.send(&Message::Failed(error));
                Err(std::io::ErrorKind::Other.into())
            }
        };
        match clone::spawn(&args, before, || self.main(&theirs)) {
            Ok(child) => Ok((child, ours)),
            Err(e) => {
                drop(theirs);
                match ours.receive() {
                    Ok(Some(Message::Failed(error))) => Err(std::io::Error::other(error.message)),
                    _ => Err(e),
                }
            }
        }
    }

    /// What the intermediate process does.
    fn go_inside(&self, channel: &Channel, report: RawFd) -> Result<()> {
        let mut keep = vec![channel.raw(), report, self.init.as_raw_fd()];
        keep.extend(self.entrance.raw_fds());
        keep.extend(raw_io(self.io));
        child::close_all_but(&keep).map_err(failed("close descriptors"))?;
        child::reset_signals().map_err(failed("reset signals"))?;
        if let Some(score) = self.process.oom_score_adj() {
            set_oom_score(score, channel)?;
        }
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .map_err(errno("set not dumpable"))?;
        self.entrance
            .enter(self.entrance.birthplace().is_some())
            .map_err(|e| Error::because("unable to apply cgroup configuration", e))?;
        if !self.join.is_empty() {
            nix::sched::setns(self.init, self.join)
                .map_err(|e| failed("join the container's namespaces")(e.into()))?;
        }
        if self.join.contains(CloneFlags::CLONE_NEWUSER) {
            become_root()?;
        }
        let mut keep = vec![channel.raw(), report];
        keep.extend(raw_io(self.io));
        child::close_all_but(&keep).map_err(failed("close descriptors"))
    }

    fn main(&self, channel: &Channel) -> i32 {
        match self.run(channel) {
            Ok(never) => match never {},
            Err(error) => {
                let _ = channel.send(&Message::Failed(error));
                1
            }
        }
    }

    fn run(&self, channel: &Channel) -> Result<Infallible> {
        rustix::process::setsid().map_err(errno("setsid"))?;
        if !self.no_keyring {
            join_keyring(self.id)?;
        }
        let stdio = self.stdio(channel)?;
        let program = Program {
            process: self.process,
            filter: self.filter,
            security: self.security,
            preserved: 0,
        };
        program.run(channel, stdio, || Ok(()))
    }

    fn stdio(&self, channel: &Channel) -> Result<Stdio<'_>> {
        match self.io {
            ProcessIo::Fds {
                stdin,
                stdout,
                stderr,
            } => Ok(Stdio::Fds([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])),
            ProcessIo::Console => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = rustix::fs::open("/", flags, rustix::fs::Mode::empty())
                    .map_err(errno("open the root"))?;
                let terminal = Terminal::open(root.as_fd(), self.process)?;
                channel.send(&Message::Console(terminal.master))?;
                Ok(Stdio::Terminal(terminal.peer))
            }
        }
    }
}
