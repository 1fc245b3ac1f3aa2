//! Mounts: what the caller asks for (new form, `-v` form, `--tmpfs`), checked
//! as docker checks it, and the list that a runtime mounts in order.

mod bind;
mod check;
mod defaults;
mod old_form;
mod tmpfs;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use davit_store::{
    Error, Result,
    options::{ContainerOptions, Mount},
};

pub(super) use bind::root_propagation;
pub(crate) use check::volume_name;
pub(super) use defaults::{INIT_TARGET, assemble};

/// A mount that the caller asked for, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedMount {
    /// Clean absolute path in the container.
    pub target: String,
    /// What is mounted there.
    pub source: PlannedSource,
    /// Mount read-only.
    pub read_only: bool,
    /// Propagation, "rprivate" when nobody says; empty for tmpfs.
    pub propagation: String,
    /// What inspect shows as mode: the options of the `-v` form.
    pub mode: String,
    /// Without the mounts below the source.
    pub non_recursive: bool,
    /// Further mount options, for tmpfs with size and mode among them.
    pub options: Vec<String>,
    /// A volume that nobody asked to mount: what another container's volumes
    /// have at this place comes before it.
    pub implicit: bool,
}

/// What a [`PlannedMount`] mounts.
#[derive(Debug, Clone, PartialEq)]
pub enum PlannedSource {
    /// A path of the host; with `create` a directory is made when it is
    /// missing.
    Bind {
        /// Clean absolute path on the host.
        path: PathBuf,
        /// Make it when it is missing.
        create: bool,
    },
    /// Memory.
    Tmpfs,
    /// A volume; the engine gives its directory in `Start::sources`.
    Volume {
        /// Name; `None` for an anonymous one.
        name: Option<String>,
        /// The request that it came from, with driver, labels and subpath.
        request: Box<Mount>,
    },
    /// The files of an image; likewise.
    Image {
        /// The request that it came from.
        request: Box<Mount>,
    },
}

/// The mounts that the caller asks for, and anonymous volumes at the places
/// `volumes` (the image's and the caller's), outer before inner.
pub(super) fn plan(
    options: &ContainerOptions,
    volumes: &[String],
    warnings: &mut Vec<String>,
) -> Result<Vec<PlannedMount>> {
    let mut planned = Vec::new();
    for spec in &options.binds {
        planned.push(old_form::parse(spec)?);
    }
    for mount in &options.mounts {
        planned.push(check::new_form(mount)?);
    }
    for (target, text) in &options.tmpfs {
        let data: Vec<String> = text
            .split(',')
            .filter(|option| !option.is_empty())
            .map(str::to_owned)
            .collect();
        let mount = Mount {
            kind: "tmpfs".to_owned(),
            target: target.clone(),
            options: data,
            ..Default::default()
        };
        planned.push(check::new_form(&mount)?);
    }
    for target in volumes {
        let anonymous = Mount {
            kind: "volume".to_owned(),
            // An image's author may have left out the slash.
            target: if options.volumes.contains(target) || target.starts_with('/') {
                target.clone()
            } else {
                format!("/{target}")
            },
            ..Default::default()
        };
        let mut anonymous = check::new_form(&anonymous)?;
        anonymous.implicit = true;
        // As with docker: what the caller mounts there comes before it, and
        // clients name the places of their binds here, too.
        if !planned.iter().any(|mount| mount.target == anonymous.target) {
            planned.push(anonymous);
        }
    }
    refuse_duplicates(&planned)?;
    for mount in &planned {
        bind::check_source(mount, warnings)?;
    }
    Ok(sorted(planned))
}

fn refuse_duplicates(planned: &[PlannedMount]) -> Result<()> {
    let mut seen = BTreeSet::new();
    match planned.iter().find(|mount| !seen.insert(&mount.target)) {
        Some(mount) => Err(Error::invalid(format!(
            "Duplicate mount point: {}",
            mount.target
        ))),
        None => Ok(()),
    }
}

/// Outer before inner, otherwise as given.
pub(crate) fn sorted(mut planned: Vec<PlannedMount>) -> Vec<PlannedMount> {
    planned.sort_by_key(|mount| Path::new(&mount.target).components().count());
    planned
}

/// A path without `.`, `..`, doubled and trailing slashes, as Go's `path.Clean`
/// does it; the path must be absolute.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&std::ffi::OsStr> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let joined: Vec<String> = parts
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    format!("/{}", joined.join("/"))
}

/// Undoes the octal escapes of proc(5)'s mount tables.
pub(crate) fn unescape(field: &str) -> std::ffi::OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\' && tail.len() >= 3)
            .then(|| std::str::from_utf8(&tail[..3]).ok())
            .flatten();
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    std::ffi::OsStr::from_bytes(&bytes).to_owned()
}

/// The directory or file that a mount's source is on the host; `sources` has
/// those that the engine made.
fn host_path<'a>(
    mount: &'a PlannedMount,
    index: usize,
    sources: &'a BTreeMap<usize, PathBuf>,
) -> Result<&'a Path> {
    match (&mount.source, sources.get(&index)) {
        (PlannedSource::Bind { path, .. }, _) => Ok(path),
        (_, Some(path)) => Ok(path),
        (_, None) => Err(Error::internal(format!(
            "the mount at {} has no source",
            mount.target
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("/a//b/./c/../d/", "/a/b/d"),
            ("/", "/"),
            ("/..", "/"),
            ("/a/..", "/"),
        ] {
            assert_eq!(clean(path), expected);
        }
    }

    #[test]
    fn outer_mounts_come_first() {
        let options = ContainerOptions {
            tmpfs: [("/a/b/c", ""), ("/a", ""), ("/z/y", "")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            ..Default::default()
        };
        let targets: Vec<String> = plan(&options, &[], &mut Vec::new())
            .unwrap()
            .into_iter()
            .map(|mount| mount.target)
            .collect();
        assert_eq!(targets, ["/a", "/z/y", "/a/b/c"]);
    }

    #[test]
    fn one_place_is_mounted_once() {
        let options = ContainerOptions {
            binds: vec!["/tmp:/x/".to_owned()],
            tmpfs: [("/x".to_owned(), String::new())].into(),
            ..Default::default()
        };
        assert_eq!(
            plan(&options, &[], &mut Vec::new())
                .unwrap_err()
                .to_string(),
            "Duplicate mount point: /x"
        );
    }

    #[test]
    fn a_mount_comes_before_an_anonymous_volume_at_its_place() {
        let options = ContainerOptions {
            binds: vec!["/tmp:/x:ro".to_owned()],
            volumes: vec!["/x/".to_owned()],
            ..Default::default()
        };
        let mut warnings = Vec::new();
        assert_eq!(
            plan(&options, &options.volumes, &mut warnings)
                .unwrap()
                .len(),
            1
        );
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn the_images_volumes_are_anonymous_ones() {
        let options = ContainerOptions {
            binds: vec!["named:/data2".to_owned()],
            ..Default::default()
        };
        let places = ["/data".to_owned(), "/data2".to_owned()];
        let planned = plan(&options, &places, &mut Vec::new()).unwrap();
        let found: Vec<_> = planned
            .iter()
            .map(|mount| match &mount.source {
                PlannedSource::Volume { name, .. } => {
                    (mount.target.as_str(), name.as_deref(), mount.implicit)
                }
                _ => panic!("{mount:?}"),
            })
            .collect();
        assert_eq!(
            found,
            [("/data2", Some("named"), false), ("/data", None, true)]
        );
    }
}
