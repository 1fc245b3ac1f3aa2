//! What a container changed in its image's files.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use davit_images::{Snapshots, diff};
use davit_store::Result;

use crate::model::{Change, ChangeKind};

/// Places that the runtime makes in every container to mount something there.
/// docker keeps them in a layer of their own; here they are in the writable
/// one and left out.
pub(super) const MADE_BY_RUNTIME: &[&str] = &[
    "/dev",
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/sbin/docker-init",
    "/sys",
    "/sys/fs",
    "/sys/fs/cgroup",
];

/// The paths that differ from the image, in order.
///
/// # Errors
/// Those of the snapshotter.
pub async fn diff(snapshots: &Snapshots, namespace: &str, key: &str) -> Result<Vec<Change>> {
    let changes = diff::changes(snapshots, namespace, key).await?;
    let changes = changes.into_iter().map(|change| Change {
        kind: kind(change.kind),
        path: change.path,
    });
    Ok(without_mount_points(changes.collect()))
}

fn kind(kind: diff::ChangeKind) -> ChangeKind {
    match kind {
        diff::ChangeKind::Added => ChangeKind::Added,
        diff::ChangeKind::Modified => ChangeKind::Modified,
        diff::ChangeKind::Deleted => ChangeKind::Deleted,
    }
}

/// Leaves out what the runtime made, and directories that appear only because
/// something was made in them.
fn without_mount_points(changes: Vec<Change>) -> Vec<Change> {
    let made = |change: &Change| {
        change.kind == ChangeKind::Added
            && MADE_BY_RUNTIME
                .iter()
                .any(|place| change.path == Path::new(place))
    };
    // A directory is worth showing when something else in it is; and one that
    // the runtime did not touch, in any case.
    let parents_of = |list: &[&Change]| -> BTreeSet<PathBuf> {
        list.iter()
            .flat_map(|change| change.path.ancestors().skip(1).map(Path::to_owned))
            .collect()
    };
    let (by_runtime, others): (Vec<&Change>, Vec<&Change>) =
        changes.iter().partition(|change| made(change));
    let touched = parents_of(&by_runtime);
    let is_directory_of_mounts =
        |change: &Change| change.kind != ChangeKind::Deleted && touched.contains(&change.path);
    let real: Vec<&Change> = others
        .iter()
        .copied()
        .filter(|change| !is_directory_of_mounts(change))
        .collect();
    let kept = parents_of(&real);
    changes
        .iter()
        .filter(|change| {
            let made_or_touched = made(change) || is_directory_of_mounts(change);
            !made_or_touched || kept.contains(&change.path)
        })
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(list: &[&str]) -> Vec<String> {
        let change = |text: &&str| {
            let (kind, path) = text.split_once(' ').unwrap();
            let kind = match kind {
                "A" => ChangeKind::Added,
                "C" => ChangeKind::Modified,
                _ => ChangeKind::Deleted,
            };
            Change {
                kind,
                path: PathBuf::from(path),
            }
        };
        let changes = list.iter().map(change).collect();
        without_mount_points(changes)
            .iter()
            .map(|change| format!("{:?} {}", change.kind, change.path.display()))
            .collect()
    }

    #[test]
    fn a_container_that_did_nothing_shows_nothing() {
        let made = [
            "A /dev",
            "A /dev/pts",
            "C /etc",
            "A /etc/hosts",
            "A /etc/resolv.conf",
            "A /proc",
            "A /sys",
        ];
        assert!(filtered(&made).is_empty());
        assert!(filtered(&["A /etc", "A /etc/hosts"]).is_empty());
    }

    #[test]
    fn what_it_did_is_shown_with_its_directories() {
        let list = [
            "C /etc",
            "A /etc/hosts",
            "A /etc/mine",
            "A /dev",
            "A /dev/x",
            "C /root",
            "C /etc/passwd",
            "D /tmp",
        ];
        let expected = [
            "Modified /etc",
            "Added /etc/mine",
            "Added /dev",
            "Added /dev/x",
            "Modified /root",
            "Modified /etc/passwd",
            "Deleted /tmp",
        ];
        assert_eq!(filtered(&list), expected);
    }

    #[test]
    fn an_image_with_the_files_shows_changes_to_them() {
        assert_eq!(
            filtered(&["C /etc", "C /etc/hosts"]),
            ["Modified /etc", "Modified /etc/hosts"]
        );
        assert_eq!(
            filtered(&["C /etc", "D /etc/hosts"]),
            ["Modified /etc", "Deleted /etc/hosts"]
        );
    }
}
