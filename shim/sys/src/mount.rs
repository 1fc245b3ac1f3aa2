//! Mounts as values, and putting them on a directory or on nothing but a
//! descriptor.
//!
//! A detached mount goes with its last descriptor, so a crash leaves nothing
//! behind. Overlay mounts with any number of lower directories work: newer
//! kernels take them one by one (`lowerdir+`), older ones get paths relative
//! to their common parent, since mount data must fit a page.

use std::{
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags,
        MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, mount, mount_change, move_mount, open_tree, unmount,
    },
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::mount_attr::MountAttr;

/// One mount, in the form that containerd's API and shims use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// "overlay", "bind", "tmpfs", or any other file system of the kernel.
    pub kind: String,
    /// Device or directory; for overlay just "overlay".
    pub source: String,
    /// Path below the common target, or empty for the target itself.
    pub target: String,
    /// Options as in fstab; `:` and `\` inside overlay paths are escaped by `\`.
    pub options: Vec<String>,
}

/// A mount that failed: what was tried, and the system's answer.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct MountError {
    what: String,
    #[source]
    source: io::Error,
}

impl MountError {
    fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            what: what.into(),
            source: source.into(),
        }
    }

    /// The system's answer.
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// The system's answer alone.
    pub fn into_io(self) -> io::Error {
        self.source
    }
}

type Result<T> = std::result::Result<T, MountError>;

/// Mounts `mounts` in order on `target`. When one fails, those before it are
/// taken off again.
pub fn attach(mounts: &[Mount], target: &Path) -> Result<()> {
    let mut done: Vec<PathBuf> = Vec::new();
    for one in mounts {
        let place = place_below(target, &one.target)?;
        if let Err(error) = attach_one(one, &place) {
            for path in done.iter().rev() {
                // Best effort: the first error is the one to tell.
                let _ = unmount(path.as_path(), UnmountFlags::DETACH);
            }
            return Err(error);
        }
        done.push(place);
    }
    Ok(())
}

/// Makes `mounts`, of which there must be exactly one, without attaching it
/// anywhere. It is gone when the descriptor is closed.
pub fn detached(mounts: &[Mount]) -> Result<OwnedFd> {
    match mounts {
        [one] if one.target.is_empty() => detached_one(one),
        _ => Err(MountError::new(
            format!(
                "a detached mount is made of one mount, not of {}",
                mounts.len()
            ),
            Errno::INVAL,
        )),
    }
}

/// Something of the host that is bound on a place in a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placed {
    /// Directory or file on the host.
    pub source: PathBuf,
    /// Path in the tree; links in it lead to nowhere but the tree.
    pub place: PathBuf,
    /// Bind it read-only.
    pub read_only: bool,
}

