//! The mounts of a spec, made detached and then put on their place, so that nothing half-made is ever visible and no
//! path is walked twice.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use davit_sys::mount_attr::MountAttr;
use oci_spec::runtime::Mount;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::cgroup_mount;
use super::copy_up::copy_up;
use super::inroot::{self, Leaf};
use super::namespaces::reason;
use super::options::Options;
use crate::cgroup::Cgroup;
use crate::error::{Error, Kind, Result};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Files in `/proc` that something like lxcfs may put its own version over.
const OVER_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// What mounts are made with.
#[derive(Debug)]
pub(super) struct Mounter<'a> {
    /// The container's root, mounted.
    pub(super) root: BorrowedFd<'a>,
    pub(super) bundle: &'a Path,
    /// Source trees opened by the shim, one for each mount of the spec (`None`: open it here).
    pub(super) sources: &'a [Option<OwnedFd>],
    pub(super) cgroup: &'a Cgroup,
    pub(super) own_cgroup_namespace: bool,
    /// SELinux label for new file systems.
    pub(super) label: Option<&'a str>,
}

/// Opens the source of a bind mount as a detached copy. Done by the shim when the container has a user namespace,
/// whose root may not walk to the source.
pub(super) fn open_source(bundle: &Path, mount: &Mount) -> Result<Option<OwnedFd>> {
    let options = Options::parse(mount.options().as_deref().unwrap_or_default());
    match bind_of(mount, &options) {
        Some(recursive) => bind_tree(bundle, mount, recursive).map(Some),
        None => Ok(None),
    }
}

/// Descriptors of [`open_source`] to keep open in the new process.
pub(super) fn raw_sources(sources: &[Option<OwnedFd>]) -> impl Iterator<Item = RawFd> {
    sources.iter().flatten().map(AsRawFd::as_raw_fd)
}

