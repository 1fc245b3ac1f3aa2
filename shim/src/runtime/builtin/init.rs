//! A container's first process, from its birth to the `execve`. Everything here runs in the forked process.
//!
//! ```text
//!  born (new namespaces) ─► cgroups ─► user map ─► joined namespaces ─► cgroup namespace ─► root, mounts, /dev
//!      ─► hooks ─► console ─► masks ─► pivot ─► sysctls ─► privileges ─► READY … start ─► execve
//! ```

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use davit_sys::child;
use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxPersonalityDomain, Process, Spec};
use rustix::fs::{Mode, OFlags};

use super::channel::{Channel, Message};
use super::hooks::{self, State};
use super::inroot::{self, Leaf};
use super::mounts::raw_sources;
use super::namespaces::{Namespaces, reason};
use super::process::{Program, Stdio};
use super::procfs::{HostSecurity, Procfs};
use super::rootfs::{Given, Rootfs};
use super::seccomp::Filter;
use super::terminal::Terminal;
use crate::cgroup::{Cgroup, Entrance};
use crate::error::{Error, Kind, Result};
use crate::runtime::ProcessIo;

/// All that init needs, put together by the shim before the clone.
#[derive(Debug)]
pub(super) struct Init<'a> {
    pub(super) id: &'a str,
    pub(super) bundle: &'a Path,
    pub(super) spec: &'a Spec,
    pub(super) linux: &'a Linux,
    pub(super) process: &'a Process,
    pub(super) io: &'a ProcessIo,
    pub(super) preserved: &'a [OwnedFd],
    pub(super) namespaces: &'a Namespaces,
    pub(super) sources: &'a [Option<OwnedFd>],
    pub(super) cgroup: &'a Cgroup,
    pub(super) entrance: &'a Entrance,
    pub(super) filter: Option<&'a Filter>,
    pub(super) sysctls: &'a [(String, String)],
    pub(super) security: HostSecurity,
    pub(super) chroot_only: bool,
    pub(super) no_keyring: bool,
}

