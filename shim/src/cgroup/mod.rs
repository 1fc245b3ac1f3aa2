//! A container's cgroups, on v1, v2 and the hybrid of both: made, limited, joined, read, frozen, killed and removed.
//!
//! Everything is small files of the kernel's. The rule that shapes this module: nobody is ever *moved* into a cgroup
//! by somebody else on the way to a start, because the kernel answers that with an RCU grace period of about 10 ms.
//! On v1 a new process writes `0` to `tasks` itself ([`Entrance::enter`]); on v2 it is born inside
//! ([`Entrance::birthplace`]). Runtimes of their own binary do move; see [`GracePeriod`].

mod device;
mod error;
mod freeze;
mod grace;
mod layout;
mod oom;
mod remove;
mod stats;
mod v1;
mod v2;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

pub(crate) use error::{Error, Result};
pub(crate) use grace::GracePeriod;
#[cfg(test)]
use layout::Hierarchy;
pub(crate) use layout::Layout;
#[allow(unused_imports, reason = "the Task service reads them")]
pub(crate) use oom::OomWatch;
#[allow(unused_imports, reason = "the Task service reads them")]
pub(crate) use stats::{BlockEntry, BlockStats, CpuStats, MemoryStats, PidsStats, Stats};

/// The directories of one container, one in each hierarchy. Nothing says that they exist.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    /// v1 directories with the controllers of their hierarchy.
    v1: Vec<Member>,
    /// The v2 directory: with all controllers on a pure v2 host, with none on a hybrid one.
    v2: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    /// "memory", "cpu", … or "name=systemd".
    controllers: Vec<String>,
    directory: PathBuf,
}

/// Open handles through which a process enters a cgroup, usable in any mount namespace.
#[derive(Debug)]
pub(crate) struct Entrance {
    tasks: Vec<(PathBuf, File)>,
    v2: Option<OwnedFd>,
}

impl Cgroup {
    /// The cgroup at `path`, counted from the root of each hierarchy of this host.
    ///
    /// # Errors
    /// A path that is empty or has a `..`.
    pub(crate) fn at(layout: &Layout, path: &Path) -> Result<Cgroup> {
        let relative = relative(path)?;
        let v1 = layout.v1.iter().map(|h| Member {
            controllers: h.controllers.clone(),
            directory: h.mount.join(&relative),
        });
        let v2 = layout.v2.as_ref().map(|mount| mount.join(&relative));
        Ok(Cgroup {
            v1: v1.collect(),
            v2,
        })
    }

