//! Containers as callers ask for and see them.

use std::collections::BTreeMap;

use davit_store::{
    descriptor::{Descriptor, Platform},
    image_config::ImageConfig,
    options::{ContainerOptions, Resources, RestartPolicy},
};
use jiff::Timestamp;

use super::{NetworkEndpoint, PublishedPort};

/// One filter. An object passes when, for every key that is given, at least
/// one of that key's filters matches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub key: String,
    pub value: String,
}

/// See `davit.v1.CreateContainerRequest`.
#[derive(Debug, Clone, Default)]
pub struct CreateContainerRequest {
    /// 1 to 255 of `[a-zA-Z0-9_.-]`, the first a letter or digit; made up when
    /// empty. A leading "/" is dropped.
    pub name: String,
    /// Name, id or digest.
    pub image: String,
    pub platform: Option<Platform>,
    pub options: ContainerOptions,
    /// 64 hex digits; made up when empty.
    pub id: String,
}

/// See `davit.v1.CreateContainerResponse`.
#[derive(Debug, Clone)]
pub struct CreateContainerResponse {
    pub id: String,
    pub warnings: Vec<String>,
    pub name: String,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerStatus {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl ContainerStatus {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// See `davit.v1.ContainerState`.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerState {
    pub status: ContainerStatus,
    /// Process id on the host while it runs.
    pub pid: Option<u32>,
    pub exit_code: i32,
    /// Why the last start failed, or what else went wrong; may be empty.
    pub error: String,
    pub oom_killed: bool,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub restart_count: u32,
    /// None without a health check.
    pub health: Option<Health>,
    pub manually_stopped: bool,
}

/// What the health checks found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub status: HealthStatus,
    pub failing_streak: u32,
    /// The last five checks, oldest first.
    pub log: Vec<HealthResult>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthResult {
    pub start: Timestamp,
    pub end: Timestamp,
    pub exit_code: i32,
    /// Up to 4 KiB of output.
    pub output: String,
}

/// A container in a list.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: String,
    pub name: String,
    /// Image as it was asked for.
    pub image: String,
    /// Config digest.
    pub image_id: String,
    /// Path and arguments.
    pub command: Vec<String>,
    pub created_at: Timestamp,
    pub state: ContainerState,
    pub labels: BTreeMap<String, String>,
    /// Bytes in the writable layer, when asked for.
    pub size_rw: Option<u64>,
    /// Bytes in all layers, when asked for.
    pub size_root_fs: Option<u64>,
    pub network_mode: String,
    pub mounts: Vec<MountPoint>,
    /// Its connections, with addresses while it runs.
    pub endpoints: Vec<NetworkEndpoint>,
    /// Ports that it exposes, "80/tcp".
    pub exposed_ports: Vec<String>,
    /// Ports that lead to it now.
    pub published: Vec<PublishedPort>,
}

/// A mount as it is in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountPoint {
    pub kind: String,
    pub name: String,
    pub source: String,
    pub destination: String,
    pub driver: String,
    pub mode: String,
    pub read_write: bool,
    pub propagation: String,
}

/// See `davit.v1.ListContainersRequest`.
#[derive(Debug, Clone, Default)]
pub struct ListContainersRequest {
    pub all: bool,
    /// The newest n only, of all states; 0 for no limit.
    pub limit: usize,
    pub size: bool,
    pub filters: Vec<Filter>,
}

/// See `davit.v1.UpdateContainerRequest`.
#[derive(Debug, Clone, Default)]
pub struct UpdateContainerRequest {
    pub resources: Option<Resources>,
    pub restart_policy: Option<RestartPolicy>,
    /// Labels to set; an empty value removes the label.
    pub labels: BTreeMap<String, String>,
}

/// See `davit.v1.RemoveContainerRequest`.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first when it runs.
    pub force: bool,
    /// Remove its anonymous volumes, too.
    pub volumes: bool,
}

/// What a prune removed, or would have removed.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    pub removed: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// See `davit.v1.ContainerDetails`.
#[derive(Debug, Clone)]
pub struct ContainerDetails {
    pub container: Container,
    /// The options as given to Create.
    pub options: ContainerOptions,
    /// The configuration that came out of image and options.
    pub config: ImageConfig,
    pub path: String,
    pub args: Vec<String>,
    /// The snapshotter.
    pub driver: String,
    /// "linux".
    pub platform: String,
    pub log_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub resolv_conf_path: String,
    /// The OCI runtime spec, JSON.
    pub spec_json: Vec<u8>,
    pub exec_ids: Vec<String>,
    pub runtime: String,
    /// Overlay directories by docker's names (LowerDir, UpperDir, …).
    pub driver_data: BTreeMap<String, String>,
    pub image_manifest: Option<Descriptor>,
    /// Number of the event that this state includes.
    pub event_number: u64,
    /// Path of the cgroup below the hierarchy's root.
    pub cgroup_path: String,
    /// Path of the network namespace; empty when it does not run.
    pub network_namespace: String,
    pub user: String,
}

/// What a container's disk use is, for `system df`.
#[derive(Debug, Clone)]
pub struct ContainerUsage {
    pub id: String,
    pub namespace: String,
    /// Writable layer, in bytes.
    pub writable: u64,
    /// Log files, in bytes.
    pub logs: u64,
    /// Whether Prune would remove it.
    pub reclaimable: bool,
}
