//! The new form of mounts, checked as docker checks it and in its words.

use std::path::PathBuf;

use davit_store::{Error, Result, options::Mount};

use super::{PlannedMount, PlannedSource, clean, tmpfs};

/// Reads one mount of the new form.
///
/// # Errors
/// `InvalidArgument` in docker's words.
pub(super) fn new_form(mount: &Mount) -> Result<PlannedMount> {
    let kind = mount.kind.as_str();
    if mount.target.is_empty() {
        return Err(refuse(kind, "field Target must not be empty"));
    }
    target(kind, &mount.target)?;
    let (source, options) = match kind {
        "bind" => (bind(mount)?, mount.options.clone()),
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(refuse(kind, "field Source must not be specified"));
            }
            (
                PlannedSource::Tmpfs,
                tmpfs::options(mount).map_err(|error| refuse(kind, error))?,
            )
        }
        "volume" => {
            if mount.source.is_empty() && mount.read_only {
                return Err(refuse(
                    kind,
                    "must not set ReadOnly mode when using anonymous volumes",
                ));
            }
            volume_name(&mount.source)?;
            let name = (!mount.source.is_empty()).then(|| mount.source.clone());
            (
                PlannedSource::Volume {
                    name,
                    request: Box::new(mount.clone()),
                },
                Vec::new(),
            )
        }
        "image" => {
            if mount.source.is_empty() {
                return Err(refuse(kind, "field Source must not be empty"));
            }
            (
                PlannedSource::Image {
                    request: Box::new(mount.clone()),
                },
                Vec::new(),
            )
        }
        _ => return Err(refuse(kind, "mount type unknown")),
    };
    let propagation = match (kind, mount.propagation.as_str()) {
        ("bind", "") => "rprivate",
        ("bind", given) => given,
        _ => "",
    };
    Ok(PlannedMount {
        target: clean(&mount.target),
        source,
        // An image's files belong to the image.
        read_only: mount.read_only || kind == "image",
        propagation: propagation.to_owned(),
        mode: String::new(),
        non_recursive: mount.non_recursive,
        options,
        implicit: false,
    })
}

fn bind(mount: &Mount) -> Result<PlannedSource> {
    if mount.source.is_empty() {
        return Err(refuse("bind", "field Source must not be empty"));
    }
    if !mount.volume_driver.is_empty()
        || !mount.volume_labels.is_empty()
        || !mount.volume_options.is_empty()
    {
        return Err(refuse("bind", "field VolumeOptions must not be specified"));
    }
    if mount.tmpfs_size != 0 || mount.tmpfs_mode != 0 {
        return Err(refuse("bind", "field TmpfsOptions must not be specified"));
    }
    propagation("bind", &mount.propagation)?;
    if !mount.source.starts_with('/') {
        return Err(refuse("bind", not_absolute(&mount.source)));
    }
    Ok(PlannedSource::Bind {
        path: PathBuf::from(clean(&mount.source)),
        create: mount.create_source,
    })
}

/// The place in the container: absolute, and not its root.
pub(super) fn target(kind: &str, target: &str) -> Result<()> {
    if target.contains('\0') {
        return Err(refuse(kind, "the mount path contains a NUL byte"));
    }
    if !target.starts_with('/') {
        return Err(refuse(kind, not_absolute(target)));
    }
    if clean(target) == "/" {
        return Err(refuse(
            kind,
            "invalid specification: destination can't be '/'",
        ));
    }
    Ok(())
}

pub(super) fn propagation(kind: &str, mode: &str) -> Result<()> {
    match mode {
        "" | "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => Ok(()),
        _ => Err(refuse(kind, format!("invalid propagation mode: {mode}"))),
    }
}

/// Longest name of a volume: it is a directory's.
const MAX_VOLUME_NAME: usize = 255;

/// A volume's name; "" (anonymous) passes.
pub(crate) fn volume_name(name: &str) -> Result<()> {
    if name.len() > MAX_VOLUME_NAME {
        return Err(Error::invalid(format!(
            "create {}…: the volume name has {} bytes; use at most {MAX_VOLUME_NAME}",
            name.chars().take(32).collect::<String>(),
            name.len()
        )));
    }
    if name.len() == 1 && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    let mut bytes = name.bytes();
    let first = bytes.next().is_none_or(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if first && rest && name.len() != 1 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

fn not_absolute(path: &str) -> String {
    format!("invalid mount path: '{path}' mount path must be absolute")
}

pub(super) fn refuse(kind: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("invalid mount config for type \"{kind}\": {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, target: &str) -> Mount {
        Mount {
            kind: kind.to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            ..Default::default()
        }
    }

    fn why(mount: &Mount) -> String {
        let text = new_form(mount).unwrap_err().to_string();
        let start = format!("invalid mount config for type \"{}\": ", mount.kind);
        text.strip_prefix(&start).unwrap_or(&text).to_owned()
    }

    #[test]
    fn good_ones() {
        let bind = new_form(&mount("bind", "/tmp/", "/x")).unwrap();
        assert_eq!(
            bind.source,
            PlannedSource::Bind {
                path: "/tmp".into(),
                create: false
            }
        );
        assert_eq!(bind.propagation, "rprivate");
        assert!(
            new_form(&mount("image", "busybox", "/x"))
                .unwrap()
                .read_only
        );
        assert_eq!(
            new_form(&mount("tmpfs", "", "/x")).unwrap().source,
            PlannedSource::Tmpfs
        );
    }

    #[test]
    fn refusals_in_dockers_words() {
        assert_eq!(
            why(&mount("bind", "/a", "")),
            "field Target must not be empty"
        );
        assert_eq!(
            why(&mount("bind", "/a", "/x/..")),
            "invalid specification: destination can't be '/'"
        );
        assert_eq!(
            why(&mount("bind", "/a", "x")),
            "invalid mount path: 'x' mount path must be absolute"
        );
        assert_eq!(
            why(&mount("bind", "", "/x")),
            "field Source must not be empty"
        );
        assert_eq!(
            why(&mount("bind", "a", "/x")),
            "invalid mount path: 'a' mount path must be absolute"
        );
        assert_eq!(
            why(&mount("tmpfs", "/a", "/x")),
            "field Source must not be specified"
        );
        assert_eq!(why(&mount("foo", "", "/x")), "mount type unknown");
        assert_eq!(
            why(&Mount {
                propagation: "odd".into(),
                ..mount("bind", "/a", "/x")
            }),
            "invalid propagation mode: odd"
        );
        let read_only = Mount {
            read_only: true,
            ..mount("volume", "", "/x")
        };
        assert_eq!(
            why(&read_only),
            "must not set ReadOnly mode when using anonymous volumes"
        );
        assert!(why(&mount("volume", "../a", "/x")).contains("includes invalid characters"));
    }
}
