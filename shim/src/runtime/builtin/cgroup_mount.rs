//! `/sys/fs/cgroup` in a container: the host's layout of hierarchies, showing the container's own part of each.

use std::os::fd::OwnedFd;
use std::path::Path;

use davit_sys::mount_attr::MountAttr;
use rustix::fs::{Mode, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::inroot::{self, Leaf};
use super::mounts::{Mounter, attach, attributes, clone_tree};
use super::namespaces::reason;
use super::options::Options;
use crate::error::{Error, Result};

/// Mounts what the host has on `place`.
pub(super) fn mount(mounter: &Mounter<'_>, place: &OwnedFd, options: &Options) -> Result<()> {
    if mounter.cgroup.is_pure_v2() {
        let directory = mounter.cgroup.mounts().find(|(names, _)| names.is_empty());
        let Some((_, directory)) = directory else {
            return Ok(());
        };
        let tree = hierarchy(mounter, "", directory)?;
        attributes(&tree, options.attributes, false)?;
        return attach(tree, place);
    }
    let tmpfs = filesystem("tmpfs", &[("mode", Some("755"))], options)
        .map_err(|e| Error::because("tmpfs for cgroups", reason(&e.into())))?;
    attach(&tmpfs, place)?;
    for (names, directory) in mounter.cgroup.mounts() {
        one(mounter, &tmpfs, &names, directory, options)?;
    }
    let read_only = MountAttr {
        set: options.attributes.set & libc::MOUNT_ATTR_RDONLY,
        ..MountAttr::default()
    };
    attributes(&tmpfs, read_only, false)
}

fn one(
    mounter: &Mounter<'_>,
    tmpfs: &OwnedFd,
    names: &str,
    directory: &Path,
    options: &Options,
) -> Result<()> {
    let fail = |e: Errno| Error::because(format!("cgroup {names:?}"), reason(&e.into()));
    let name = match names {
        "" => "unified",
        names => names.strip_prefix("name=").unwrap_or(names),
    };
    let place =
        inroot::ensure(tmpfs, Path::new(name), Leaf::Directory, Mode::empty()).map_err(fail)?;
    let tree = hierarchy(mounter, names, directory)?;
    attributes(&tree, options.attributes, false)?;
    attach(tree, &place)?;
    // "cpu,cpuacct" is known by each of its names too.
    for alias in name.split(',').filter(|_| name.contains(',')) {
        match symlinkat(name, tmpfs, alias) {
            Err(Errno::EXIST) | Ok(()) => {}
            Err(e) => return Err(fail(e)),
        }
    }
    Ok(())
}

/// One hierarchy, as a new mount whose root is the container's own cgroup when it has a cgroup namespace, else as a
/// bind mount of that cgroup's directory.
fn hierarchy(mounter: &Mounter<'_>, names: &str, directory: &Path) -> Result<OwnedFd> {
    if mounter.own_cgroup_namespace {
        let made = match names {
            "" => filesystem("cgroup2", &[], &Options::default()),
            names if names.starts_with("name=") => {
                let value = names.trim_start_matches("name=");
                filesystem(
                    "cgroup",
                    &[("none", None), ("name", Some(value))],
                    &Options::default(),
                )
            }
            names => {
                let flags: Vec<_> = names.split(',').map(|name| (name, None)).collect();
                filesystem("cgroup", &flags, &Options::default())
            }
        };
        match made {
            Ok(tree) => return Ok(tree),
            // Not allowed in some user namespaces: the bind mount shows the same files.
            Err(e) => {
                tracing::debug!(error = %e, names, "binding the cgroup instead of mounting it")
            }
        }
    }
    clone_tree(rustix::fs::CWD, directory, false)
        .map_err(|e| Error::because(format!("cgroup {}", directory.display()), reason(&e.into())))
}

fn filesystem(
    kind: &str,
    config: &[(&str, Option<&str>)],
    options: &Options,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", kind)?;
    for (key, value) in config {
        match value {
            Some(value) => fsconfig_set_string(&context, *key, *value)?,
            None => fsconfig_set_flag(&context, *key)?,
        }
    }
    fsconfig_create(&context)?;
    let now = MountAttrFlags::from_bits_retain(options.without_read_only().set as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, now)
}
