//! Device nodes of the host in the container, and the rules of its device
//! cgroup.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use davit_store::{Error, Result, options::ContainerOptions, options::Device};
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

/// What every container may use: its terminals, the harmless nodes of /dev,
/// and making (not opening) nodes of any kind. (kind, major, minor, access)
const DEFAULT_RULES: &[(LinuxDeviceType, Option<i64>, Option<i64>, &str)] = &[
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"), // null
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"), // zero
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"), // full
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"), // random
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"), // urandom
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"), // tty
    (LinuxDeviceType::C, Some(5), Some(1), "rwm"), // console
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"), // ptmx
    (LinuxDeviceType::C, Some(136), None, "rwm"),  // pts
];

/// Directories of /dev that hold no devices for a privileged container, or
/// none that it could use.
const NOT_OF_HOST: &[&str] = &["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];

/// Directories deep that are searched for devices.
const MAX_DEPTH: u32 = 16;

/// Nodes to make, and rules to set.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) nodes: Vec<LinuxDevice>,
    pub(super) rules: Vec<LinuxDeviceCgroup>,
}

/// Checks, without looking at the host's devices, what Create can check.
pub(super) fn check(options: &ContainerOptions) -> Result<()> {
    for device in &options.devices {
        permissions(&device.permissions)?;
        for path in [&device.host_path, &device.container_path]
            .into_iter()
            .filter(|path| !path.is_empty())
        {
            if !path.starts_with('/') {
                return Err(Error::invalid(format!("{path} is not an absolute path")));
            }
        }
    }
    for rule in &options.device_cgroup_rules {
        cgroup_rule(rule)?;
    }
    Ok(())
}

/// Gathers a container's devices as the host has them now.
pub(super) fn gather(options: &ContainerOptions) -> Result<Devices> {
    let mut devices = Devices::default();
    if options.privileged {
        devices
            .rules
            .push(rule(true, LinuxDeviceType::A, None, None, "rwm")?);
        let mut found = Vec::new();
        walk(Path::new("/dev"), Path::new("/dev"), 0, &mut found);
        // The container's console is its own terminal.
        found.retain(|(_, inside)| inside != Path::new("/dev/console"));
        for (host, inside) in found {
            devices.nodes.extend(node(&host, &inside)?);
        }
    } else {
        devices
            .rules
            .push(rule(false, LinuxDeviceType::A, None, None, "rwm")?);
        for &(typ, major, minor, access) in DEFAULT_RULES {
            devices.rules.push(rule(true, typ, major, minor, access)?);
        }
    }
    for device in &options.devices {
        add(&mut devices, device)?;
    }
    for text in &options.device_cgroup_rules {
        devices.rules.push(cgroup_rule(text)?);
    }
    Ok(devices)
}

/// Adds one device, or all below a directory.
fn add(devices: &mut Devices, device: &Device) -> Result<()> {
    let access = permissions(&device.permissions)?;
    let refuse = |why: &str| {
        let text = format!(
            "error gathering device information while adding custom device {:?}: {why}",
            device.host_path
        );
        Error::invalid(text)
    };
    let host = Path::new(&device.host_path);
    let inside = if device.container_path.is_empty() {
        host
    } else {
        Path::new(&device.container_path)
    };
    let real = host.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => refuse("no such file or directory"),
        _ => refuse(&error.to_string()),
    })?;
    let mut found = Vec::new();
    if real.is_dir() {
        walk(&real, inside, 0, &mut found);
    } else {
        found.push((real, inside.to_owned()));
    }
    let mut any = false;
    for (host, inside) in found {
        if let Some(node) = node(&host, &inside)? {
            any = true;
            devices.rules.push(rule(
                true,
                node.typ(),
                Some(node.major()),
                Some(node.minor()),
                &access,
            )?);
            devices.nodes.retain(|old| old.path() != node.path());
            devices.nodes.push(node);
        }
    }
    if !any {
        return Err(refuse("not a device node"));
    }
    Ok(())
}

/// All device nodes below `dir`, with the paths that they get below `inside`.
/// What can't be read or goes away meanwhile is left out.
fn walk(dir: &Path, inside: &Path, depth: u32, found: &mut Vec<(PathBuf, PathBuf)>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let name = entry.file_name();
        let place = inside.join(&name);
        if kind.is_dir() {
            let hidden = NOT_OF_HOST.iter().any(|known| name == *known);
            if depth < MAX_DEPTH && !hidden {
                walk(&entry.path(), &place, depth + 1, found);
            }
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push((entry.path(), place));
        }
    }
}

/// The node at `host` as it appears at `inside`; `None` when there is no
/// device.
fn node(host: &Path, inside: &Path) -> Result<Option<LinuxDevice>> {
    let Ok(metadata) = host.metadata() else {
        return Ok(None);
    };
    let kind = metadata.file_type();
    let typ = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => LinuxDeviceType::C,
        (_, true) => LinuxDeviceType::B,
        (false, false) => return Ok(None),
    };
    let (major, minor) = numbers(metadata.rdev());
    let node = LinuxDeviceBuilder::default()
        .path(inside)
        .typ(typ)
        .major(major)
        .minor(minor)
        .file_mode(metadata.mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
        .map_err(|error| {
            Error::internal(format!("making the entry of device {}", inside.display()))
                .with_source(error)
        })?;
    Ok(Some(node))
}

