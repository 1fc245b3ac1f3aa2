//! Looking into a container's files before it runs.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// Most bytes that are read of one file of a container (/etc/passwd and the
/// like): a file of the image may be as large as its author pleases.
const MAX_FILE: u64 = 16 << 20;

/// Links that are followed before a path counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// Opens files of a container's root file system. Paths are resolved within
/// it, links included.
pub trait RootfsView: std::fmt::Debug + Send + Sync {
    /// Opens a regular file for reading; `None` when there is none.
    fn open(&self, path: &Path) -> io::Result<Option<File>>;

    /// All of a file, empty when it does not exist.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Some(file) = self.open(path)? {
            file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        }
        if bytes.len() as u64 > MAX_FILE {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "larger than 16 MiB",
            ));
        }
        Ok(bytes)
    }
}

/// A tree that is mounted, or a plain directory.
#[derive(Debug)]
pub struct TreeView<Fd>(pub Fd);

impl<Fd: AsFd + std::fmt::Debug + Send + Sync> RootfsView for TreeView<Fd> {
    fn open(&self, path: &Path) -> io::Result<Option<File>> {
        open_in(self.0.as_fd(), path)
    }
}

fn open_in(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<File>> {
    // NONBLOCK: a FIFO in the place of /etc/passwd must not hang the daemon.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let relative = path.strip_prefix("/").unwrap_or(path);
    match openat2(
        root,
        relative,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    ) {
        Ok(fd) => {
            let file = File::from(fd);
            Ok(file.metadata()?.is_file().then_some(file))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The directories of an overlay, topmost first, looked through without
/// mounting them: a start then costs no mount of the daemon's own.
#[derive(Debug, Clone)]
pub struct LayersView(pub Vec<PathBuf>);

/// What a name is in the merged tree.
enum Found {
    Nothing,
    Link(PathBuf),
    /// The directories that make it up, topmost first.
    Directory(Vec<PathBuf>),
    File(PathBuf),
}

impl RootfsView for LayersView {
    fn open(&self, path: &Path) -> io::Result<Option<File>> {
        let mut todo: VecDeque<OsString> = names(path).collect();
        let mut stack = vec![self.0.clone()];
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let here = stack.last().map(Vec::as_slice).unwrap_or_default();
            match look_up(here, &name)? {
                Found::Nothing => return Ok(None),
                Found::Directory(dirs) => stack.push(dirs),
                Found::File(path) if todo.is_empty() => return Ok(Some(File::open(path)?)),
                Found::File(_) => return Ok(None),
                Found::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(rustix::io::Errno::LOOP.into());
                    }
                    if target.is_absolute() {
                        stack.truncate(1);
                    }
                    let rest = std::mem::take(&mut todo);
                    todo = names(&target).chain(rest).collect();
                }
            }
        }
        Ok(None)
    }
}

fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Finds `name` in a merged directory by overlayfs's rules: the topmost wins,
/// directories merge until one is opaque or something else lies between.
fn look_up(dirs: &[PathBuf], name: &OsString) -> io::Result<Found> {
    let mut merged = Vec::new();
    for dir in dirs {
        let path = dir.join(name);
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let last = is_opaque(&path);
            merged.push(path);
            if last {
                break;
            }
            continue;
        }
        if !merged.is_empty() || (kind.is_char_device() && metadata.rdev() == 0) {
            break;
        }
        return Ok(if kind.is_symlink() {
            Found::Link(std::fs::read_link(&path)?)
        } else if kind.is_file() {
            Found::File(path)
        } else {
            Found::Nothing
        });
    }
    Ok(if merged.is_empty() {
        Found::Nothing
    } else {
        Found::Directory(merged)
    })
}

fn is_opaque(dir: &Path) -> bool {
    let mut value = [0u8; 4];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .into_iter()
        .any(|key| matches!(rustix::fs::lgetxattr(dir, key, &mut value), Ok(1..) if value[0] == b'y'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn text(view: &dyn RootfsView, path: &str) -> Option<String> {
        let mut text = String::new();
        view.open(Path::new(path))
            .unwrap()?
            .read_to_string(&mut text)
            .unwrap();
        Some(text)
    }

    #[test]
    fn links_stay_within_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/real"), "inside").unwrap();
        symlink("/../../etc/real", dir.path().join("etc/passwd")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let tree = TreeView(File::open(dir.path()).unwrap());
        let layers = LayersView(vec![dir.path().to_owned()]);
        for view in [&tree as &dyn RootfsView, &layers] {
            assert_eq!(text(view, "/etc/passwd").as_deref(), Some("inside"));
            assert_eq!(text(view, "/etc/group"), None);
            assert_eq!(text(view, "/etc"), None);
            assert_eq!(text(view, "/etc/real/x"), None);
            assert!(view.open(Path::new("/loop")).is_err());
        }
    }

    #[test]
    fn layers_merge_as_overlayfs_does() {
        let dir = tempfile::tempdir().unwrap();
        let [top, middle, bottom] = ["top", "middle", "bottom"].map(|name| dir.path().join(name));
        for layer in [&top, &middle, &bottom] {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        fs::write(bottom.join("etc/passwd"), "bottom").unwrap();
        fs::write(middle.join("etc/passwd"), "middle").unwrap();
        fs::write(bottom.join("etc/group"), "group").unwrap();
        fs::write(bottom.join("etc/gone"), "gone").unwrap();
        nix::sys::stat::mknod(
            &top.join("etc/gone"),
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::empty(),
            0,
        )
        .unwrap();
        fs::create_dir_all(bottom.join("var/a")).unwrap();
        fs::write(bottom.join("var/a/f"), "hidden").unwrap();
        symlink("etc", middle.join("var")).unwrap();
        let view = LayersView(vec![top.clone(), middle.clone(), bottom]);
        assert_eq!(text(&view, "/etc/passwd").as_deref(), Some("middle"));
        assert_eq!(text(&view, "/etc/group").as_deref(), Some("group"));
        assert_eq!(text(&view, "/etc/gone"), None);
        assert_eq!(text(&view, "/var/a/f"), None);
        assert_eq!(text(&view, "/var/group").as_deref(), Some("group"));
        rustix::fs::setxattr(
            top.join("etc"),
            "trusted.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        assert_eq!(text(&view, "/etc/passwd"), None);
    }

    #[test]
    fn a_huge_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("big"))
            .unwrap()
            .set_len(MAX_FILE + 1)
            .unwrap();
        let view = LayersView(vec![dir.path().to_owned()]);
        assert!(view.read(Path::new("/big")).is_err());
        assert_eq!(view.read(Path::new("/none")).unwrap(), b"");
    }
}