/// As [`detached`], with `placed` bound in it, the outer before the inner.
/// Places that are not there are made with `make_places`, and left out
/// without; so are sources that are not there.
pub fn detached_with(mounts: &[Mount], placed: &[Placed], make_places: bool) -> Result<OwnedFd> {
    let [one] = mounts else {
        return detached(mounts);
    };
    if placed.is_empty() {
        return detached_one(one);
    }
    // Hides /proc, so what needs it comes before.
    let spot = Path::new("/proc");
    let io = |error: MountError| io::Error::new(error.source.kind(), error.to_string());
    on_own_thread(UnshareFlags::FS | UnshareFlags::NEWNS, || {
        mount_change(
            "/",
            MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
        )?;
        let mut trees = Vec::new();
        for bound in placed.iter().filter(|bound| bound.source.exists()) {
            let source = bound.source.to_string_lossy().into_owned();
            let mut options = vec!["rbind".to_owned()];
            if bound.read_only {
                options.push("ro".to_owned());
            }
            let bind = Mount {
                source,
                options,
                ..Mount::default()
            };
            let tree = bind_tree(&bind, &Options::parse(&bind.options)).map_err(io)?;
            trees.push((tree, bound));
        }
        attach_one(one, spot).map_err(io)?;
        let top = open(
            spot,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        for (tree, bound) in trees {
            if let Some(place) = place_in(&top, &bound.place, make_places)? {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
                    | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                move_mount(tree, "", place, "", flags)?;
            }
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        Ok(open_tree(CWD, spot, flags)?)
    })
    .map_err(|e| MountError::new("mounting a tree with others in it", e))
}

/// Opens `path` beneath `top`; directories that are missing are made with
/// `make`, else there is nothing.
fn place_in(top: &OwnedFd, path: &Path, make: bool) -> io::Result<Option<OwnedFd>> {
    let find = |path: &Path| {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(
                top,
                path,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                found => return found,
            }
        }
    };
    let path = path.strip_prefix("/").unwrap_or(path);
    match find(path) {
        Ok(place) => return Ok(Some(place)),
        Err(Errno::NOENT) if make => {}
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let mut so_far = PathBuf::new();
    for part in path.components() {
        let parent = find(&so_far)?;
        so_far.push(part);
        match find(&so_far) {
            Err(Errno::NOENT) => mkdirat(parent, part.as_os_str(), Mode::from_raw_mode(0o755))?,
            found => drop(found?),
        }
    }
    Ok(Some(find(path)?))
}

/// Attaches a detached mount at `target`.
pub fn move_to(tree: impl AsFd, target: &Path) -> Result<()> {
    move_mount(
        tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|e| MountError::new(format!("attaching a mount at {}", target.display()), e))
}

/// Takes the mount at `target` off, now or when its last user is gone. No
/// mount there is success.
pub fn detach(target: &Path) -> Result<()> {
    match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(e) => Err(MountError::new(
            format!("unmounting {}", target.display()),
            e,
        )),
    }
}

fn place_below(target: &Path, sub: &str) -> Result<PathBuf> {
    if sub.is_empty() {
        return Ok(target.to_owned());
    }
    let relative = sub.trim_start_matches('/');
    if Path::new(relative)
        .components()
        .any(|c| !matches!(c, std::path::Component::Normal(_)))
    {
        return Err(MountError::new(
            format!("mount target {sub:?} leaves its root"),
            Errno::INVAL,
        ));
    }
    Ok(target.join(relative))
}

fn attach_one(one: &Mount, target: &Path) -> Result<()> {
    match modern(one) {
        Ok(tree) => move_to(tree, target),
        Err(error) if needs_classic(&error) => classic(one, target),
        Err(error) => Err(error),
    }
}

fn detached_one(one: &Mount) -> Result<OwnedFd> {
    match modern(one) {
        Err(error) if one.kind == "overlay" && needs_classic(&error) => classic_detached(one),
        other => other,
    }
}

/// Whether the kernel may just be too old for the way that [`modern`] asks.
fn needs_classic(error: &MountError) -> bool {
    matches!(
        error.source.raw_os_error(),
        Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP | libc::E2BIG | libc::ENAMETOOLONG)
    )
}

fn modern(one: &Mount) -> Result<OwnedFd> {
    let options = Options::parse(&one.options);
    if one.kind == "bind" || options.bind {
        return bind_tree(one, &options);
    }
    let kind = if one.kind.is_empty() {
        "none"
    } else {
        one.kind.as_str()
    };
    let fail = |step: &str, e: Errno| MountError::new(format!("mounting {kind}: {step}"), e);
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| fail("opening", e))?;
    if !one.source.is_empty() {
        fsconfig_set_string(&context, "source", one.source.as_str())
            .map_err(|e| fail("source", e))?;
    }
    if options.read_only {
        fsconfig_set_flag(&context, "ro").map_err(|e| fail("option ro", e))?;
    }
    for (key, value) in &options.data {
        set_option(&context, kind, key, *value)?;
    }
    fsconfig_create(&context).map_err(|e| {
        fail(
            &format!("making the file system{}", kernel_log(&context)),
            e,
        )
    })?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes)
        .map_err(|e| fail("making the mount", e))
}

fn set_option(context: &OwnedFd, kind: &str, key: &str, value: Option<&str>) -> Result<()> {
    let fail = |e: Errno| {
        MountError::new(
            format!("mounting {kind}: option {key}{}", kernel_log(context)),
            e,
        )
    };
    match (kind, key, value) {
        // `lowerdir+` is taken as it stands; the kernel removes the escapes of
        // upperdir and workdir itself.
        ("overlay", "lowerdir", Some(list)) => {
            for path in split_lowers(list) {
                fsconfig_set_string(context, "lowerdir+", path.as_str()).map_err(fail)?;
            }
            Ok(())
        }
        (_, _, Some(value)) => fsconfig_set_string(context, key, value).map_err(fail),
        (_, _, None) => fsconfig_set_flag(context, key).map_err(fail),
    }
}