impl Init<'_> {
    /// What the new process does; its exit status when it comes to nothing.
    pub(super) fn main(&self, channel: &Channel) -> i32 {
        let lowest = 3 + i32::try_from(self.preserved.len()).unwrap_or(0);
        let lifted;
        let channel = match channel.raw() < lowest {
            true => match channel.lifted(lowest) {
                Ok(channel) => {
                    lifted = channel;
                    &lifted
                }
                Err(_) => return 1,
            },
            false => channel,
        };
        match self.run(channel) {
            Ok(never) => match never {},
            Err(error) => {
                let _ = channel.send(&Message::Failed(error));
                1
            }
        }
    }

    fn run(&self, channel: &Channel) -> Result<Infallible> {
        self.isolate(channel)?;
        rustix::process::umask(Mode::empty());
        let stdio = if self.namespaces.is_new(LinuxNamespaceType::Mount) {
            self.change_root(channel)?
        } else {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root =
                rustix::fs::open("/", flags, Mode::empty()).map_err(errno("open the root"))?;
            self.stdio(root.as_fd(), channel, false)?
        };
        self.apply_sysctls()?;
        if !self.preserved.is_empty() {
            let fds: Vec<BorrowedFd<'_>> = self.preserved.iter().map(AsFd::as_fd).collect();
            child::place_from_three(&fds).map_err(failed("preserved descriptors"))?;
        }
        let program = Program {
            process: self.process,
            filter: self.filter,
            security: self.security,
            preserved: self.preserved.len(),
        };
        program.run(channel, stdio, || self.wait_for_start(channel))
    }

    /// Leaves the shim behind: its descriptors, signals, session, cgroups and namespaces.
    fn isolate(&self, channel: &Channel) -> Result<()> {
        child::close_all_but(&self.kept(channel)).map_err(failed("close descriptors"))?;
        child::reset_signals().map_err(failed("reset signals"))?;
        rustix::process::setsid().map_err(errno("setsid"))?;
        // Processes of namespaces that are joined must not look into this one.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .map_err(errno("set not dumpable"))?;
        let born_inside = self.entrance.birthplace().is_some();
        self.entrance
            .enter(born_inside)
            .map_err(|e| Error::because("unable to apply cgroup configuration", e))?;
        if self.namespaces.is_new(LinuxNamespaceType::User) {
            channel.wait_for_go()?;
        } else if let Some(score) = self.process.oom_score_adj() {
            set_oom_score(score, channel)?;
        }
        if !self.namespaces.needs_stage() {
            self.namespaces.enter().map_err(failed("join namespaces"))?;
        }
        if self.namespaces.has(LinuxNamespaceType::User) {
            become_root()?;
        }
        self.late_namespaces()?;
        if !self.no_keyring {
            join_keyring(self.id)?;
        }
        self.name_host()?;
        if self.namespaces.is_new(LinuxNamespaceType::Network) {
            child::loopback_up().map_err(failed("bring lo up"))?;
        }
        self.set_personality()
    }

    fn kept(&self, channel: &Channel) -> Vec<RawFd> {
        let mut keep: Vec<RawFd> = vec![channel.raw()];
        keep.extend(self.entrance.raw_fds());
        keep.extend(self.namespaces.raw_fds());
        keep.extend(raw_sources(self.sources));
        keep.extend(self.preserved.iter().map(AsRawFd::as_raw_fd));
        keep.extend(raw_io(self.io));
        keep
    }

    /// See [`Namespaces::clone_flags`] for why these come late.
    fn late_namespaces(&self) -> Result<()> {
        let flag = |kind| CloneFlags::from_bits_retain(super::namespaces::bit(kind) as i32);
        if self.namespaces.is_new(LinuxNamespaceType::Cgroup) {
            nix::sched::unshare(flag(LinuxNamespaceType::Cgroup))
                .map_err(|e| failed("new cgroup namespace")(e.into()))?;
        }
        if self.namespaces.is_new(LinuxNamespaceType::Time) {
            nix::sched::unshare(flag(LinuxNamespaceType::Time))
                .map_err(|e| failed("new time namespace")(e.into()))?;
            for (clock, offset) in self.linux.time_offsets().iter().flatten() {
                let line = format!(
                    "{clock} {} {}",
                    offset.secs().unwrap_or(0),
                    offset.nanosecs().unwrap_or(0)
                );
                std::fs::write("/proc/self/timens_offsets", line)
                    .map_err(failed("set time offsets"))?;
            }
        }
        Ok(())
    }

    fn name_host(&self) -> Result<()> {
        if let Some(name) = self.spec.hostname().as_ref().filter(|n| !n.is_empty()) {
            rustix::system::sethostname(name.as_bytes()).map_err(errno("set hostname"))?;
        }
        if let Some(name) = self.spec.domainname().as_ref().filter(|n| !n.is_empty()) {
            rustix::system::setdomainname(name.as_bytes()).map_err(errno("set domainname"))?;
        }
        Ok(())
    }

    fn set_personality(&self) -> Result<()> {
        let Some(personality) = self.linux.personality() else {
            return Ok(());
        };
        let domain = match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        };
        child::set_personality(domain).map_err(failed("set personality"))
    }

    fn change_root(&self, channel: &Channel) -> Result<Stdio<'_>> {
        let label = self
            .linux
            .mount_label()
            .as_deref()
            .filter(|l| !l.is_empty() && self.security.selinux);
        let given = Given {
            spec: self.spec,
            bundle: self.bundle,
            cgroup: self.cgroup,
            sources: self.sources,
            label,
        };
        let rootfs = Rootfs::prepare(&given, self.namespaces)?;
        self.run_hooks(channel)?;
        let stdio = self.stdio(rootfs.root().as_fd(), channel, true)?;
        make_cwd(rootfs.root(), self.process.cwd())?;
        rootfs.close(self.spec)?;
        rootfs.enter(self.spec, self.chroot_only)?;
        Ok(stdio)
    }

    fn stdio(&self, root: BorrowedFd<'_>, channel: &Channel, console: bool) -> Result<Stdio<'_>> {
        match self.io {
            ProcessIo::Fds {
                stdin,
                stdout,
                stderr,
            } => Ok(Stdio::Fds([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])),
            ProcessIo::Console => {
                let terminal = Terminal::open(root, self.process)?;
                if console {
                    terminal.bind_console(root)?;
                }
                channel.send(&Message::Console(terminal.master))?;
                Ok(Stdio::Terminal(terminal.peer))
            }
        }
    }

    fn run_hooks(&self, channel: &Channel) -> Result<()> {
        let Some(hooks) = self.spec.hooks() else {
            return Ok(());
        };
        if hooks.prestart().is_some() || hooks.create_runtime().is_some() {
            channel.send(&Message::Hooks)?;
            channel.wait_for_go()?;
        }
        hooks::run(
            "createContainer",
            hooks.create_container().as_ref(),
            &self.state("creating"),
        )
    }

    fn apply_sysctls(&self) -> Result<()> {
        if self.sysctls.is_empty() {
            return Ok(());
        }
        let procfs = Procfs::open()?;
        for (path, value) in self.sysctls {
            procfs
                .write(path, value)
                .map_err(|e| Error::because(format!("open /proc/{path}"), reason(&e.into())))?;
        }
        Ok(())
    }

    fn wait_for_start(&self, channel: &Channel) -> Result<()> {
        channel.send(&Message::Ready)?;
        channel.wait_for_go()?;
        let hooks = self
            .spec
            .hooks()
            .as_ref()
            .and_then(|h| h.start_container().as_ref());
        hooks::run("startContainer", hooks, &self.state("created"))
    }

    fn state(&self, status: &str) -> String {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        State {
            id: self.id,
            bundle: self.bundle,
            spec: self.spec,
        }
        .json(status, pid)
    }
}

