//! The shim's side of making a container: what is prepared before the clone, and the talk with init until it waits
//! for the start.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use davit_sys::clone::{self, Child, CloneArgs};
use davit_sys::mount_attr::MountAttr;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Mount, Spec};
use rustix::process::{Signal, WaitOptions, pidfd_send_signal, waitpid};

use super::channel::{Channel, Message};
use super::hooks::{self, State};
use super::init::{Init, failed};
use super::mounts::open_source;
use super::namespaces::{Namespaces, reason};
use super::notify;
use super::options::Options;
use super::procfs::{self, HostSecurity};
use super::seccomp::Filter;
use super::state::{Identity, Saved};
use crate::cgroup::{Cgroup, Layout};
use crate::error::{Error, Kind, Result};
use crate::runtime::{CreateRequest, RuntimeOptions};

/// A container whose init waits for the start.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) child: Child,
    pub(super) channel: Channel,
    pub(super) saved: Saved,
    pub(super) console: Option<OwnedFd>,
    pub(super) warnings: Vec<String>,
}

/// Reads and checks `<bundle>/config.json`.
pub(super) fn load_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let json = std::fs::read(&path).map_err(|e| Error::because(path.display(), reason(&e)))?;
    let spec: Spec = serde_json::from_slice(&json)
        .map_err(|e| Error::new(Kind::InvalidArgument, format!("{}: {e}", path.display())))?;
    if !spec.version().starts_with("1.") {
        return Err(invalid(format!(
            "OCI runtime spec version {} is not supported",
            spec.version()
        )));
    }
    Ok(spec)
}

/// Where the container's cgroups are: as the spec says, or below `/davit`.
pub(super) fn cgroup_path(linux: &Linux, id: &str, systemd: bool) -> Result<PathBuf> {
    match linux
        .cgroups_path()
        .as_ref()
        .filter(|p| !p.as_os_str().is_empty())
    {
        None => Ok(Path::new("/davit").join(id)),
        Some(path) if systemd => path.to_str().and_then(scope).ok_or_else(|| {
            invalid(format!(
                "cgroupsPath {path:?} is not of the form slice:prefix:name"
            ))
        }),
        Some(path) => Ok(path.clone()),
    }
}

/// Where systemd would have put `slice:prefix:name`. The built-in runtime makes the directories itself.
fn scope(path: &str) -> Option<PathBuf> {
    let [slice, prefix, name] = path.split(':').collect::<Vec<_>>().try_into().ok()?;
    let slice = if slice.is_empty() {
        "system.slice"
    } else {
        slice
    };
    let mut directory = PathBuf::from("/");
    let words = slice.strip_suffix(".slice")?;
    if words != "-" {
        // "a-b.slice" is in "a.slice".
        let ends = words
            .match_indices('-')
            .map(|(at, _)| at)
            .chain([words.len()]);
        directory.extend(ends.map(|end| format!("{}.slice", &words[..end])));
    }
    let unit = match (name.ends_with(".slice"), prefix.is_empty()) {
        (true, _) => name.to_owned(),
        (false, true) => format!("{name}.scope"),
        (false, false) => format!("{prefix}-{name}.scope"),
    };
    Some(directory.join(unit))
}

/// Makes the container. On an error nothing of it is left.
pub(super) fn create(
    request: CreateRequest<'_>,
    options: &RuntimeOptions,
    layout: &Layout,
) -> Result<Waiting> {
    let spec = load_spec(request.bundle)?;
    let linux = spec
        .linux()
        .as_ref()
        .ok_or_else(|| invalid("the spec has no linux section"))?;
    let path = cgroup_path(linux, request.id, options.systemd_cgroup)?;
    let cgroup = Cgroup::at(layout, &path).map_err(|e| invalid(e.to_string()))?;
    let saved = Saved {
        id: request.id.to_owned(),
        bundle: request.bundle.to_owned(),
        cgroup,
        init: None,
        has_late_hooks: spec
            .hooks()
            .as_ref()
            .is_some_and(|h| h.poststart().is_some() || h.poststop().is_some()),
    };
    saved.claim(&options.root)?;
    let made = launch(request, options, &spec, linux, &saved);
    if made.is_err() {
        let _ = saved.cgroup.kill_all();
        remove_soon(&saved.cgroup);
        let _ = Saved::remove(&options.root, &saved.id);
    }
    made
}

/// Only for what has failed: a process that was killed and waited for may need a moment to leave its cgroup.
fn remove_soon(cgroup: &Cgroup) {
    for _ in 0..100 {
        match cgroup.remove() {
            Err(e) if e.is_busy() => std::thread::sleep(std::time::Duration::from_millis(2)),
            _ => return,
        }
    }
}