/// What the kernel has to say about a failed step, in brackets.
fn kernel_log(context: &OwnedFd) -> String {
    let mut text = String::new();
    let mut line = [0u8; 512];
    while let Ok(n) = rustix::io::read(context, &mut line) {
        if n == 0 || text.len() > 1024 {
            break;
        }
        let message = String::from_utf8_lossy(&line[..n]);
        text.push_str(if text.is_empty() { " (" } else { "; " });
        text.push_str(message.trim_start_matches(['e', 'w', 'i', ' ']).trim_end());
    }
    if !text.is_empty() {
        text.push(')');
    }
    text
}

fn bind_tree(one: &Mount, options: &Options<'_>) -> Result<OwnedFd> {
    let fail = |e: io::Error| MountError::new(format!("binding {}", one.source), e);
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, one.source.as_str(), flags).map_err(|e| fail(e.into()))?;
    let mut attributes = options.attributes;
    if options.read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    if !attributes.is_empty() {
        let change = MountAttr {
            set: attributes.bits().into(),
            ..MountAttr::default()
        };
        change.apply(&tree, options.recursive).map_err(fail)?;
    }
    Ok(tree)
}

/// fstab options, sorted by who understands them.
struct Options<'a> {
    attributes: MountAttrFlags,
    flags: MountFlags,
    read_only: bool,
    bind: bool,
    recursive: bool,
    data: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Options<'a> {
    fn parse(options: &'a [String]) -> Self {
        let mut parsed = Options {
            attributes: MountAttrFlags::empty(),
            flags: MountFlags::empty(),
            read_only: false,
            bind: false,
            recursive: false,
            data: Vec::new(),
        };
        for option in options {
            parsed.take(option);
        }
        parsed
    }

    fn take(&mut self, option: &'a str) {
        let (attribute, flag) = match option {
            "" | "rw" | "defaults" | "suid" | "dev" | "exec" | "atime" => return,
            "ro" => {
                self.read_only = true;
                return;
            }
            "bind" => {
                self.bind = true;
                return;
            }
            "rbind" => {
                self.bind = true;
                self.recursive = true;
                return;
            }
            "nosuid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
            "nodev" => (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
            "noexec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
            "noatime" => (MountAttrFlags::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
            "nodiratime" => (
                MountAttrFlags::MOUNT_ATTR_NODIRATIME,
                MountFlags::NODIRATIME,
            ),
            "relatime" => (MountAttrFlags::MOUNT_ATTR_RELATIME, MountFlags::RELATIME),
            "strictatime" => (
                MountAttrFlags::MOUNT_ATTR_STRICTATIME,
                MountFlags::STRICTATIME,
            ),
            other => {
                self.data.push(match other.split_once('=') {
                    Some((key, value)) => (key, Some(value)),
                    None => (other, None),
                });
                return;
            }
        };
        self.attributes |= attribute;
        self.flags |= flag;
    }
}

/// Splits an overlay `lowerdir` value at its unescaped colons.
fn split_lowers(list: &str) -> Vec<String> {
    let mut paths = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => paths.push(String::new()),
            '\\' => {
                if let (Some(escaped), Some(last)) = (chars.next(), paths.last_mut()) {
                    last.push(escaped);
                }
            }
            other => {
                if let Some(last) = paths.last_mut() {
                    last.push(other);
                }
            }
        }
    }
    paths.retain(|path| !path.is_empty());
    paths
}

