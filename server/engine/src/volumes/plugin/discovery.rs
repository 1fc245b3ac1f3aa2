//! Where plugins are: sockets and files with addresses, looked for anew each
//! time, since plugins come and go.

use std::{
    fmt, fs,
    io::Read,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{Error, Result, config::VolumesConfig};

/// Most bytes that are read of a file with an address.
const MAX_FILE: u64 = 64 << 10;

/// A plugin and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    /// "host:port".
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

/// The file `<name>.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    addr: String,
    #[serde(default, rename = "TLSConfig")]
    tls: Option<serde_json::Value>,
}

/// The plugin called `name`. Sockets come before files.
///
/// # Errors
/// `InvalidArgument` for a file that can't be understood.
pub(super) fn find(config: &VolumesConfig, name: &str) -> Result<Option<Found>> {
    if !is_name(name) {
        return Ok(None);
    }
    let found = |address| {
        Some(Found {
            name: name.to_owned(),
            address,
        })
    };
    for dir in &config.plugin_sockets {
        for path in [
            dir.join(format!("{name}.sock")),
            dir.join(name).join(format!("{name}.sock")),
        ] {
            if is_socket(&path) {
                return Ok(found(Address::Unix(path)));
            }
        }
    }
    for dir in &config.plugin_specs {
        for base in [dir.clone(), dir.join(name)] {
            for extension in ["spec", "json"] {
                let path = base.join(format!("{name}.{extension}"));
                if path.is_file() {
                    return Ok(found(read(&path)?));
                }
            }
        }
    }
    Ok(None)
}

/// All plugins, by name; files that can't be understood are left out.
pub(super) fn all(config: &VolumesConfig) -> Vec<Found> {
    let mut names: Vec<String> = Vec::new();
    for dir in config.plugin_sockets.iter().chain(&config.plugin_specs) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            let fits = path.is_dir()
                || matches!(
                    path.extension().and_then(|end| end.to_str()),
                    Some("sock" | "spec" | "json")
                );
            if fits {
                names.push(stem.to_owned());
            }
        }
    }
    names.sort();
    names.dedup();
    names
        .iter()
        .filter_map(|name| find(config, name).ok().flatten())
        .collect()
}

/// A name is a file's: nothing that leads elsewhere.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn read(path: &Path) -> Result<Address> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
    let invalid =
        |why: String| Error::invalid(format!("volume plugin's file {}: {why}", path.display()));
    if path.extension().is_some_and(|end| end == "json") {
        let spec: Spec = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if spec.tls.is_some_and(|tls| !tls.is_null()) {
            return Err(invalid(
                "TLS is not supported; let the plugin listen on a Unix socket".to_owned(),
            ));
        }
        return address(&spec.addr)
            .ok_or_else(|| invalid(format!("{:?} is no address", spec.addr)));
    }
    let text = text.trim();
    address(text).ok_or_else(|| {
        invalid(format!(
            "{text:?} is no address; give unix:///path or tcp://host:port"
        ))
    })
}

fn address(text: &str) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix://") {
        return path.starts_with('/').then(|| Address::Unix(path.into()));
    }
    let host = text
        .strip_prefix("tcp://")
        .or_else(|| text.strip_prefix("http://"))?;
    let host = host.trim_end_matches('/');
    (!host.is_empty() && !host.contains('/')).then(|| Address::Tcp(host.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_and_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let (sockets, specs) = (dir.path().join("run"), dir.path().join("etc"));
        for dir in [&sockets, &specs, &sockets.join("nested")] {
            fs::create_dir_all(dir).unwrap();
        }
        let _a = UnixListener::bind(sockets.join("a.sock")).unwrap();
        let _b = UnixListener::bind(sockets.join("nested/nested.sock")).unwrap();
        fs::write(specs.join("c.spec"), "unix:///somewhere/c.sock\n").unwrap();
        fs::write(
            specs.join("d.json"),
            r#"{"Name": "d", "Addr": "tcp://localhost:8080"}"#,
        )
        .unwrap();
        fs::write(specs.join("a.spec"), "tcp://other:1").unwrap();
        fs::write(specs.join("bad.spec"), "nonsense").unwrap();
        let config = VolumesConfig {
            plugin_sockets: vec![sockets.clone()],
            plugin_specs: vec![specs],
            ..Default::default()
        };
        let found: Vec<String> = all(&config)
            .iter()
            .map(|found| format!("{} {}", found.name, found.address))
            .collect();
        let run = sockets.display();
        assert_eq!(
            found,
            [
                format!("a unix://{run}/a.sock"),
                "c unix:///somewhere/c.sock".to_owned(),
                "d tcp://localhost:8080".to_owned(),
                format!("nested unix://{run}/nested/nested.sock"),
            ]
        );
        assert!(find(&config, "bad").is_err());
        assert!(find(&config, "../run/a").unwrap().is_none());
        assert!(find(&config, "e").unwrap().is_none());
    }
}
