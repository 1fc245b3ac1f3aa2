//! The cgroup below which the containers' cgroups lie, in every hierarchy.

use std::{fs, path::Path};

/// Removes the parent from all hierarchies where nothing lies below it any
/// more, so that a daemon that stops with no container leaves no cgroup. A
/// parent in use can't be removed, and the kernel says so.
pub(crate) fn remove_if_empty(parent: &str) {
    let parent = parent.trim_matches('/');
    if parent.is_empty() || parent.split('/').any(|part| part == "..") {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines() {
        let Some((fields, kind)) = line.split_once(" - ") else {
            continue;
        };
        if !kind.starts_with("cgroup") {
            continue;
        }
        if let Some(point) = fields.split(' ').nth(4) {
            let _ = fs::remove_dir(Path::new(point).join(parent));
        }
    }
}
