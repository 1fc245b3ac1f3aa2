//! What tells one snapshotter from another: how a tree on top of others lies
//! on disk, and how it is mounted.

use std::{
    io,
    path::{Path, PathBuf},
};

use davit_store::{Error, Result};
use davit_sys::mount::Mount;

use super::{SnapshotKind, copy};
use crate::content::make_dir;

/// The directory of one snapshot: `fs` has its files, `work` is overlayfs'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotDir(pub(crate) PathBuf);

impl SnapshotDir {
    pub(crate) fn fs(&self) -> PathBuf {
        self.0.join("fs")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    fn utf8(path: &Path) -> Result<String> {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Error::invalid(format!(
                "the root directory must have a UTF-8 name: {}",
                path.display()
            ))
        })
    }
}

/// How snapshots lie on disk. Both implementors pass the tests in
/// `conformance`.
pub(crate) trait Backend: Send + Sync + std::fmt::Debug {
    /// Its name in the API.
    fn name(&self) -> &'static str;

    /// Whether a layer can be unpacked before its parents are there.
    fn unpacks_apart(&self) -> bool;

    /// Fills `dir`, which exists and is empty, for a snapshot on `parents`
    /// (nearest first). Blocks.
    fn create(
        &self,
        dir: &SnapshotDir,
        kind: SnapshotKind,
        parents: &[SnapshotDir],
    ) -> io::Result<()>;

    /// The mounts that show it.
    fn mounts(
        &self,
        dir: &SnapshotDir,
        kind: SnapshotKind,
        parents: &[SnapshotDir],
    ) -> Result<Vec<Mount>>;

    /// Frees what only a writable snapshot needs. Blocks.
    fn seal(&self, dir: &SnapshotDir) -> io::Result<()>;

    /// Directories whose files make up a committed snapshot, topmost first.
    fn layers(&self, dir: &SnapshotDir, parents: &[SnapshotDir]) -> Vec<PathBuf>;
}

fn bind(path: &Path, access: &str) -> Result<Vec<Mount>> {
    Ok(vec![Mount {
        kind: "bind".into(),
        source: SnapshotDir::utf8(path)?,
        target: String::new(),
        options: vec![access.into(), "rbind".into()],
    }])
}

fn access(kind: SnapshotKind) -> &'static str {
    match kind {
        SnapshotKind::Active => "rw",
        SnapshotKind::View | SnapshotKind::Committed => "ro",
    }
}

/// Layers as overlayfs has them: every snapshot keeps its own changes only.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// Options that switch off what would make layers depend on the host.
    quirks: Vec<String>,
}

impl Overlay {
    pub(crate) fn new() -> Self {
        // With these on, a layer holds pointers into the layers below it
        // (metacopy, redirect_dir) or refuses to be mounted on a copy of them
        // (index), so it could not be exported or moved.
        let on = |name: &&str| {
            let path = format!("/sys/module/overlay/parameters/{name}");
            std::fs::read_to_string(path).is_ok_and(|text| matches!(text.trim(), "Y" | "1" | "on"))
        };
        let quirks = ["index", "metacopy", "redirect_dir"]
            .iter()
            .filter(|name| on(name));
        Self {
            quirks: quirks.map(|name| format!("{name}=off")).collect(),
        }
    }

    /// A read-only overlay of `layers`, topmost first; needs at least two.
    pub(crate) fn read_only(&self, layers: &[PathBuf]) -> Result<Vec<Mount>> {
        Ok(vec![overlay(vec![lower(layers)?], &self.quirks)])
    }
}

fn lower(layers: &[PathBuf]) -> Result<String> {
    let mut option = String::from("lowerdir=");
    for (n, layer) in layers.iter().enumerate() {
        if n > 0 {
            option.push(':');
        }
        option.push_str(&davit_sys::mount::escape(&SnapshotDir::utf8(layer)?));
    }
    Ok(option)
}

fn overlay(mut options: Vec<String>, quirks: &[String]) -> Mount {
    options.extend_from_slice(quirks);
    Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options,
    }
}

