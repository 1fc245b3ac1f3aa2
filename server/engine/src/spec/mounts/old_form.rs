//! The `-v` form: `[source:]target[:options]`.

use std::path::PathBuf;

use davit_store::{Error, Result, options::Mount};

use super::{PlannedMount, PlannedSource, check, clean};

/// What the options of the `-v` form say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) read_only: bool,
    pub(super) propagation: String,
    pub(super) no_copy: bool,
}

/// Reads one `-v`.
///
/// # Errors
/// `InvalidArgument` in docker's words.
pub(super) fn parse(spec: &str) -> Result<PlannedMount> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{spec}'"));
    let parts: Vec<&str> = spec.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(invalid());
    }
    let (source, target, mode) = match *parts.as_slice() {
        [target] => ("", target, ""),
        [_, mode] if Options::parse(mode).is_some() => return Err(invalid()),
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(invalid()),
    };
    let options =
        Options::parse(mode).ok_or_else(|| Error::invalid(format!("invalid mode: {mode}")))?;
    let in_spec = |error: Error| Error::new(error.kind(), format!("{}: {error}", invalid()));
    let mut planned = if source.starts_with('/') {
        check::propagation("bind", &options.propagation).map_err(in_spec)?;
        check::target("bind", target).map_err(in_spec)?;
        bind(source, target, options)
    } else {
        check::target("volume", target).map_err(in_spec)?;
        check::volume_name(source)?;
        volume(source, target, &options)
    };
    planned.mode = mode.to_owned();
    Ok(planned)
}

fn bind(source: &str, target: &str, options: Options) -> PlannedMount {
    let propagation = if options.propagation.is_empty() {
        "rprivate".to_owned()
    } else {
        options.propagation
    };
    PlannedMount {
        target: clean(target),
        source: PlannedSource::Bind {
            path: PathBuf::from(clean(source)),
            create: true,
        },
        read_only: options.read_only,
        propagation,
        mode: String::new(),
        non_recursive: false,
        options: Vec::new(),
        implicit: false,
    }
}

fn volume(name: &str, target: &str, options: &Options) -> PlannedMount {
    let request = Mount {
        kind: "volume".to_owned(),
        source: name.to_owned(),
        target: target.to_owned(),
        read_only: options.read_only,
        no_copy: options.no_copy,
        ..Default::default()
    };
    PlannedMount {
        target: clean(target),
        read_only: options.read_only,
        propagation: String::new(),
        mode: String::new(),
        non_recursive: false,
        options: Vec::new(),
        implicit: false,
        source: PlannedSource::Volume {
            name: (!name.is_empty()).then(|| name.to_owned()),
            request: Box::new(request),
        },
    }
}

impl Options {
    /// `None` when an option is unknown, or of a kind that was there before.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut options = Self::default();
        let mut kinds = std::collections::BTreeSet::new();
        for option in text.split(',').filter(|_| !text.is_empty()) {
            let kind = match option {
                "ro" | "rw" => {
                    options.read_only = option == "ro";
                    "access"
                }
                // SELinux relabelling; nothing to do where SELinux is off.
                "z" | "Z" => "label",
                "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                    options.propagation = option.to_owned();
                    "propagation"
                }
                "nocopy" => {
                    options.no_copy = true;
                    "copy"
                }
                "consistent" | "cached" | "delegated" | "default" => "consistency",
                _ => return None,
            };
            if !kinds.insert(kind) {
                return None;
            }
        }
        Some(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(spec: &str) -> String {
        parse(spec).unwrap_err().to_string()
    }

    #[test]
    fn the_three_forms() {
        let mount = parse("/src/:/dst/../x:ro,rslave,z").unwrap();
        assert_eq!(mount.target, "/x");
        assert_eq!(
            mount.source,
            PlannedSource::Bind {
                path: "/src".into(),
                create: true
            }
        );
        assert!(mount.read_only);
        assert_eq!(
            (mount.propagation.as_str(), mount.mode.as_str()),
            ("rslave", "ro,rslave,z")
        );
        assert_eq!(parse("/a:/b").unwrap().propagation, "rprivate");
        assert!(matches!(
            parse("/only").unwrap().source,
            PlannedSource::Volume { name: None, .. }
        ));
        assert!(
            matches!(parse("vol:/b:nocopy").unwrap().source, PlannedSource::Volume { name: Some(name), .. } if name == "vol")
        );
    }

    #[test]
    fn refusals_in_dockers_words() {
        for spec in ["", ":", "/a:", ":/a", "/a:ro", "/a:/b:ro:x", "/a::/b"] {
            assert_eq!(
                error(spec),
                format!("invalid volume specification: '{spec}'")
            );
        }
        assert_eq!(error("/a:/b:bogus"), "invalid mode: bogus");
        assert_eq!(error("/a:/b:ro,rw"), "invalid mode: ro,rw");
        assert_eq!(
            error("/a:/"),
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"
        );
        assert_eq!(
            error("/a:b"),
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute"
        );
        assert!(error("./a:/b").contains("includes invalid characters for a local volume name"));
    }
}