/// Escapes a path for use in an overlay option.
pub fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, ':' | '\\' | ',') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// mount(2). The data of an overlay with many layers is made to fit a page by
/// paths relative to their common parent, from a thread with a working
/// directory of its own.
fn classic(one: &Mount, target: &Path) -> Result<()> {
    let options = Options::parse(&one.options);
    let (base, data) = classic_data(&options);
    let fail =
        |e: io::Error| MountError::new(format!("mounting {} on {}", one.kind, target.display()), e);
    let data = CString::new(data).map_err(|_| fail(Errno::INVAL.into()))?;
    if data.as_bytes().len() >= 4096 {
        return Err(fail(Errno::TOOBIG.into()));
    }
    let mut flags = options.flags;
    if options.read_only {
        flags |= MountFlags::RDONLY;
    }
    let call = || {
        mount(
            one.source.as_str(),
            target,
            one.kind.as_str(),
            flags,
            data.as_c_str(),
        )
    };
    match base {
        None => call().map_err(|e| fail(e.into())),
        Some(base) => on_own_thread(UnshareFlags::FS, || {
            std::env::set_current_dir(&base)?;
            Ok(call()?)
        })
        .map_err(fail),
    }
}

/// As [`classic`], in a mount namespace of a thread of its own, from where
/// only a copy of the tree is brought back.
fn classic_detached(one: &Mount) -> Result<OwnedFd> {
    let what = || format!("mounting {} on nothing", one.kind);
    let spot = Path::new("/proc");
    on_own_thread(UnshareFlags::FS | UnshareFlags::NEWNS, || {
        mount_change(
            "/",
            MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
        )?;
        classic(one, spot).map_err(|e| io::Error::new(e.source.kind(), e.to_string()))?;
        Ok(open_tree(
            CWD,
            spot,
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )?)
    })
    .map_err(|e| MountError::new(what(), e))
}

fn on_own_thread<T: Send>(
    apart: UnshareFlags,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
            // SAFETY: neither FS nor NEWNS takes the descriptor table away from
            // the other threads, which is the one thing that unshare can break;
            // the thread ends with this closure.
            unsafe { unshare_unsafe(apart) }?;
            work()
        })?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the mount thread died")))
    })
}

fn classic_data(options: &Options<'_>) -> (Option<PathBuf>, Vec<u8>) {
    let lowers = options
        .data
        .iter()
        .find(|(key, _)| *key == "lowerdir")
        .and_then(|(_, value)| *value)
        .map(split_lowers)
        .unwrap_or_default();
    let base = common_parent(&lowers);
    let mut data = String::new();
    for (key, value) in &options.data {
        if !data.is_empty() {
            data.push(',');
        }
        data.push_str(key);
        let Some(value) = value else { continue };
        data.push('=');
        match (*key, &base) {
            ("lowerdir", Some(base)) => {
                let relative = lowers.iter().map(|path| {
                    let short = Path::new(path)
                        .strip_prefix(base)
                        .unwrap_or(Path::new(path));
                    escape(&short.to_string_lossy())
                });
                data.push_str(&relative.collect::<Vec<_>>().join(":"));
            }
            _ => data.push_str(value),
        }
    }
    (base, data.into_bytes())
}