impl Mounter<'_> {
    /// Makes them in order. Gives those that are to become read-only once everything is in place.
    pub(super) fn mount_all(&self, mounts: &[Mount]) -> Result<Vec<OwnedFd>> {
        let mut later = Vec::new();
        for (at, mount) in mounts.iter().enumerate() {
            let source = self.sources.get(at).and_then(Option::as_ref);
            self.mount(mount, source, &mut later).map_err(|e| {
                let from = mount
                    .source()
                    .as_ref()
                    .map(|s| s.display().to_string())
                    .unwrap_or_default();
                e.within(format!(
                    "error mounting {from:?} to rootfs at {:?}",
                    mount.destination()
                ))
            })?;
        }
        Ok(later)
    }

    fn mount(
        &self,
        mount: &Mount,
        source: Option<&OwnedFd>,
        later: &mut Vec<OwnedFd>,
    ) -> Result<()> {
        let options = Options::parse(mount.options().as_deref().unwrap_or_default());
        let destination = mount.destination();
        if let Some(recursive) = bind_of(mount, &options) {
            return self.bind(mount, source, recursive, &options);
        }
        if options.remount {
            let place =
                inroot::open(self.root, destination, OFlags::PATH).map_err(because("opening"))?;
            return finish(&place, &options, options.attributes);
        }
        match mount.typ().as_deref().unwrap_or_default() {
            "cgroup" | "cgroup2" => {
                let place = self.place(destination, Leaf::Directory)?;
                cgroup_mount::mount(self, &place, &options)
            }
            kind => {
                check_proc(destination, kind, None)?;
                let place = self.ordinary_place(destination, kind)?;
                self.filesystem(mount, kind, &place, &options, later)
            }
        }
    }

    /// `/proc` and `/sys` are what masks, read-only paths and sysctls rely on: no symlink may lead them elsewhere.
    fn ordinary_place(&self, destination: &Path, kind: &str) -> Result<OwnedFd> {
        if matches!(kind, "proc" | "sysfs") {
            match inroot::open_without_symlinks(self.root, destination) {
                Err(Errno::NOENT) => {}
                Ok(_) => {}
                Err(Errno::LOOP) => {
                    return Err(invalid(format!(
                        "filesystem {kind:?} must be mounted on ordinary directory"
                    )));
                }
                Err(e) => return Err(Error::because("opening", reason(&e.into()))),
            }
        }
        self.place(destination, Leaf::Directory)
    }

    pub(super) fn place(&self, destination: &Path, leaf: Leaf) -> Result<OwnedFd> {
        inroot::ensure(self.root, destination, leaf, Mode::from_raw_mode(0o755)).map_err(|e| {
            Error::because(
                format!("making {}", destination.display()),
                reason(&e.into()),
            )
        })
    }

    fn bind(
        &self,
        mount: &Mount,
        source: Option<&OwnedFd>,
        recursive: bool,
        options: &Options,
    ) -> Result<()> {
        let own;
        let tree = match source {
            Some(tree) => tree,
            None => {
                own = bind_tree(self.bundle, mount, recursive)?;
                &own
            }
        };
        check_proc(mount.destination(), "bind", Some(tree.as_fd()))?;
        let stat = fstat(tree).map_err(because("stat"))?;
        let leaf = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Leaf::Directory,
            _ => Leaf::File,
        };
        let place = self.place(mount.destination(), leaf)?;
        attributes(tree, options.attributes, false)?;
        attributes(tree, options.recursive, true)?;
        attach(tree, &place)?;
        propagate(tree, options)
    }

    fn filesystem(
        &self,
        mount: &Mount,
        kind: &str,
        place: &OwnedFd,
        options: &Options,
        later: &mut Vec<OwnedFd>,
    ) -> Result<()> {
        let tree = self.make(mount, kind, place, options)?;
        let is_dev = mount.destination() == Path::new("/dev");
        let fill_first = options.read_only() && (is_dev || options.copy_up);
        if options.copy_up {
            let covered = inroot::open(place, Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY);
            covered
                .and_then(|covered| copy_up(&covered, &tree))
                .map_err(|e| Error::because("copying what the mount covers", reason(&e.into())))?;
        }
        attach(&tree, place)?;
        if fill_first {
            finish(&tree, options, options.without_read_only())?;
            later.push(tree);
            return Ok(());
        }
        finish(&tree, options, options.attributes)
    }

    /// A new file system that nobody sees yet.
    fn make(
        &self,
        mount: &Mount,
        kind: &str,
        place: &OwnedFd,
        options: &Options,
    ) -> Result<OwnedFd> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| match e {
            Errno::NODEV => invalid(format!(
                "no such device: this kernel has no file system {kind:?}"
            )),
            e => Error::because("fsopen", reason(&e.into())),
        })?;
        let set = |key: &str, value: Option<&str>| {
            match value {
                Some(value) => fsconfig_set_string(&context, key, value),
                None => fsconfig_set_flag(&context, key),
            }
            .map_err(|e| Error::because(format!("option {key:?}"), log_or(&context, e)))
        };
        let source = mount
            .source()
            .as_ref()
            .and_then(|s| s.to_str())
            .unwrap_or(kind);
        set("source", Some(source))?;
        if kind == "tmpfs" && options.data_value("mode").is_none() {
            // As what it covers: a /tmp stays open to everybody.
            let mode = fstat(place).map_err(because("stat"))?.st_mode & 0o7777;
            set("mode", Some(&format!("{mode:o}")))?;
        }
        let pseudo = matches!(kind, "proc" | "sysfs" | "tmpfs" | "mqueue" | "devpts");
        if options.read_only() && !pseudo {
            set("ro", None)?;
        }
        for flag in &options.filesystem {
            set(flag, None)?;
        }
        for (key, value) in &options.data {
            set(key, value.as_deref())?;
        }
        if let Some(label) = self
            .label
            .filter(|_| matches!(kind, "tmpfs" | "devpts" | "mqueue"))
        {
            set("context", Some(label))?;
        }
        fsconfig_create(&context).map_err(|e| Error::because(kind, log_or(&context, e)))?;
        let now = MountAttrFlags::from_bits_retain(options.without_read_only().set as u32);
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, now).map_err(because("fsmount"))
    }
}