fn launch(
    request: CreateRequest<'_>,
    options: &RuntimeOptions,
    spec: &Spec,
    linux: &Linux,
    saved: &Saved,
) -> Result<Waiting> {
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| invalid("the spec has no process section"))?;
    let namespaces = Namespaces::plan(linux)?;
    let security = HostSecurity::detect();
    let mut warnings = security.missing(process);
    warnings.extend(unsupported(linux)?);
    let sysctls = procfs::sysctls(linux, &namespaces)?;
    let filter = linux.seccomp().as_ref().map(Filter::compile).transpose()?;
    let sources = sources(request.bundle, spec, &namespaces)?;
    let cgroup = &saved.cgroup;
    warnings.extend(prepare_cgroup(cgroup, linux)?);
    let entrance = cgroup.entrance().map_err(unable)?;
    let (ours, theirs) = Channel::pair()?;
    let init = Init {
        id: request.id,
        bundle: request.bundle,
        spec,
        linux,
        process,
        io: &request.io,
        preserved: &request.preserved,
        namespaces: &namespaces,
        sources: &sources,
        cgroup,
        entrance: &entrance,
        filter: filter.as_ref(),
        sysctls: &sysctls,
        security,
        chroot_only: options.no_pivot_root,
        no_keyring: options.no_new_keyring,
    };
    let args = CloneArgs {
        namespaces: namespaces.clone_flags(),
        cgroup: entrance.birthplace(),
        staged: namespaces.needs_stage(),
    };
    let child = clone::spawn(&args, |_| namespaces.enter(), || init.main(&theirs))
        .map_err(|e| failed("unable to start container process: clone")(e))?;
    drop(theirs);
    let mut talk = Talk {
        channel: ours,
        child,
        spec,
        saved: saved.clone(),
        warnings,
        console: None,
    };
    match talk.until_ready(&namespaces, &sources, options) {
        Ok(()) => Ok(Waiting {
            child: talk.child,
            channel: talk.channel,
            saved: talk.saved,
            console: talk.console,
            warnings: talk.warnings,
        }),
        Err(error) => {
            reap(&talk.child);
            Err(error.within("unable to start container process"))
        }
    }
}

/// Kills a child and waits for it. Nobody else waits for it: the reaper only runs between awaits.
fn reap(child: &Child) {
    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| waitpid(Some(child.pid), WaitOptions::empty()));
}

fn prepare_cgroup(cgroup: &Cgroup, linux: &Linux) -> Result<Vec<String>> {
    cgroup.create().map_err(unable)?;
    let resources = linux.resources().as_ref();
    let mut warnings = match resources {
        Some(resources) => cgroup.apply(resources).map_err(unable)?,
        None => Vec::new(),
    };
    warnings.extend(cgroup.apply_devices(resources).map_err(unable)?);
    Ok(warnings)
}

fn unable(error: crate::cgroup::Error) -> Error {
    Error::because("unable to apply cgroup configuration", error)
}

/// Sections that change nothing for most users are warnings; those whose lack would be felt are refused.
fn unsupported(linux: &Linux) -> Result<Vec<String>> {
    if linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()) {
        return Err(Error::new(
            Kind::Unimplemented,
            "linux.netDevices is not supported by the built-in runtime",
        ));
    }
    let mut warnings = Vec::new();
    if linux.intel_rdt().is_some() {
        warnings.push("intelRdt is not applied by the built-in runtime".to_owned());
    }
    if linux.memory_policy().is_some() {
        warnings.push("memoryPolicy is not applied by the built-in runtime".to_owned());
    }
    Ok(warnings)
}

/// With a user namespace, whose root may not walk to them, the shim opens the sources of bind mounts.
fn sources(bundle: &Path, spec: &Spec, namespaces: &Namespaces) -> Result<Vec<Option<OwnedFd>>> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    if namespaces.has(LinuxNamespaceType::User) {
        let open = |m: &Mount| {
            open_source(bundle, m).map_err(|e| {
                let from = m
                    .source()
                    .as_ref()
                    .map(|s| s.display().to_string())
                    .unwrap_or_default();
                e.within(format!(
                    "error mounting {from:?} to rootfs at {:?}",
                    m.destination()
                ))
            })
        };
        return mounts.iter().map(open).collect();
    }
    match mounts.iter().find(|m| idmap(m).is_some()) {
        Some(mount) => Err(Error::new(
            Kind::Unimplemented,
            format!(
                "mount {:?}: an idmapped mount needs a user namespace",
                mount.destination()
            ),
        )),
        None => Ok(Vec::new()),
    }
}

/// Whether a mount is to be idmapped, and recursively.
fn idmap(mount: &Mount) -> Option<bool> {
    let options = Options::parse(mount.options().as_deref().unwrap_or_default());
    let mapped = mount.uid_mappings().as_ref().is_some_and(|m| !m.is_empty());
    options.idmap.or(mapped.then_some(false))
}

/// The shim's half of the talk with a new init.
struct Talk<'a> {
    channel: Channel,
    child: Child,
    spec: &'a Spec,
    saved: Saved,
    warnings: Vec<String>,
    console: Option<OwnedFd>,
}

