//! Sources of bind mounts: whether they are there, and whether the host's
//! mounts allow the propagation that is asked for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use davit_store::{Error, Kind, Result};

use super::{PlannedMount, PlannedSource, check, unescape};

/// Checks the source of a bind at Create: a missing one is refused, or
/// announced when it will be made.
pub(super) fn check_source(mount: &PlannedMount, warnings: &mut Vec<String>) -> Result<()> {
    let PlannedSource::Bind { path, create } = &mount.source else {
        return Ok(());
    };
    match (path.symlink_metadata(), create) {
        (Ok(_), _) => check_propagation(path, &mount.propagation),
        (Err(error), true) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = format!(
                "bind source path does not exist: {}; an empty directory is made there at the start.",
                path.display()
            );
            warnings.push(text);
            Ok(())
        }
        (Err(_), _) => Err(check::refuse(
            "bind",
            format!("bind source path does not exist: {}", path.display()),
        )),
    }
}

/// Makes what is missing and may be made; checks again, since the source may
/// have gone since Create.
pub(super) fn prepare_source(mount: &PlannedMount) -> Result<()> {
    let PlannedSource::Bind { path, create } = &mount.source else {
        return Ok(());
    };
    match path.metadata() {
        Ok(_) => return check_propagation(path, &mount.propagation),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Error::io(
                format!("looking at bind source {}", path.display()),
                error,
            ));
        }
    }
    if !create {
        return Err(check::refuse(
            "bind",
            format!("bind source path does not exist: {}", path.display()),
        ));
    }
    fs::create_dir_all(path).map_err(|error| {
        let text = format!(
            "error while creating mount source path '{}'",
            path.display()
        );
        Error::new(Kind::InvalidArgument, text).with_source(error)
    })
}

/// How the container's root must propagate so that its mounts can.
pub(in super::super) fn root_propagation(mounts: &[PlannedMount]) -> Option<&'static str> {
    let has = |modes: [&str; 2]| {
        mounts
            .iter()
            .any(|mount| modes.contains(&mount.propagation.as_str()))
    };
    match (has(["shared", "rshared"]), has(["slave", "rslave"])) {
        (true, _) => Some("shared"),
        (false, true) => Some("rslave"),
        (false, false) => None,
    }
}

/// Mounts below a shared bind reach the host (and the other way round) only
/// when the host's mount is shared itself.
fn check_propagation(path: &Path, mode: &str) -> Result<()> {
    let wanted: &[&str] = match mode {
        "shared" | "rshared" => &["shared:"],
        "slave" | "rslave" => &["shared:", "master:"],
        _ => return Ok(()),
    };
    let real = path
        .canonicalize()
        .map_err(|error| Error::io(format!("resolving bind source {}", path.display()), error))?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| Error::io("reading /proc/self/mountinfo", error))?;
    let Some((place, tags)) = mount_of(&mountinfo, &real) else {
        return Ok(());
    };
    if wanted
        .iter()
        .any(|tag| tags.iter().any(|have| have.starts_with(tag)))
    {
        return Ok(());
    }
    let what = if wanted.len() == 1 {
        "a shared"
    } else {
        "a shared or slave"
    };
    Err(Error::invalid(format!(
        "path {} is mounted on {} but it is not {what} mount",
        path.display(),
        place.display()
    )))
}

/// The mount that `path` lies on, with its optional fields (proc(5)). Of
/// mounts on one place the last covers the others.
fn mount_of<'a>(mountinfo: &'a str, path: &Path) -> Option<(PathBuf, Vec<&'a str>)> {
    let mut best: Option<(PathBuf, Vec<&str>)> = None;
    for line in mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(place) = fields.get(4).map(|field| PathBuf::from(unescape(field))) else {
            continue;
        };
        let deeper = best
            .as_ref()
            .is_none_or(|(old, _)| place.components().count() >= old.components().count());
        if path.starts_with(&place) && deeper {
            let tags = fields
                .iter()
                .skip(6)
                .take_while(|field| **field != "-")
                .copied()
                .collect();
            best = Some((place, tags));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_last_mount_counts() {
        let info = "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /mnt rw shared:1 - ext4 b rw\n3 1 8:3 / /mnt rw master:2 - ext4 c rw\n";
        let (place, tags) = mount_of(info, Path::new("/mnt/x")).unwrap();
        assert_eq!(
            (place.as_path(), tags),
            (Path::new("/mnt"), vec!["master:2"])
        );
        assert_eq!(
            mount_of(info, Path::new("/mntx")).unwrap().0,
            Path::new("/")
        );
    }

    #[test]
    fn a_missing_source_is_refused_or_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let mut mount = PlannedMount {
            target: "/x".to_owned(),
            source: PlannedSource::Bind {
                path: path.clone(),
                create: false,
            },
            read_only: false,
            propagation: "rprivate".to_owned(),
            mode: String::new(),
            non_recursive: false,
            options: Vec::new(),
            implicit: false,
        };
        let mut warnings = Vec::new();
        let expected = format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            path.display()
        );
        assert_eq!(
            check_source(&mount, &mut warnings).unwrap_err().to_string(),
            expected
        );
        assert_eq!(prepare_source(&mount).unwrap_err().to_string(), expected);
        mount.source = PlannedSource::Bind {
            path: path.clone(),
            create: true,
        };
        check_source(&mount, &mut warnings).unwrap();
        assert!(!path.exists());
        assert_eq!(warnings.len(), 1);
        prepare_source(&mount).unwrap();
        assert!(path.is_dir());
        assert_eq!(root_propagation(&[mount]), None);
    }
}