/// Whether it is a bind mount, and a recursive one.
fn bind_of(mount: &Mount, options: &Options) -> Option<bool> {
    match mount.typ().as_deref() {
        Some("bind") => Some(options.bind.unwrap_or(false)),
        _ if options.remount => None,
        _ => options.bind,
    }
}

fn bind_tree(bundle: &Path, mount: &Mount, recursive: bool) -> Result<OwnedFd> {
    let source = mount.source().clone().unwrap_or_default();
    if source.as_os_str().is_empty() {
        return Err(invalid("a bind mount needs a source"));
    }
    let source: PathBuf = if source.is_absolute() {
        source
    } else {
        bundle.join(source)
    };
    clone_tree(CWD, &source, recursive)
        .map_err(|e| Error::because(format!("stat {}", source.display()), reason(&e.into())))
}

/// A detached copy of the mount (or of the directory in it) at `path`.
pub(super) fn clone_tree(
    from: impl AsFd,
    path: &Path,
    recursive: bool,
) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(from, path, flags)
}

/// Puts a detached mount on `place`.
pub(super) fn attach(tree: impl AsFd, place: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", place, "", flags).map_err(because("attaching the mount"))
}

/// Nothing but known files may cover what is in `/proc`, and nothing but a real procfs may be `/proc`.
fn check_proc(destination: &Path, kind: &str, source: Option<BorrowedFd<'_>>) -> Result<()> {
    let clean: PathBuf = destination.components().collect();
    let Ok(below) = clean.strip_prefix("/proc") else {
        return Ok(());
    };
    if below.as_os_str().is_empty() {
        let real = match source {
            Some(tree) => fstatfs(tree).is_ok_and(|s| s.f_type == PROC_SUPER_MAGIC),
            None => kind == "proc",
        };
        return if real {
            Ok(())
        } else {
            Err(invalid(format!(
                "{clean:?} cannot be mounted because it is not of type proc"
            )))
        };
    }
    if kind == "bind" && OVER_PROC.iter().any(|allowed| clean.starts_with(allowed)) {
        return Ok(());
    }
    Err(invalid(format!(
        "{clean:?} cannot be mounted because it is inside /proc"
    )))
}

fn finish(tree: &OwnedFd, options: &Options, now: MountAttr) -> Result<()> {
    attributes(tree, now, false)?;
    attributes(tree, options.recursive, true)?;
    propagate(tree, options)
}

fn propagate(tree: &OwnedFd, options: &Options) -> Result<()> {
    for (propagation, recursive) in &options.propagation {
        let change = MountAttr {
            propagation: *propagation,
            ..MountAttr::default()
        };
        attributes(tree, change, *recursive)?;
    }
    Ok(())
}

pub(super) fn attributes(tree: impl AsFd, change: MountAttr, recursive: bool) -> Result<()> {
    if change.is_empty() {
        return Ok(());
    }
    change
        .apply(tree, recursive)
        .map_err(|e| Error::because("mount_setattr", reason(&e)))
}

/// The kernel's own words, when it left any in the context.
fn log_or(context: &OwnedFd, error: Errno) -> String {
    let mut line = [0u8; 512];
    match rustix::io::read(context, &mut line) {
        Ok(n) if n > 2 => {
            let text = String::from_utf8_lossy(&line[2..n]).trim_end().to_owned();
            format!("{} ({text})", reason(&error.into()))
        }
        _ => reason(&error.into()),
    }
}

fn because(what: &'static str) -> impl Fn(Errno) -> Error {
    move |e| Error::because(what, reason(&e.into()))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_protected() {
        assert!(check_proc(Path::new("/proc"), "proc", None).is_ok());
        assert!(check_proc(Path::new("/proc"), "tmpfs", None).is_err());
        assert!(check_proc(Path::new("/proc/sys"), "tmpfs", None).is_err());
        assert!(check_proc(Path::new("/proc/cpuinfo"), "bind", None).is_ok());
        assert!(check_proc(Path::new("/proc//./"), "tmpfs", None).is_err());
        assert!(check_proc(Path::new("/processes"), "tmpfs", None).is_ok());
    }
}
