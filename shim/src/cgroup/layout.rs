//! Which cgroup hierarchies this host has and where they are mounted.

use std::path::PathBuf;

use super::{Error, Result};

/// The hierarchies of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    pub(crate) v1: Vec<Hierarchy>,
    /// Where v2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside v1.
    pub(crate) v2: Option<PathBuf>,
}

/// One v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount: PathBuf,
    /// "cpu", "cpuacct", …, or "name=systemd" for one without controllers.
    pub(crate) controllers: Vec<String>,
}

impl Layout {
    /// Looks at the mounts of the calling process.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub(crate) fn detect() -> Result<Layout> {
        let path = PathBuf::from("/proc/self/mountinfo");
        let bytes = std::fs::read(&path).map_err(|e| Error::open(&path, e))?;
        Ok(Layout::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// From the text of a `mountinfo` file. Of several mounts of a hierarchy the first counts.
    pub(crate) fn parse(mountinfo: &str) -> Layout {
        let mut layout = Layout::default();
        for line in mountinfo.lines().filter(|l| l.contains(" - cgroup")) {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut right = right.split(' ');
            let (kind, options) = (
                right.next().unwrap_or_default(),
                right.nth(1).unwrap_or_default(),
            );
            let Some(mount) = left.split(' ').nth(4).map(unescape) else {
                continue;
            };
            match kind {
                "cgroup2" if layout.v2.is_none() => layout.v2 = Some(mount),
                "cgroup" => layout.add_v1(mount, options),
                _ => {}
            }
        }
        layout
    }

    fn add_v1(&mut self, mount: PathBuf, options: &str) {
        let controllers: Vec<String> = options
            .split(',')
            .filter(|o| is_controller(o))
            .map(str::to_owned)
            .collect();
        let known = |c: &String| self.v1.iter().any(|h| h.controllers.contains(c));
        if !controllers.is_empty() && !controllers.iter().any(known) {
            self.v1.push(Hierarchy { mount, controllers });
        }
    }
}

/// Super block options of a cgroup mount are the controllers and these.
fn is_controller(option: &str) -> bool {
    !matches!(
        option,
        "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "none" | "cpuset_v2_mode"
    ) && !option.starts_with("release_agent=")
}

/// Undoes the octal escapes of `mountinfo`.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(
        text.replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid() {
        let text = "\
26 23 0:22 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw,mode=755\n\
27 26 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct\n\
28 26 0:24 / /sys/fs/cgroup/systemd rw shared:6 - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd\n\
29 26 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
30 26 0:23 / /mnt/again rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
        let layout = Layout::parse(text);
        assert_eq!(layout.v2, Some("/sys/fs/cgroup/unified".into()));
        let names: Vec<_> = layout.v1.iter().map(|h| h.controllers.join(",")).collect();
        assert_eq!(names, ["cpu,cpuacct", "name=systemd"]);
        assert_eq!(
            layout.v1[0].mount,
            PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")
        );
    }

    #[test]
    fn unified_only() {
        let layout = Layout::parse(
            "29 26 0:25 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        assert!(layout.v1.is_empty());
        assert_eq!(layout.v2, Some("/sys/fs/cgroup".into()));
    }
}
