//! The daemon's configuration: a TOML file, then the command line.
//!
//! Unknown keys are refused by their full name, so that a typo does not
//! silently leave a default in force.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The documented default configuration, `davitd config default`.
pub(crate) const DEFAULT: &str = include_str!("config.default.toml");

/// Read when `--config` is not given and the file exists.
const DEFAULT_FILE: &str = "/etc/davit/config.toml";

/// What the command line says; it wins over the file.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) root: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) address: Option<PathBuf>,
    pub(crate) docker_address: Option<PathBuf>,
    pub(crate) log_level: Option<String>,
}

/// Everything that can be configured; see `config.default.toml` for the meaning.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) address: PathBuf,
    /// Group that may use the sockets, by name or number; empty for root only.
    pub(crate) group: String,
    pub(crate) docker: Docker,
    pub(crate) log: Log,
    pub(crate) events: Events,
    pub(crate) store: StoreSection,
    pub(crate) images: Images,
    pub(crate) containers: Containers,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    /// Runtimes by name: an absolute path or a name to look up in `$PATH`.
    pub(crate) runtimes: BTreeMap<String, PathBuf>,
}

/// The default network, and where subnets come from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Networks {
    /// Empty: made from the root directory.
    pub(crate) bridge: String,
    /// Empty: picked from the pools.
    pub(crate) subnet: String,
    /// Empty: docker's.
    pub(crate) pools: Vec<Pool>,
}

/// A range of addresses and the length of the prefix of each subnet in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub(crate) base: String,
    pub(crate) size: u8,
}

/// The Docker API's socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Docker {
    pub(crate) enabled: bool,
    pub(crate) address: PathBuf,
}

/// The daemon's own log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// How long events are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Events {
    pub(crate) max_age_hours: u64,
    pub(crate) max_count: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StoreSection {
    pub(crate) cache_bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Images {
    pub(crate) snapshotter: String,
    pub(crate) certs_d: Vec<PathBuf>,
    pub(crate) docker_config: PathBuf,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) max_unpacked_bytes: u64,
    pub(crate) max_entries: u64,
    /// 0: as many as there are cores.
    pub(crate) parallel_layers: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Containers {
    pub(crate) default_runtime: String,
    /// Path of the shim; empty: beside davitd, then `$PATH`.
    pub(crate) shim: PathBuf,
    pub(crate) log_max_size: u64,
    pub(crate) log_max_file: u32,
    pub(crate) cgroup_parent: String,
    pub(crate) seccomp_profile: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Volumes {
    pub(crate) auto_create: bool,
    pub(crate) plugin_sockets: Vec<PathBuf>,
    pub(crate) plugin_specs: Vec<PathBuf>,
    pub(crate) timeout_seconds: u64,
    pub(crate) list_timeout_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            networks: Networks::default(),
            root: "/var/lib/davit".into(),
            state: "/run/davit".into(),
            address: PathBuf::new(),
            group: String::new(),
            docker: Docker::default(),
            log: Log::default(),
            events: Events::default(),
            store: StoreSection::default(),
            images: Images::default(),
            containers: Containers::default(),
            volumes: Volumes::default(),
            runtimes: ["runc", "crun", "youki"]
                .into_iter()
                .map(|name| (name.to_owned(), PathBuf::from(name)))
                .collect(),
        }
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            enabled: true,
            address: PathBuf::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self {
            max_age_hours: 7 * 24,
            max_count: 20_000,
        }
    }
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            cache_bytes: 8 << 20,
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self {
            snapshotter: "overlayfs".into(),
            certs_d: vec!["/etc/davit/certs.d".into()],
            docker_config: "/root/.docker/config.json".into(),
            insecure_registries: Vec::new(),
            max_unpacked_bytes: 64 << 30,
            max_entries: 4_000_000,
            parallel_layers: 0,
        }
    }
}

impl Default for Containers {
    fn default() -> Self {
        Self {
            default_runtime: "builtin".into(),
            shim: PathBuf::new(),
            log_max_size: 20 << 20,
            log_max_file: 5,
            cgroup_parent: "/davit".into(),
            seccomp_profile: PathBuf::new(),
        }
    }
}

impl Default for Volumes {
    fn default() -> Self {
        Self {
            auto_create: true,
            plugin_sockets: vec!["/run/docker/plugins".into()],
            plugin_specs: vec![
                "/etc/docker/plugins".into(),
                "/usr/lib/docker/plugins".into(),
            ],
            timeout_seconds: 30,
            list_timeout_seconds: 2,
        }
    }
}

