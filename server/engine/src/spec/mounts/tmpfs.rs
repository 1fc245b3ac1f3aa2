//! Options of tmpfs mounts.

use davit_store::options::Mount;

/// Options that take a value (tmpfs(5)).
const WITH_VALUE: &[&str] = &[
    "size",
    "mode",
    "uid",
    "gid",
    "nr_inodes",
    "nr_blocks",
    "mpol",
];

/// Mount flags, each with the option that it and its opposite share.
const FLAGS: &[(&str, &str)] = &[
    ("ro", "ro"),
    ("rw", "ro"),
    ("exec", "exec"),
    ("noexec", "exec"),
    ("suid", "suid"),
    ("nosuid", "suid"),
    ("dev", "dev"),
    ("nodev", "dev"),
    ("sync", "sync"),
    ("async", "sync"),
    ("dirsync", "dirsync"),
    ("atime", "atime"),
    ("noatime", "atime"),
    ("diratime", "diratime"),
    ("nodiratime", "diratime"),
    ("relatime", "relatime"),
    ("norelatime", "relatime"),
    ("strictatime", "strictatime"),
    ("nostrictatime", "strictatime"),
    ("private", "propagation"),
    ("rprivate", "propagation"),
    ("shared", "propagation"),
    ("rshared", "propagation"),
    ("slave", "propagation"),
    ("rslave", "propagation"),
    ("unbindable", "propagation"),
    ("runbindable", "propagation"),
    ("defaults", "defaults"),
];

/// The options of a tmpfs mount: docker's (noexec, nosuid, nodev, 1777), overridden
/// by the caller's; of opposites and repeated keys the last wins.
///
/// # Errors
/// A sentence that names the option.
pub(super) fn options(mount: &Mount) -> Result<Vec<String>, String> {
    // The mode is said, since runtimes differ in what they take without one:
    // that of a directory in the image, or of the one they made the last time.
    let defaults = ["noexec", "nosuid", "nodev", "rprivate", "mode=1777"];
    let mut given = defaults.map(str::to_owned).to_vec();
    if mount.tmpfs_size < 0 {
        return Err(format!("invalid tmpfs size {}", mount.tmpfs_size));
    }
    if mount.tmpfs_size > 0 {
        given.push(format!("size={}", mount.tmpfs_size));
    }
    if mount.tmpfs_mode > 0o7777 {
        return Err(format!("invalid tmpfs mode {:o}", mount.tmpfs_mode));
    }
    if mount.tmpfs_mode > 0 {
        given.push(format!("mode={:o}", mount.tmpfs_mode));
    }
    if mount.read_only {
        given.push("ro".to_owned());
    }
    given.extend(mount.options.iter().cloned());
    let mut kept: Vec<String> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for option in given.iter().rev() {
        if seen.insert(key(option)?) && option != "defaults" {
            kept.push(option.clone());
        }
    }
    kept.reverse();
    Ok(kept)
}

fn key(option: &str) -> Result<&str, String> {
    let invalid = || format!("invalid tmpfs option {option:?}");
    if let Some((name, value)) = option.split_once('=') {
        let known = WITH_VALUE.contains(&name) && !value.is_empty() && !value.contains(',');
        return known.then_some(name).ok_or_else(invalid);
    }
    FLAGS
        .iter()
        .find(|(flag, _)| *flag == option)
        .map(|&(_, key)| key)
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(list: &[&str]) -> Result<String, String> {
        let mount = Mount {
            options: list.iter().map(|&option| option.to_owned()).collect(),
            ..Default::default()
        };
        options(&mount).map(|list| list.join(","))
    }

    #[test]
    fn the_last_one_wins() {
        assert_eq!(get(&[]).unwrap(), "noexec,nosuid,nodev,rprivate,mode=1777");
        assert_eq!(
            get(&["exec", "size=64m", "size=1g"]).unwrap(),
            "nosuid,nodev,rprivate,mode=1777,exec,size=1g"
        );
        let mount = Mount {
            tmpfs_size: 4096,
            tmpfs_mode: 0o700,
            read_only: true,
            ..Default::default()
        };
        assert_eq!(
            options(&mount).unwrap().join(","),
            "noexec,nosuid,nodev,rprivate,size=4096,mode=700,ro"
        );
    }

    #[test]
    fn unknown_ones_are_refused() {
        assert_eq!(
            get(&["bogus"]).unwrap_err(),
            "invalid tmpfs option \"bogus\""
        );
        assert!(get(&["size="]).is_err());
        assert!(get(&["lowerdir=/x"]).is_err());
        assert!(
            options(&Mount {
                tmpfs_size: -1,
                ..Default::default()
            })
            .is_err()
        );
    }
}