/// In a new or joined user namespace: its root, in place of the unmapped user that the process is there.
pub(super) fn become_root() -> Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).map_err(|e| failed("setgid in the user namespace")(e.into()))?;
    match setgroups(&[]) {
        Ok(()) | Err(nix::errno::Errno::EPERM) => {}
        Err(e) => return Err(failed("setgroups in the user namespace")(e.into())),
    }
    setresuid(uid, uid, uid).map_err(|e| failed("setuid in the user namespace")(e.into()))
}

/// A score below davit's own needs CAP_SYS_RESOURCE; without it the score stays, with a warning.
pub(super) fn set_oom_score(score: i32, channel: &Channel) -> Result<()> {
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::PermissionDenied) => {
            channel.send(&Message::Warning(format!(
                "the OOM score is not set to {score}: not allowed here"
            )))
        }
        other => other.map_err(failed("set the OOM score")),
    }
}

/// The keys of the shim's session are not the container's.
pub(super) fn join_keyring(id: &str) -> Result<()> {
    let name =
        CString::new(format!("_ses.{id}")).map_err(|e| failed("session keyring")(e.into()))?;
    match child::join_session_keyring(&name) {
        // No keyrings in this kernel, or a filter or quota forbids one: then there is nothing to share, or no choice.
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::ENOSYS | libc::EPERM | libc::EDQUOT)
            ) =>
        {
            Ok(())
        }
        other => other.map_err(failed("session keyring")),
    }
}

/// As runc: a working directory that is not in the image is made.
fn make_cwd(root: &OwnedFd, cwd: &Path) -> Result<()> {
    match inroot::ensure(root, cwd, Leaf::Directory, Mode::from_raw_mode(0o755)) {
        Ok(_) => Ok(()),
        // A file, a loop, a read-only place: entering it will say so in the words that callers know.
        Err(e) => {
            tracing::debug!(error = %e, "working directory is not made");
            Ok(())
        }
    }
}

pub(super) fn raw_io(io: &ProcessIo) -> Vec<RawFd> {
    match io {
        ProcessIo::Fds {
            stdin,
            stdout,
            stderr,
        } => [stdin, stdout, stderr].map(AsRawFd::as_raw_fd).to_vec(),
        ProcessIo::Console => Vec::new(),
    }
}

pub(super) fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::new(Kind::Unknown, format!("{what}: {}", reason(&e)))
}

pub(super) fn errno(what: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |e| failed(what)(e.into())
}
