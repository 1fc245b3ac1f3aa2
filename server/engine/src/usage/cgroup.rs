//! The cgroup of a container, whatever the layout.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use davit_store::{Error, Result};

use super::{v1, v2};
use crate::{
    model::{BlkioStats, CpuStats, MemoryStats, PidsStats},
    spec::{CgroupMode, HostFacts},
};

/// Cgroups within each other that are searched for processes.
const MAX_DEPTH: u32 = 32;

/// A container's directories in the cgroup file systems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// One directory a controller.
    V1(Vec<(String, PathBuf)>),
    /// One directory.
    V2(PathBuf),
}

impl Cgroup {
    /// Finds the cgroup by the path in the container's spec; where that is not
    /// there (another runtime's idea of it), by its first process.
    ///
    /// # Errors
    /// `NotFound` when there is neither.
    pub fn find(host: &HostFacts, path: &str, pid: u32) -> Result<Self> {
        let relative = path.trim_start_matches('/');
        let of_process = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let place = |controller: &str, mount: &Path| {
            let planned = mount.join(relative);
            if !relative.is_empty() && planned.is_dir() {
                return Some(planned);
            }
            let place = mount.join(path_of(&of_process, controller)?.trim_start_matches('/'));
            place.is_dir().then_some(place)
        };
        let found: Vec<(String, PathBuf)> = host
            .cgroup
            .mounts
            .iter()
            .filter_map(|(controller, mount)| Some((controller.clone(), place(controller, mount)?)))
            .collect();
        match (host.cgroup.mode, found.first()) {
            (_, None) => Err(Error::not_found(format!(
                "the cgroup {path} is not there: the container does not run"
            ))),
            (CgroupMode::V2, Some((_, place))) => Ok(Self::V2(place.clone())),
            (CgroupMode::V1 | CgroupMode::Hybrid, Some(_)) => Ok(Self::V1(found)),
        }
    }

    /// Time on CPUs.
    pub fn cpu(&self) -> CpuStats {
        match self {
            Self::V1(dirs) => v1::cpu(dirs),
            Self::V2(dir) => v2::cpu(dir),
        }
    }

    /// Memory.
    pub fn memory(&self) -> MemoryStats {
        match self {
            Self::V1(dirs) => v1::memory(dirs),
            Self::V2(dir) => v2::memory(dir),
        }
    }

    /// Number of processes.
    pub fn pids(&self) -> PidsStats {
        match self {
            Self::V1(dirs) => v1::pids(dirs),
            Self::V2(dir) => v2::pids(dir),
        }
    }

    /// Block devices.
    pub fn block_io(&self) -> BlkioStats {
        match self {
            Self::V1(dirs) => v1::block_io(dirs),
            Self::V2(dir) => v2::block_io(dir),
        }
    }

    /// All its processes, those of cgroups below it included.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn processes(&self) -> Result<BTreeSet<u32>> {
        let dir = match self {
            Self::V1(dirs) => {
                // Any hierarchy that the container has to itself will do.
                let known = ["pids", "memory", "devices", "freezer", "cpu"];
                let best = known
                    .iter()
                    .find_map(|name| dirs.iter().find(|(controller, _)| controller == name));
                best.or(dirs.first()).map(|(_, dir)| dir.as_path())
            }
            Self::V2(dir) => Some(dir.as_path()),
        };
        let dir = dir.ok_or_else(|| Error::not_found("the container has no cgroup"))?;
        let mut found = BTreeSet::new();
        collect(dir, 0, &mut found).map_err(|error| {
            Error::io(format!("reading the processes of {}", dir.display()), error)
        })?;
        Ok(found)
    }
}

fn collect(dir: &Path, depth: u32, found: &mut BTreeSet<u32>) -> io::Result<()> {
    let text = match fs::read_to_string(dir.join("cgroup.procs")) {
        // A threaded cgroup has threads only; their processes stand above it.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
            String::new()
        }
        other => other?,
    };
    found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    if depth >= MAX_DEPTH {
        return Ok(());
    }
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            match collect(&entry.path(), depth + 1, found) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The path that /proc/<pid>/cgroup gives for a controller ("" on v2).
fn path_of<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        names
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    })
}

/// The number in a file of one number; 0 when it is not there, the largest
/// number for "max".
pub(super) fn number(path: PathBuf) -> u64 {
    match fs::read_to_string(path).unwrap_or_default().trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// The pairs of a file with "key value" lines.
pub(super) fn pairs(path: PathBuf) -> std::collections::BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_by_name() {
        let text = "9:name=systemd:/a\n4:cpu,cpuacct:/b:c\n0::/d\n";
        assert_eq!(path_of(text, "cpuacct"), Some("/b:c"));
        assert_eq!(path_of(text, ""), Some("/d"));
        assert_eq!(path_of(text, "memory"), None);
    }
}
