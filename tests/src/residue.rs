//! What a daemon may leave behind: processes, mounts, cgroups and network
//! namespaces that carry its directories or its containers' ids.

use std::{collections::BTreeSet, fs, path::Path};

/// What was found that should not be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Residue {
    /// "pid: command line" of processes that mention the root or state.
    pub processes: BTreeSet<String>,
    /// Mount points below the root or state.
    pub mounts: BTreeSet<String>,
    /// cgroups with the marker in their path.
    pub cgroups: BTreeSet<String>,
}

impl Residue {
    /// Looks for everything that mentions `base` (a daemon's temporary
    /// directory) and for cgroups whose path contains `marker`.
    pub fn of(base: &Path, marker: &str) -> Self {
        let base = base.to_string_lossy();
        Self {
            processes: processes(&base),
            mounts: mounts(&base),
            cgroups: cgroups(marker),
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Links of the host that belong to the daemon whose root is this: bridges and
/// the outer ends of containers' interfaces. They carry the root's hash.
pub(crate) fn links(root: &Path) -> BTreeSet<String> {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in root.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let tag = format!("d{:06x}", hash & 0xff_ffff);
    fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&tag))
        .collect()
}

fn processes(base: &str) -> BTreeSet<String> {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().into_string().ok()?;
            if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(base).then(|| format!("{pid}: {line}"))
        })
        .collect()
}

fn mounts(base: &str) -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(base))
        .map(str::to_owned)
        .collect()
}

fn cgroups(marker: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = entry.path();
            if path.to_string_lossy().contains(marker) {
                found.insert(path.to_string_lossy().into_owned());
            }
            open.push(path);
        }
    }
    found
}