/// Major and minor number of a device.
pub(super) fn numbers(rdev: u64) -> (i64, i64) {
    (
        i64::from(rustix::fs::major(rdev)),
        i64::from(rustix::fs::minor(rdev)),
    )
}

/// "rwm" or a part of it; all when empty.
fn permissions(text: &str) -> Result<String> {
    let mut seen = std::collections::BTreeSet::new();
    if text
        .chars()
        .all(|letter| "rwm".contains(letter) && seen.insert(letter))
    {
        return Ok(if text.is_empty() {
            "rwm".to_owned()
        } else {
            text.to_owned()
        });
    }
    Err(Error::invalid(format!("invalid device mode: {text}")))
}

/// Reads "c 10:200 rwm", "b *:* m" or "a *:* rwm".
fn cgroup_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let fields: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = *fields.as_slice() else {
        return Err(invalid());
    };
    let typ = match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(invalid()),
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits
            .parse::<u32>()
            .map(|number| Some(i64::from(number)))
            .map_err(|_| invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    if access.is_empty() {
        return Err(invalid());
    }
    permissions(access).map_err(|_| invalid())?;
    rule(true, typ, number(major)?, number(minor)?, access)
}

fn rule(
    allow: bool,
    typ: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup> {
    let mut builder = LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .typ(typ)
        .access(access);
    if let Some(major) = major {
        builder = builder.major(major);
    }
    if let Some(minor) = minor {
        builder = builder.minor(minor);
    }
    builder
        .build()
        .map_err(|error| Error::internal("making a device rule").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(host: &str, inside: &str, permissions: &str) -> ContainerOptions {
        let device = Device {
            host_path: host.to_owned(),
            container_path: inside.to_owned(),
            permissions: permissions.to_owned(),
        };
        ContainerOptions {
            devices: vec![device],
            ..Default::default()
        }
    }

    #[test]
    fn one_node() {
        let devices = gather(&with("/dev/null", "/dev/xnull", "rw")).unwrap();
        let node = &devices.nodes[0];
        assert_eq!(
            (node.path().as_path(), node.major(), node.minor()),
            (Path::new("/dev/xnull"), 1, 3)
        );
        let rule = devices.rules.last().unwrap();
        assert_eq!(
            (rule.major(), rule.access().as_deref()),
            (Some(1), Some("rw"))
        );
        assert!(!devices.rules[0].allow());
    }

    #[test]
    fn a_directory_means_all_below() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        for name in ["one", "sub/two"] {
            let kind = nix::sys::stat::SFlag::S_IFCHR;
            nix::sys::stat::mknod(
                &dir.path().join(name),
                kind,
                nix::sys::stat::Mode::from_bits_truncate(0o640),
                libc_makedev(),
            )
            .unwrap();
        }
        let devices = gather(&with(dir.path().to_str().unwrap(), "/dev/all", "")).unwrap();
        let mut paths: Vec<_> = devices
            .nodes
            .iter()
            .map(|node| node.path().to_string_lossy().into_owned())
            .collect();
        paths.sort();
        assert_eq!(paths, ["/dev/all/one", "/dev/all/sub/two"]);
        assert_eq!(devices.nodes[0].file_mode(), Some(0o640));
    }

    fn libc_makedev() -> u64 {
        nix::sys::stat::makedev(1, 3)
    }

    #[test]
    fn privileged_has_all() {
        let devices = gather(&ContainerOptions {
            privileged: true,
            ..Default::default()
        })
        .unwrap();
        assert!(
            devices
                .nodes
                .iter()
                .any(|node| node.path() == Path::new("/dev/null"))
        );
        assert!(
            !devices
                .nodes
                .iter()
                .any(|node| node.path().starts_with("/dev/pts"))
        );
        assert_eq!(devices.rules.len(), 1);
        assert!(devices.rules[0].allow());
    }

    #[test]
    fn refusals() {
        let text = |options: &ContainerOptions| gather(options).unwrap_err().to_string();
        assert_eq!(
            text(&with("/dev/nope", "", "")),
            "error gathering device information while adding custom device \"/dev/nope\": no such file or directory"
        );
        assert!(text(&with("/etc/passwd", "/dev/x", "")).ends_with("not a device node"));
        assert_eq!(
            text(&with("/dev/null", "", "rx")),
            "invalid device mode: rx"
        );
        for rule in [
            "", "c", "c 1:3", "x 1:3 r", "c 1-3 r", "c 1:3 z", "c a:3 r", "c 1:3 rr", "c 1:3 ",
        ] {
            let options = ContainerOptions {
                device_cgroup_rules: vec![rule.to_owned()],
                ..Default::default()
            };
            assert_eq!(
                check(&options).unwrap_err().to_string(),
                format!("invalid device cgroup rule format: '{rule}'")
            );
        }
        let options = ContainerOptions {
            device_cgroup_rules: vec!["c 10:* rwm".to_owned()],
            ..Default::default()
        };
        assert_eq!(
            gather(&options).unwrap().rules.last().unwrap().minor(),
            None
        );
    }
}