    /// The cgroup that the process `pid` is in, for a container that another runtime made.
    ///
    /// # Errors
    /// No such process.
    pub(crate) fn of_process(layout: &Layout, pid: i32) -> Result<Cgroup> {
        let text = read(&PathBuf::from(format!("/proc/{pid}/cgroup")))?;
        let mut cgroup = Cgroup::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let path = path.trim_start_matches('/');
            if names.is_empty() {
                cgroup.v2 = layout.v2.as_ref().map(|mount| mount.join(path));
                continue;
            }
            let first = names.split(',').next().unwrap_or_default();
            if let Some(h) = layout
                .v1
                .iter()
                .find(|h| h.controllers.iter().any(|c| c == first))
            {
                cgroup.v1.push(Member {
                    controllers: h.controllers.clone(),
                    directory: h.mount.join(path),
                });
            }
        }
        Ok(cgroup)
    }

    /// Makes the directories, with their parents. Those that are there already are used as they are.
    ///
    /// # Errors
    /// A hierarchy that refuses; what was made stays (see [`Cgroup::remove`]).
    pub(crate) fn create(&self) -> Result<()> {
        for member in &self.v1 {
            v1::make(&member.directory, member.has("cpuset"))?;
        }
        if let Some(directory) = &self.v2 {
            v2::make(directory, self.is_pure_v2())?;
        }
        Ok(())
    }

    /// Sets the limits that `resources` gives and leaves all others. Gives a sentence for each that this host can't
    /// enforce.
    ///
    /// # Errors
    /// A value that the kernel refuses; earlier ones stay set.
    pub(crate) fn apply(&self, resources: &LinuxResources) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        if self.is_pure_v2() {
            v2::apply(
                self.v2.as_deref().unwrap_or(Path::new("")),
                resources,
                &mut warnings,
            )?;
        } else {
            v1::apply(self, resources, &mut warnings)?;
        }
        Ok(warnings)
    }

    /// Replaces the device rules by `resources.devices`, followed by the devices that every container may use.
    ///
    /// # Errors
    /// The kernel refuses a rule.
    pub(crate) fn apply_devices(&self, resources: Option<&LinuxResources>) -> Result<Vec<String>> {
        let rules = device::Rules::of(
            resources
                .and_then(|r| r.devices().as_deref())
                .unwrap_or_default(),
        );
        if let Some(member) = self.member("devices") {
            return rules.write_v1(&member.directory);
        }
        match &self.v2 {
            Some(directory) => rules.attach_v2(directory),
            None => Ok(vec![
                "device rules are not enforced: this host has no devices cgroup".into(),
            ]),
        }
    }

    /// Opens what a process needs to enter.
    ///
    /// # Errors
    /// The directories are not there.
    pub(crate) fn entrance(&self) -> Result<Entrance> {
        let mut tasks = Vec::with_capacity(self.v1.len());
        for member in &self.v1 {
            let path = member.directory.join("tasks");
            let file = OpenOptions::new()
                .write(true)
                .open(&path)
                .map_err(|e| Error::open(&path, e))?;
            tasks.push((path, file));
        }
        let v2 = match &self.v2 {
            Some(directory) => Some(OwnedFd::from(
                File::open(directory).map_err(|e| Error::open(directory, e))?,
            )),
            None => None,
        };
        Ok(Entrance { tasks, v2 })
    }

    /// All processes in it and in cgroups below, as the caller's pid namespace numbers them.
    ///
    /// # Errors
    /// Reading fails for another reason than that the cgroup is gone.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        if let Some(directory) = self.main() {
            collect_processes(directory, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Whether any of its directories is there.
    pub(crate) fn exists(&self) -> bool {
        self.directories().any(Path::is_dir)
    }

    /// The directory that tells best who is inside: v2 if there, else any v1.
    fn main(&self) -> Option<&Path> {
        self.v2
            .as_deref()
            .or_else(|| self.v1.first().map(|m| m.directory.as_path()))
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        self.v1
            .iter()
            .map(|m| m.directory.as_path())
            .chain(self.v2.as_deref())
    }

    fn member(&self, controller: &str) -> Option<&Member> {
        self.v1.iter().find(|m| m.has(controller))
    }

    /// The path of `file` in the v1 hierarchy of `controller`.
    fn v1_file(&self, controller: &str, file: &str) -> Option<PathBuf> {
        self.member(controller).map(|m| m.directory.join(file))
    }

    /// Whether v2 has the controllers. On a hybrid host a v1 hierarchy has them.
    pub(crate) fn is_pure_v2(&self) -> bool {
        let named = |m: &Member| m.controllers.iter().all(|c| c.starts_with("name="));
        self.v2.is_some() && self.v1.iter().all(named)
    }

    /// The directories as (v1 controllers or "", directory).
    pub(crate) fn mounts(&self) -> impl Iterator<Item = (String, &Path)> {
        let v1 = self
            .v1
            .iter()
            .map(|m| (m.controllers.join(","), m.directory.as_path()));
        v1.chain(self.v2.as_deref().map(|d| (String::new(), d)))
    }
}

impl Member {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

impl Entrance {
    /// The v2 cgroup to be born in.
    pub(crate) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// Descriptors to keep open in the new process.
    pub(crate) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        let tasks = self.tasks.iter().map(|(_, file)| file.as_raw_fd());
        tasks.chain(self.v2.as_ref().map(AsRawFd::as_raw_fd))
    }