impl Config {
    /// Reads `file` (or the default file, when it exists) and lays `overrides`
    /// over it. The error says what to mend.
    pub(crate) fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self, String> {
        let mut config = match file {
            Some(path) => Self::read(path).map_err(|error| error.text(path))?,
            None => match Self::read(Path::new(DEFAULT_FILE)) {
                Ok(config) => config,
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    Self::default()
                }
                Err(error) => return Err(error.text(Path::new(DEFAULT_FILE))),
            },
        };
        config.apply(overrides);
        config.validate()?;
        Ok(config)
    }

    /// The configuration in force, as TOML.
    pub(crate) fn dump(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# {error}\n"))
    }

    fn read(path: &Path) -> Result<Self, ReadError> {
        let text = fs::read_to_string(path).map_err(ReadError::Io)?;
        Self::parse(&text).map_err(ReadError::Invalid)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut unknown = Vec::new();
        let source = toml::Deserializer::parse(text).map_err(|error| error.to_string())?;
        let config = serde_ignored::deserialize(source, |key| unknown.push(key.to_string()))
            .map_err(|error| error.to_string())?;
        if unknown.is_empty() {
            Ok(config)
        } else {
            Err(format!(
                "unknown key {}; `davitd config default` lists all keys",
                unknown
                    .iter()
                    .map(|key| format!("\"{key}\""))
                    .collect::<Vec<_>>()
                    .join(", ")
            ))
        }
    }

    fn apply(&mut self, overrides: Overrides) {
        if let Some(root) = overrides.root {
            self.root = root;
        }
        if let Some(state) = overrides.state {
            self.state = state;
        }
        if let Some(address) = overrides.address {
            self.address = address;
        }
        if let Some(address) = overrides.docker_address {
            self.docker.enabled = address != Path::new("none");
            self.docker.address = address;
        }
        if let Some(level) = overrides.log_level {
            self.log.level = level;
        }
        if self.address.as_os_str().is_empty() {
            self.address = self.state.join("davit.sock");
        }
        if self.docker.address.as_os_str().is_empty() {
            self.docker.address = self.state.join("docker.sock");
        }
    }

    fn validate(&self) -> Result<(), String> {
        let absolute = [
            ("root", &self.root),
            ("state", &self.state),
            ("address", &self.address),
        ];
        for (key, path) in absolute {
            if !path.is_absolute() {
                return Err(format!(
                    "{key} must be an absolute path, not \"{}\"",
                    path.display()
                ));
            }
        }
        if self.root == self.state {
            return Err(format!(
                "root and state must differ (both are {}): state is cleared at a reboot",
                self.root.display()
            ));
        }
        if self.volumes.timeout_seconds == 0 || self.volumes.list_timeout_seconds == 0 {
            return Err(
                "volumes.timeout_seconds and list_timeout_seconds must be at least 1".into(),
            );
        }
        if self.containers.log_max_file == 0 || self.containers.log_max_size == 0 {
            return Err("containers.log_max_size and log_max_file must be at least 1".into());
        }
        Ok(())
    }
}

enum ReadError {
    Io(io::Error),
    Invalid(String),
}

impl ReadError {
    fn text(&self, path: &Path) -> String {
        match self {
            Self::Io(error) => format!("cannot read configuration {}: {error}", path.display()),
            Self::Invalid(error) => format!("configuration {}: {error}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_default_is_the_default() {
        let documented = Config::parse(DEFAULT).unwrap();
        assert_eq!(documented.dump(), Config::default().dump());
    }

    #[test]
    fn an_unknown_key_is_refused_by_its_full_name() {
        let error = Config::parse("[images]\nsnapshoter = \"native\"\n").unwrap_err();
        assert!(error.contains("\"images.snapshoter\""), "{error}");
    }

    #[test]
    fn a_wrong_type_names_the_line() {
        let error = Config::parse("root = 3\n").unwrap_err();
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn the_command_line_wins_and_sockets_follow_the_state_directory() {
        let mut config = Config::parse("state = \"/run/other\"\n").unwrap();
        config.apply(Overrides {
            root: Some("/srv/d".into()),
            ..Overrides::default()
        });
        assert_eq!(config.root, Path::new("/srv/d"));
        assert_eq!(config.address, Path::new("/run/other/davit.sock"));
        assert_eq!(config.docker.address, Path::new("/run/other/docker.sock"));
    }
}