impl Talk<'_> {
    fn until_ready(
        &mut self,
        namespaces: &Namespaces,
        sources: &[Option<OwnedFd>],
        options: &RuntimeOptions,
    ) -> Result<()> {
        let pid = self.child.pid.as_raw_nonzero().get();
        self.saved.init = Identity::of(pid);
        self.saved.save(&options.root)?;
        if namespaces.is_new(LinuxNamespaceType::User) {
            self.map_users(pid)?;
            self.map_mounts(pid, sources)?;
            self.channel.send(&Message::Go)?;
        }
        loop {
            match self.channel.receive()? {
                Some(Message::Ready) => return Ok(()),
                Some(Message::Failed(error)) => return Err(error),
                Some(Message::Warning(text)) => self.warnings.push(text),
                Some(Message::Console(master)) => self.console = Some(master),
                Some(Message::Notify(fd)) => {
                    notify::pass_on(self.spec, &self.saved, &fd, "creating")?
                }
                Some(Message::Hooks) => {
                    self.run_hooks(pid)?;
                    self.channel.send(&Message::Go)?;
                }
                Some(Message::Go) => {
                    return Err(Error::new(Kind::Unknown, "unexpected message from init"));
                }
                None => return Err(self.died()),
            }
        }
    }

    fn run_hooks(&self, pid: i32) -> Result<()> {
        let Some(hooks) = self.spec.hooks() else {
            return Ok(());
        };
        let state = State {
            id: &self.saved.id,
            bundle: &self.saved.bundle,
            spec: self.spec,
        }
        .json("creating", pid);
        hooks::run("prestart", hooks.prestart().as_ref(), &state)?;
        hooks::run("createRuntime", hooks.create_runtime().as_ref(), &state)
    }

    fn map_users(&self, pid: i32) -> Result<()> {
        let linux = self.spec.linux().as_ref();
        let write = |file: &str, mappings: Option<&Vec<LinuxIdMapping>>| -> Result<()> {
            let lines: String = mappings.into_iter().flatten().map(line).collect();
            if lines.is_empty() {
                return Err(invalid("a new user namespace needs uid and gid mappings"));
            }
            std::fs::write(format!("/proc/{pid}/{file}"), lines)
                .map_err(|e| Error::because(file, reason(&e)))
        };
        write("uid_map", linux.and_then(|l| l.uid_mappings().as_ref()))?;
        write("gid_map", linux.and_then(|l| l.gid_mappings().as_ref()))?;
        if let Some(score) = self.spec.process().as_ref().and_then(|p| p.oom_score_adj()) {
            // Below our own score it needs a capability; the score is then as the shim's.
            if let Err(e) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string())
            {
                tracing::warn!(error = %e, score, "the OOM score is not set");
            }
        }
        Ok(())
    }

    /// Idmapped mounts show files as the container's user namespace maps them; that one is there only now.
    fn map_mounts(&self, pid: i32, sources: &[Option<OwnedFd>]) -> Result<()> {
        let mounts = self.spec.mounts().as_deref().unwrap_or_default();
        let linux = self.spec.linux().as_ref();
        for (mount, source) in mounts.iter().zip(sources) {
            let (Some(recursive), Some(source)) = (idmap(mount), source) else {
                continue;
            };
            let same = mount.uid_mappings().is_none()
                || mount.uid_mappings().as_ref() == linux.and_then(|l| l.uid_mappings().as_ref())
                    && mount.gid_mappings().as_ref()
                        == linux.and_then(|l| l.gid_mappings().as_ref());
            if !same {
                let text = format!(
                    "mount {:?}: mappings other than the container's are not supported",
                    mount.destination()
                );
                return Err(Error::new(Kind::Unimplemented, text));
            }
            let userns = std::fs::File::open(format!("/proc/{pid}/ns/user"))
                .map_err(failed("user namespace"))?;
            MountAttr::default()
                .apply_idmap(source, recursive, userns.as_fd())
                .map_err(|e| {
                    Error::because(
                        format!("idmapping the mount at {:?}", mount.destination()),
                        reason(&e),
                    )
                })?;
        }
        Ok(())
    }

    /// It ended without a word.
    fn died(&self) -> Error {
        if self.saved.cgroup.oom_kills() > 0 {
            return Error::new(
                Kind::Unknown,
                "container init was OOM-killed (memory limit too low?)",
            );
        }
        let status = rustix::process::waitid(
            rustix::process::WaitId::PidFd(self.child.pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        );
        let how = match status {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exited with status {code}"),
                (None, Some(signal)) => format!("was killed by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
            _ => "ended".to_owned(),
        };
        Error::new(
            Kind::Unknown,
            format!("container init {how} before it was set up"),
        )
    }
}

fn line(mapping: &LinuxIdMapping) -> String {
    format!(
        "{} {} {}\n",
        mapping.container_id(),
        mapping.host_id(),
        mapping.size()
    )
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_paths() {
        let cases = [
            ("system.slice:docker:abc", "/system.slice/docker-abc.scope"),
            (
                "a-b-c.slice:cri:x",
                "/a.slice/a-b.slice/a-b-c.slice/cri-x.scope",
            ),
            ("-.slice::x", "/x.scope"),
            (":docker:x", "/system.slice/docker-x.scope"),
        ];
        for (path, want) in cases {
            assert_eq!(scope(path).unwrap(), Path::new(want), "{path}");
        }
        assert_eq!(scope("/plain/path"), None);
    }
}
