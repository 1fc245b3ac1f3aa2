//! What the engine is told at its start.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use ipnet::Ipv4Net;

use crate::{Error, Result};

/// Where the daemon's root is unless it is told otherwise; only that daemon
/// has the plain names on the host ("davit0").
pub(crate) const DEFAULT_ROOT: &str = "/var/lib/davit";

/// Configuration of an [`Engine`](crate::Engine); [`EngineConfig::new`] gives
/// the defaults.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// What survives a reboot: container directories with their logs.
    pub root: PathBuf,
    /// What does not: shim bundles, sockets, runtime state.
    pub state: PathBuf,
    /// The shim's binary.
    pub shim: PathBuf,
    /// Runtimes by name, with the path of their binary (looked up in $PATH when
    /// not absolute). "builtin" needs no entry.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// Runtime of containers that name none: "builtin" or a key of `runtimes`.
    pub default_runtime: String,
    /// Snapshotter of new containers.
    pub snapshotter: String,
    /// Parent of containers' cgroups, below each hierarchy's root.
    pub cgroup_parent: String,
    /// Let systemd make the cgroups.
    pub systemd_cgroup: bool,
    /// Bytes after which a log file is rotated, unless a container says other.
    pub log_max_size: u64,
    /// Log files kept, unless a container says other.
    pub log_max_file: u32,
    /// Seconds between the stop signal and KILL, unless a container says other.
    pub stop_timeout: i32,
    /// Longest wait for one answer of a shim.
    pub shim_deadline: Duration,
    /// Longest wait for a shim and its runtime to make and start a process.
    pub start_deadline: Duration,
    /// The default network, and where subnets come from.
    pub networks: NetworkConfig,
    /// How volumes are made and found.
    pub volumes: VolumesConfig,
}

/// How volumes are made and found.
#[derive(Debug, Clone)]
pub struct VolumesConfig {
    /// Make a named volume that a container mounts and that is not there.
    pub auto_create: bool,
    /// Directories with volume plugins' sockets, `<name>.sock`.
    pub plugin_sockets: Vec<PathBuf>,
    /// Directories with volume plugins' addresses, `<name>.spec` or `.json`.
    pub plugin_specs: Vec<PathBuf>,
    /// Longest wait for a plugin (or a mount) to do something.
    pub timeout: Duration,
    /// Longest wait for a plugin to tell what it has.
    pub list_timeout: Duration,
}

impl Default for VolumesConfig {
    fn default() -> Self {
        Self {
            auto_create: true,
            plugin_sockets: vec!["/run/docker/plugins".into()],
            plugin_specs: vec![
                "/etc/docker/plugins".into(),
                "/usr/lib/docker/plugins".into(),
            ],
            timeout: Duration::from_secs(30),
            list_timeout: Duration::from_secs(2),
        }
    }
}

/// The default network, and where subnets come from.
#[derive(Debug, Clone, Default)]
pub struct NetworkConfig {
    /// Name of the default network's bridge; made from the root when empty.
    pub bridge: String,
    /// Its subnet, "172.17.0.0/16"; picked from the pools when empty.
    pub subnet: String,
    /// "172.17.0.0/16" and the length of each subnet's prefix; docker's when
    /// empty.
    pub pools: Vec<(String, u8)>,
}

impl NetworkConfig {
    pub(crate) fn default_subnet(&self) -> Result<Option<Ipv4Net>> {
        match self.subnet.as_str() {
            "" => Ok(None),
            text => net("networks.subnet", text).map(Some),
        }
    }

    pub(crate) fn parsed_pools(&self) -> Result<Vec<(Ipv4Net, u8)>> {
        if self.pools.is_empty() {
            return Ok(crate::networks::default_pools());
        }
        let pools = self.pools.iter().map(|(text, size)| {
            let pool = net("networks.pools", text)?;
            if *size < pool.prefix_len() || *size > 30 {
                return Err(Error::invalid(format!(
                    "networks.pools: {text} cannot be cut into subnets of /{size}"
                )));
            }
            Ok((pool, *size))
        });
        pools.collect()
    }
}

fn net(key: &str, text: &str) -> Result<Ipv4Net> {
    text.parse::<Ipv4Net>().map(|net| net.trunc()).map_err(|_| {
        Error::invalid(format!(
            "{key}: {text:?} is no IPv4 subnet like 172.17.0.0/16"
        ))
    })
}

impl EngineConfig {
    /// The defaults below `root` and `state`, with the shim at `shim`.
    pub fn new(
        root: impl Into<PathBuf>,
        state: impl Into<PathBuf>,
        shim: impl Into<PathBuf>,
    ) -> Self {
        Self {
            root: root.into(),
            state: state.into(),
            shim: shim.into(),
            runtimes: ["runc", "crun", "youki"]
                .into_iter()
                .map(|name| (name.to_owned(), PathBuf::from(name)))
                .collect(),
            default_runtime: "builtin".to_owned(),
            snapshotter: "overlayfs".to_owned(),
            cgroup_parent: "davit".to_owned(),
            systemd_cgroup: false,
            log_max_size: 20 << 20,
            log_max_file: 5,
            stop_timeout: 10,
            shim_deadline: Duration::from_secs(10),
            start_deadline: Duration::from_secs(60),
            networks: NetworkConfig::default(),
            volumes: VolumesConfig::default(),
        }
    }
}
