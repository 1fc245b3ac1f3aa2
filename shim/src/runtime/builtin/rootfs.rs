//! From the host's view of files to the container's: the root, its mounts, devices and masks, and `pivot_root`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use davit_sys::mount_attr::MountAttr;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::devices;
use super::mounts::{Mounter, attributes, clone_tree};
use super::namespaces::{Namespaces, reason};
use super::options::propagation;
use crate::cgroup::Cgroup;
use crate::error::{Error, Kind, Result};

/// A root that is mounted and filled, and not yet entered.
#[derive(Debug)]
pub(super) struct Rootfs {
    root: OwnedFd,
    null: OwnedFd,
    /// Mounts that become read-only at the end.
    later: Vec<OwnedFd>,
}

/// What the shim gives to it.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) spec: &'a Spec,
    pub(super) bundle: &'a Path,
    pub(super) cgroup: &'a Cgroup,
    pub(super) sources: &'a [Option<OwnedFd>],
    pub(super) label: Option<&'a str>,
}

/// Where the spec's root is.
pub(super) fn path(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| Error::new(Kind::InvalidArgument, "the spec has no root"))?;
    Ok(bundle.join(root.path()))
}

impl Rootfs {
    /// Mounts everything, in the calling process's own mount namespace.
    pub(super) fn prepare(given: &Given<'_>, namespaces: &Namespaces) -> Result<Rootfs> {
        let Given { spec, bundle, .. } = *given;
        let null = devices::host_null()?;
        let linux = spec.linux().as_ref();
        let wanted = linux
            .and_then(|l| l.rootfs_propagation().as_deref())
            .and_then(propagation);
        // The host must not see the container's mounts; whether the container sees the host's is the spec's choice.
        let (kind, recursive) = wanted.unwrap_or((libc::MS_SLAVE, true));
        change(Path::new("/"), kind, recursive || wanted.is_none())?;
        let root = mount_root(&path(spec, bundle)?)?;
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        let mounter = Mounter {
            root: root.as_fd(),
            bundle,
            sources: given.sources,
            cgroup: given.cgroup,
            own_cgroup_namespace: namespaces.has(LinuxNamespaceType::Cgroup),
            label: given.label,
        };
        let later = mounter.mount_all(mounts)?;
        if devices::owns_dev(mounts) {
            let nodes = linux
                .and_then(|l| l.devices().as_deref())
                .unwrap_or_default();
            devices::make_all(
                root.as_fd(),
                nodes,
                namespaces.has(LinuxNamespaceType::User),
            )?;
        }
        Ok(Rootfs { root, null, later })
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Makes it the root of the calling process, and the host's gone. `chroot_only` keeps the host's mounts (a root
    /// on a ramdisk can't be moved).
    pub(super) fn enter(&self, spec: &Spec, chroot_only: bool) -> Result<()> {
        if chroot_only {
            self.chroot()
        } else {
            self.pivot()
        }
        .map_err(|e| Error::because("pivot_root", reason(&e.into())))?;
        let wanted = spec
            .linux()
            .as_ref()
            .and_then(|l| l.rootfs_propagation().as_deref())
            .and_then(propagation);
        if let Some((kind, recursive)) = wanted {
            change(Path::new("/"), kind, recursive)?;
        }
        Ok(())
    }

    /// The last touches before [`Rootfs::enter`], when nothing has to be written any more: masks, read-only paths, a
    /// read-only root.
    pub(super) fn close(&self, spec: &Spec) -> Result<()> {
        let read_only = MountAttr {
            set: libc::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        for mount in &self.later {
            attributes(mount, read_only, false)?;
        }
        if spec
            .root()
            .as_ref()
            .and_then(|r| r.readonly())
            .unwrap_or(false)
        {
            attributes(&self.root, read_only, false)?;
        }
        if let Some(linux) = spec.linux() {
            let root = self.root.as_fd();
            devices::read_only(root, linux.readonly_paths().as_deref().unwrap_or_default())?;
            devices::mask(
                root,
                &self.null,
                linux.masked_paths().as_deref().unwrap_or_default(),
            )?;
        }
        Ok(())
    }

    fn pivot(&self) -> rustix::io::Result<()> {
        let old = open(
            "/",
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        fchdir(&self.root)?;
        // The old root ends up on top of the new one, and is taken off without a directory for it.
        pivot_root(".", ".")?;
        fchdir(&old)?;
        mount_change(
            ".",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )?;
        unmount(".", UnmountFlags::DETACH)?;
        chdir("/")
    }

    fn chroot(&self) -> rustix::io::Result<()> {
        fchdir(&self.root)?;
        move_mount(
            &self.root,
            "",
            CWD,
            "/",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        rustix::process::chroot(".")?;
        chdir("/")
    }
}

/// A mount of its own for the root: `pivot_root` wants one, and making it read-only must not touch another's.
fn mount_root(path: &Path) -> Result<OwnedFd> {
    let fail = |e: Errno| Error::because(format!("rootfs {}", path.display()), reason(&e.into()));
    private_parent(path);
    let tree = clone_tree(CWD, path, true).map_err(fail)?;
    move_mount(
        &tree,
        "",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(fail)?;
    open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(fail)
}

/// `pivot_root` refuses a root whose parent mount is shared. Not a mount point: look at the directory above.
fn private_parent(path: &Path) {
    for directory in path.ancestors() {
        if mount_change(directory, MountPropagationFlags::PRIVATE).is_ok() {
            return;
        }
    }
}

fn change(path: &Path, kind: u64, recursive: bool) -> Result<()> {
    let mut flags = MountPropagationFlags::from_bits_retain(kind as u32);
    if recursive {
        flags |= MountPropagationFlags::REC;
    }
    mount_change(path, flags)
        .map_err(|e| Error::because("changing the propagation of /", reason(&e.into())))
}
