//! Device nodes, the links beside them, and the paths that are hidden or made read-only.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use davit_sys::mount_attr::MountAttr;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat, major, makedev, minor,
    mknodat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use super::inroot::{self, Leaf};
use super::mounts::{attach, attributes, clone_tree};
use super::namespaces::reason;
use super::options::Options;
use crate::error::{Error, Kind, Result};

/// The nodes that every container has (OCI runtime spec, "Default Devices").
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Whether `/dev` is the container's own, to be filled, and not a bind mount of somebody else's.
pub(super) fn owns_dev(mounts: &[Mount]) -> bool {
    !mounts.iter().any(|m| {
        let options = Options::parse(m.options().as_deref().unwrap_or_default());
        let bind = m.typ().as_deref() == Some("bind") || options.bind.is_some();
        bind && m
            .destination()
            .components()
            .eq(Path::new("/dev").components())
    })
}

/// Fills `/dev`. `bind`: nodes can't be made (user namespace), so the host's are bound.
pub(super) fn make_all(root: BorrowedFd<'_>, devices: &[LinuxDevice], bind: bool) -> Result<()> {
    let dev = inroot::ensure(root, Path::new("dev"), Leaf::Directory, Mode::empty())
        .map_err(failed("dev"))?;
    for (name, major, minor) in DEFAULTS {
        let path = Path::new("/dev").join(name);
        if devices.iter().any(|d| *d.path() == path) {
            continue;
        }
        let node = Node {
            kind: FileType::CharacterDevice,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        };
        node.make(&dev, Path::new(name), &path, bind)?;
    }
    for device in devices {
        let node = Node::of(device)?;
        let (directory, name) =
            inroot::parent(root, device.path()).map_err(failed(device.path()))?;
        node.make(&directory, Path::new(&name), device.path(), bind)?;
    }
    for (target, name) in LINKS {
        if name == "ptmx" {
            // A node in the image would lead to the host's terminals.
            let _ = unlinkat(&dev, name, AtFlags::empty());
        }
        link(&dev, target, name)?;
    }
    if Path::new("/proc/kcore").exists() {
        link(&dev, "/proc/kcore", "core")?;
    }
    Ok(())
}

struct Node {
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Node {
    fn of(device: &LinuxDevice) -> Result<Node> {
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => {
                let text = format!(
                    "device {}: a node can't be of type \"a\"",
                    device.path().display()
                );
                return Err(Error::new(Kind::InvalidArgument, text));
            }
        };
        let number = |n: i64| {
            let text = || format!("device {}: bad number {n}", device.path().display());
            u32::try_from(n).map_err(|_| Error::new(Kind::InvalidArgument, text()))
        };
        Ok(Node {
            kind,
            major: number(device.major())?,
            minor: number(device.minor())?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        })
    }

    fn make(&self, directory: &OwnedFd, name: &Path, path: &Path, bind: bool) -> Result<()> {
        if bind {
            return bind_node(directory, name, path);
        }
        let mode = Mode::from_raw_mode(self.mode);
        match mknodat(
            directory,
            name,
            self.kind,
            mode,
            makedev(self.major, self.minor),
        ) {
            Ok(()) => {
                // Past the umask.
                chmodat(directory, name, mode, AtFlags::empty()).map_err(failed(path))?;
                let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
                if (self.uid, self.gid) != (0, 0) {
                    chownat(
                        directory,
                        name,
                        Some(uid),
                        Some(gid),
                        AtFlags::SYMLINK_NOFOLLOW,
                    )
                    .map_err(failed(path))?;
                }
                Ok(())
            }
            Err(Errno::EXIST) => self.check(directory, name, path),
            Err(Errno::PERM) => bind_node(directory, name, path),
            Err(e) => Err(failed(path)(e)),
        }
    }

    /// What the image has at a device's place must be that device.
    fn check(&self, directory: &OwnedFd, name: &Path, path: &Path) -> Result<()> {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(path))?;
        let same = FileType::from_raw_mode(stat.st_mode) == self.kind
            && (self.kind == FileType::Fifo
                || (major(stat.st_rdev), minor(stat.st_rdev)) == (self.major, self.minor));
        if same {
            return Ok(());
        }
        let text = format!(
            "container device {} exists in the image but is not that device",
            path.display()
        );
        Err(Error::new(Kind::InvalidArgument, text))
    }
}

fn bind_node(directory: &OwnedFd, name: &Path, path: &Path) -> Result<()> {
    let tree = clone_tree(CWD, path, false).map_err(failed(path))?;
    let place = inroot::ensure(directory, name, Leaf::File, Mode::from_raw_mode(0o666))
        .map_err(failed(path))?;
    attach(tree, place)
}

fn link(dev: &OwnedFd, target: &str, name: &str) -> Result<()> {
    match symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(failed(Path::new("/dev").join(name))(e)),
    }
}

/// Hides `paths`: a directory behind an empty read-only one, a file behind the host's `/dev/null`. What is not there
/// needs no hiding. `null` was opened before anything of the container's was in reach.
pub(super) fn mask(root: BorrowedFd<'_>, null: &OwnedFd, paths: &[String]) -> Result<()> {
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let target = match inroot::open(root, Path::new(path), OFlags::PATH) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(e) => return Err(masked(path)(e)),
        };
        let is_directory = fstat(&target)
            .map(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
            .map_err(masked(path))?;
        if !is_directory {
            attach(
                clone_tree(null, Path::new(""), false).map_err(masked(path))?,
                &target,
            )?;
            continue;
        }
        let first = match &empty {
            Some(first) => clone_tree(first, Path::new(""), false).map_err(masked(path))?,
            None => empty_directory().map_err(masked(path))?,
        };
        attach(&first, &target)?;
        empty.get_or_insert(first);
    }
    Ok(())
}

fn empty_directory() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "tmpfs")?;
    fsconfig_set_string(&context, "nr_blocks", "1")?;
    fsconfig_set_string(&context, "nr_inodes", "1")?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
}

/// Makes `paths` read-only by mounting them on themselves.
pub(super) fn read_only(root: BorrowedFd<'_>, paths: &[String]) -> Result<()> {
    for path in paths {
        let fail = |e: Errno| Error::because(format!("readonly path {path}"), reason(&e.into()));
        let target = match inroot::open(root, Path::new(path), OFlags::PATH) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(e) => return Err(fail(e)),
        };
        let tree = clone_tree(&target, Path::new(""), true).map_err(fail)?;
        let change = MountAttr {
            set: libc::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        attributes(&tree, change, false)?;
        attach(tree, target)?;
    }
    Ok(())
}

/// The host's null device, checked to be it: what it is bound over must not become writable by a swapped node.
pub(super) fn host_null() -> Result<OwnedFd> {
    let null = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("/dev/null"))?;
    let stat = fstat(null.as_fd()).map_err(failed("/dev/null"))?;
    let real = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
    if real {
        Ok(null)
    } else {
        Err(Error::new(
            Kind::FailedPrecondition,
            "/dev/null is not the null device",
        ))
    }
}

fn failed(path: impl AsRef<Path>) -> impl Fn(Errno) -> Error {
    move |e| {
        Error::because(
            format!("error creating device {}", path.as_ref().display()),
            reason(&e.into()),
        )
    }
}

fn masked(path: &str) -> impl Fn(Errno) -> Error + '_ {
    move |e| Error::because(format!("can't mask path {path:?}"), reason(&e.into()))
}