fn common_parent(paths: &[String]) -> Option<PathBuf> {
    let mut common = Path::new(paths.first()?).parent()?;
    for path in &paths[1..] {
        while !Path::new(path).starts_with(common) || OsStr::new(path) == common.as_os_str() {
            common = common.parent()?;
        }
    }
    (common.as_os_str().as_bytes().len() > 1).then(|| common.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn overlay(lowers: &[PathBuf], more: &[String]) -> Mount {
        let lower: Vec<String> = lowers.iter().map(|p| escape(p.to_str().unwrap())).collect();
        let mut options = vec![format!("lowerdir={}", lower.join(":"))];
        options.extend_from_slice(more);
        Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options,
        }
    }

    fn layers(root: &Path, count: usize) -> Vec<PathBuf> {
        (0..count)
            .map(|n| {
                let dir = root.join(format!("a-rather-long-name-for-a-layer-{n}"));
                std::fs::create_dir(&dir).unwrap();
                std::fs::write(dir.join(format!("file-{n}")), "x").unwrap();
                dir
            })
            .collect()
    }

    #[test]
    fn many_layers_both_ways() {
        let root = tempfile::tempdir().unwrap();
        let mount = overlay(&layers(root.path(), 140), &[]);
        let trees = [detached(std::slice::from_ref(&mount)).unwrap()];
        for tree in &trees {
            let path = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
            assert_eq!(std::fs::read_dir(path).unwrap().count(), 140);
        }
        // Too long for a page even when relative, so fewer for the old way.
        let short = Mount {
            options: mount.options.clone(),
            ..mount
        };
        let few: Vec<String> = split_lowers(&short.options[0]["lowerdir=".len()..]);
        let few: Vec<PathBuf> = few.into_iter().take(80).map(PathBuf::from).collect();
        let tree = classic_detached(&overlay(&few, &[])).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 80);
    }

    #[test]
    fn odd_characters_in_paths() {
        let root = tempfile::tempdir().unwrap();
        let odd = root.path().join("a:b\\c");
        std::fs::create_dir(&odd).unwrap();
        let lowers = layers(&odd, 2);
        for dir in ["upper", "work"] {
            std::fs::create_dir(odd.join(dir)).unwrap();
        }
        let more = ["upperdir", "workdir"].map(|key| {
            format!(
                "{key}={}",
                escape(odd.join(&key[..key.len() - 3]).to_str().unwrap())
            )
        });
        let mount = overlay(&lowers, &more);
        let tree = detached(std::slice::from_ref(&mount)).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
        std::fs::write(path.join("new"), "y").unwrap();
        drop(tree);
        assert!(odd.join("upper/new").exists());
        drop(classic_detached(&mount).unwrap());
    }

    #[test]
    fn attach_and_detach() {
        let root = tempfile::tempdir().unwrap();
        let lowers = layers(root.path(), 2);
        let target = root.path().join("target");
        std::fs::create_dir(&target).unwrap();
        let bind = Mount {
            kind: "bind".into(),
            source: lowers[0].to_str().unwrap().into(),
            options: vec!["ro".into(), "rbind".into()],
            ..Mount::default()
        };
        attach(std::slice::from_ref(&bind), &target).unwrap();
        assert!(target.join("file-0").exists());
        assert!(std::fs::write(target.join("file-0"), "z").is_err());
        detach(&target).unwrap();
        assert!(!target.join("file-0").exists());
        detach(&target).unwrap();

        let broken = Mount {
            source: "/no/such/dir".into(),
            ..bind.clone()
        };
        assert!(attach(&[bind, broken], &target).is_err());
        assert!(!target.join("file-0").exists());
    }

    #[test]
    fn others_are_placed_in_a_tree() {
        let root = tempfile::tempdir().unwrap();
        let lowers = layers(root.path(), 2);
        for dir in ["upper", "work", "volume"] {
            std::fs::create_dir(root.path().join(dir)).unwrap();
        }
        std::fs::write(root.path().join("volume/kept"), "x").unwrap();
        std::fs::create_dir(lowers[0].join("data")).unwrap();
        std::os::unix::fs::symlink("/data", lowers[0].join("link")).unwrap();
        let more = ["upperdir", "workdir"].map(|key| {
            format!(
                "{key}={}",
                root.path().join(&key[..key.len() - 3]).display()
            )
        });
        let mount = overlay(&lowers, &more);
        let placed = |place: &str| Placed {
            source: root.path().join("volume"),
            place: place.into(),
            read_only: place == "/made/on/the/way",
        };
        let gone = Placed {
            source: "/no/such".into(),
            place: "/data".into(),
            read_only: false,
        };
        let all = [placed("/link"), placed("/made/on/the/way"), gone];
        let tree = detached_with(std::slice::from_ref(&mount), &all, true).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
        assert!(path.join("data/kept").exists());
        assert!(path.join("made/on/the/way/kept").exists());
        assert!(std::fs::write(path.join("made/on/the/way/new"), "").is_err());
        std::fs::write(path.join("data/new"), "y").unwrap();
        drop(tree);
        assert!(root.path().join("volume/new").exists());
        assert!(!root.path().join("upper/data").exists());
        let tree = detached_with(&[mount], &[placed("/nowhere")], false).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
        assert!(!path.join("nowhere").exists());
    }

    #[test]
    fn targets_stay_below() {
        assert!(place_below(Path::new("/a"), "../b").is_err());
        assert_eq!(
            place_below(Path::new("/a"), "/b/c").unwrap(),
            Path::new("/a/b/c")
        );
    }
}