    /// Moves the calling process, which must have one thread, into the v1 cgroups; and into the v2 one unless it was
    /// `born_inside`.
    ///
    /// # Errors
    /// `ENOSPC` for a cpuset without cpus, `EAGAIN` for a full pids cgroup, `ENOENT` when the cgroup was removed.
    pub(crate) fn enter(&self, born_inside: bool) -> Result<()> {
        for (path, file) in &self.tasks {
            let mut file = file;
            file.write_all(b"0").map_err(|e| Error::Join {
                path: path.clone(),
                source: e,
            })?;
        }
        if let (false, Some(directory)) = (born_inside, &self.v2) {
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
            let procs =
                rustix::fs::openat(directory, "cgroup.procs", flags, rustix::fs::Mode::empty());
            procs
                .and_then(|procs| rustix::io::write(procs, b"0"))
                .map_err(|e| Error::Join {
                    path: "cgroup.procs".into(),
                    source: e.into(),
                })?;
        }
        Ok(())
    }
}

fn relative(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => clean.push(part),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::BadPath(path.to_owned()));
            }
        }
    }
    if clean.as_os_str().is_empty() {
        Err(Error::BadPath(path.to_owned()))
    } else {
        Ok(clean)
    }
}

fn collect_processes(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let Some(text) = read_if_there(&directory.join("cgroup.procs"))? else {
        return Ok(());
    };
    // 0 stands for a process outside of the reader's pid namespace.
    pids.extend(
        text.lines()
            .filter_map(|l| l.parse::<i32>().ok())
            .filter(|pid| *pid > 0),
    );
    for child in children(directory) {
        collect_processes(&child, pids)?;
    }
    Ok(())
}

/// The cgroups directly below `directory`. A cgroup's link count is 2 and one for each child, so that most calls need
/// no listing.
fn children(directory: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    if std::fs::symlink_metadata(directory).map_or(true, |m| m.nlink() <= 2) {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let directories = entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    directories.map(|e| e.path()).collect()
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let mut file = File::open(path).map_err(|e| Error::open(path, e))?;
    file.read_to_string(&mut text)
        .map_err(|e| Error::open(path, e))?;
    Ok(text)
}

/// `None` when the file, the cgroup or the controller is not there.
fn read_if_there(path: &Path) -> Result<Option<String>> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.is_gone() || e.is_unsupported() => Ok(None),
        Err(e) => Err(e),
    }
}

fn read_number(path: &Path) -> Option<u64> {
    read_if_there(path).ok().flatten()?.trim().parse().ok()
}

fn write(path: &Path, value: &str) -> Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut f| f.write_all(value.as_bytes()));
    written.map_err(|source| Error::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Writes a limit, or says in `warnings` that this host can't enforce it.
fn limit(what: &str, path: Option<PathBuf>, value: &str, warnings: &mut Vec<String>) -> Result<()> {
    let Some(path) = path else {
        warnings.push(format!(
            "{what} is not enforced: this host has no cgroup controller for it"
        ));
        return Ok(());
    };
    match write(&path, value) {
        Err(e) if e.is_gone() || e.is_unsupported() => {
            warnings.push(format!(
                "{what} is not enforced: the kernel has no {}",
                file_name(&path)
            ));
            Ok(())
        }
        other => other,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            v1: vec![
                Hierarchy {
                    mount: "/c/cpu".into(),
                    controllers: vec!["cpu".into(), "cpuacct".into()],
                },
                Hierarchy {
                    mount: "/c/systemd".into(),
                    controllers: vec!["name=systemd".into()],
                },
            ],
            v2: Some("/c/unified".into()),
        }
    }

    #[test]
    fn absolute_and_relative_paths_start_at_the_hierarchy() {
        for path in ["/docker/x", "docker/x", "./docker//x/"] {
            let cgroup = Cgroup::at(&layout(), Path::new(path)).unwrap();
            assert_eq!(
                cgroup.v1[0].directory,
                Path::new("/c/cpu/docker/x"),
                "{path}"
            );
            assert_eq!(
                cgroup.v2.as_deref(),
                Some(Path::new("/c/unified/docker/x")),
                "{path}"
            );
        }
    }

    #[test]
    fn a_path_cannot_leave_or_be_the_root() {
        for path in ["/../x", "a/../../x", "/", "", "."] {
            assert!(Cgroup::at(&layout(), Path::new(path)).is_err(), "{path}");
        }
    }
}