impl Backend for Overlay {
    fn name(&self) -> &'static str {
        "overlayfs"
    }

    fn unpacks_apart(&self) -> bool {
        true
    }

    fn create(
        &self,
        dir: &SnapshotDir,
        kind: SnapshotKind,
        parents: &[SnapshotDir],
    ) -> io::Result<()> {
        // The root directory of a merged tree is that of its topmost layer, so
        // a new one takes after the one below.
        match parents.first() {
            Some(parent) => copy::directory_like(&parent.fs(), &dir.fs())?,
            None => copy::plain_directory(&dir.fs())?,
        }
        if kind == SnapshotKind::Active {
            std::fs::create_dir(dir.work())?;
        }
        Ok(())
    }

    fn mounts(
        &self,
        dir: &SnapshotDir,
        kind: SnapshotKind,
        parents: &[SnapshotDir],
    ) -> Result<Vec<Mount>> {
        let lowers: Vec<PathBuf> = parents.iter().map(SnapshotDir::fs).collect();
        match (kind, lowers.as_slice()) {
            (_, []) => bind(&dir.fs(), access(kind)),
            (SnapshotKind::Active, lowers) => {
                let path = |path: PathBuf| -> Result<String> {
                    Ok(davit_sys::mount::escape(&SnapshotDir::utf8(&path)?))
                };
                let options = vec![
                    format!("workdir={}", path(dir.work())?),
                    format!("upperdir={}", path(dir.fs())?),
                    lower(lowers)?,
                ];
                Ok(vec![overlay(options, &self.quirks)])
            }
            (SnapshotKind::View | SnapshotKind::Committed, [only]) => bind(only, "ro"),
            (SnapshotKind::View | SnapshotKind::Committed, lowers) => self.read_only(lowers),
        }
    }

    fn seal(&self, dir: &SnapshotDir) -> io::Result<()> {
        crate::unpack::remove::remove_path(&dir.work())
    }

    fn layers(&self, dir: &SnapshotDir, parents: &[SnapshotDir]) -> Vec<PathBuf> {
        std::iter::once(dir.fs())
            .chain(parents.iter().map(SnapshotDir::fs))
            .collect()
    }
}

/// Plain copies: works on any file system, at the price of space and time
/// (blocks are shared where the file system can).
#[derive(Debug)]
pub(crate) struct Native;

impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn unpacks_apart(&self) -> bool {
        false
    }

    fn create(
        &self,
        dir: &SnapshotDir,
        kind: SnapshotKind,
        parents: &[SnapshotDir],
    ) -> io::Result<()> {
        match (kind, parents.first()) {
            (_, None) => copy::plain_directory(&dir.fs()),
            // A view shows its parent itself.
            (SnapshotKind::View | SnapshotKind::Committed, Some(_)) => Ok(()),
            (SnapshotKind::Active, Some(parent)) => copy::tree(&parent.fs(), &dir.fs()),
        }
    }

    fn mounts(
        &self,
        dir: &SnapshotDir,
        kind: SnapshotKind,
        parents: &[SnapshotDir],
    ) -> Result<Vec<Mount>> {
        match (kind, parents.first()) {
            (SnapshotKind::View, Some(parent)) => bind(&parent.fs(), "ro"),
            _ => bind(&dir.fs(), access(kind)),
        }
    }

    fn seal(&self, _: &SnapshotDir) -> io::Result<()> {
        Ok(())
    }

    fn layers(&self, dir: &SnapshotDir, _: &[SnapshotDir]) -> Vec<PathBuf> {
        vec![dir.fs()]
    }
}

/// The snapshotter of that name. `InvalidArgument` for any other.
pub(crate) fn backend(name: &str) -> Result<Box<dyn Backend>> {
    match name {
        "overlayfs" => Ok(Box::new(Overlay::new())),
        "native" => Ok(Box::new(Native)),
        other => Err(Error::invalid(format!(
            "there is no snapshotter {other:?}; choose \"overlayfs\" or \"native\""
        ))),
    }
}

/// Makes the directory of a new snapshot, empty.
pub(crate) fn new_dir(path: &Path) -> Result<SnapshotDir> {
    make_dir(path)?;
    Ok(SnapshotDir(path.to_owned()))
}
