//! How a container is to run: the options of davit.v1's `ContainerOptions`,
//! one to one, as plain types. Pairs of a field and its `_set` flag are one
//! `Option` here. Records and requests use the same types.

use crate::{
    image_config::HealthCheck,
    record::{byte_string, sparse},
};
use std::collections::BTreeMap;

sparse! {
    /// How a container is to run. What is left out comes from the image, then
    /// from docker's defaults.
    pub struct ContainerOptions {
        /// Arguments that replace the image's CMD.
        pub args: Option<Vec<String>>,
        /// Entry point that replaces the image's (and drops its CMD). Empty,
        /// or one empty string, clears it.
        pub entrypoint: Option<Vec<String>>,
        /// "NAME=value", or "NAME" to remove a variable of the image.
        pub env: Vec<String>,
        /// Directory to start in.
        pub working_dir: String,
        /// "user", "uid", "user:group" or "uid:gid".
        pub user: String,
        /// Further groups, by name or number.
        pub group_add: Vec<String>,
        /// Host name; the first 12 digits of the id when empty.
        pub hostname: String,
        /// NIS domain name.
        pub domainname: String,
        /// Allocate a terminal.
        pub tty: bool,
        /// Keep stdin open for attach.
        pub open_stdin: bool,
        /// Close stdin after the first attach that had it is gone.
        pub stdin_once: bool,
        /// Echoed by inspect.
        pub attach_stdin: bool,
        /// Echoed by inspect.
        pub attach_stdout: bool,
        /// Echoed by inspect.
        pub attach_stderr: bool,
        /// Labels, over the image's.
        pub labels: BTreeMap<String, String>,
        /// Mounts in the new form.
        pub mounts: Vec<Mount>,
        /// Device nodes of the host.
        pub devices: Vec<Device>,
        /// cgroup device rules, "c 10:200 rwm".
        pub device_cgroup_rules: Vec<String>,
        /// Capabilities to add, with or without "CAP_", or "ALL".
        pub cap_add: Vec<String>,
        /// Capabilities to drop, likewise.
        pub cap_drop: Vec<String>,
        /// All capabilities, all devices, no confinement.
        pub privileged: bool,
        /// Mount the root file system read-only.
        pub read_only: bool,
        /// "no-new-privileges", "seccomp=…", "apparmor=…", "label=…",
        /// "systempaths=unconfined".
        pub security_opt: Vec<String>,
        /// Paths to hide; docker's defaults when `None`.
        pub masked_paths: Option<Vec<String>>,
        /// Paths to make read-only; docker's defaults when `None`.
        pub readonly_paths: Option<Vec<String>>,
        /// Limits.
        pub resources: Resources,
        /// Resource limits of processes.
        pub ulimits: Vec<Ulimit>,
        /// "host", "container:<id>", "private" or "".
        pub pid_mode: String,
        /// "host", "container:<id>", "private", "shareable", "none" or "".
        pub ipc_mode: String,
        /// "host" or "".
        pub uts_mode: String,
        /// "host", "none", "container:<id>", a network's name, or "".
        pub network_mode: String,
        /// "host" or "".
        pub userns_mode: String,
        /// "host", "private" or "".
        pub cgroupns_mode: String,
        /// Parent of the container's cgroup.
        pub cgroup_parent: String,
        /// Kernel parameters of the container's namespaces.
        pub sysctls: BTreeMap<String, String>,
        /// Run a small init as PID 1.
        pub init: bool,
        /// oom_score_adj, -1000 to 1000.
        pub oom_score_adj: i32,
        /// Do not kill when the memory limit is hit (cgroup v1).
        pub oom_kill_disable: bool,
        /// Signal that stops the container; the image's, or SIGTERM.
        pub stop_signal: String,
        /// Seconds to wait before KILL; 10 when `None`.
        pub stop_timeout: Option<i32>,
        /// When to start it again.
        pub restart_policy: RestartPolicy,
        /// Health check, over the image's.
        pub healthcheck: Option<HealthCheck>,
        /// Remove the container when it has exited.
        pub auto_remove: bool,
        /// Runtime by name or absolute path; the daemon's default when empty.
        pub runtime: String,
        /// Bytes of /dev/shm; 64 MiB when 0.
        pub shm_size: i64,
        /// tmpfs mounts in the short form: path to options.
        pub tmpfs: BTreeMap<String, String>,
        /// "host:1.2.3.4" lines for /etc/hosts.
        pub extra_hosts: Vec<String>,
        /// Name servers.
        pub dns: Vec<String>,
        /// Search domains.
        pub dns_search: Vec<String>,
        /// resolv.conf options.
        pub dns_options: Vec<String>,
        /// Where output goes.
        pub log: LogConfig,
        /// Size of the terminal at the start.
        pub terminal_size: Option<TerminalSize>,
        /// Mounts in the old form "src:dst[:opts]".
        pub binds: Vec<String>,
        /// OCI annotations.
        pub annotations: BTreeMap<String, String>,
        /// "<container>[:ro|rw]".
        pub volumes_from: Vec<String>,
        /// Ports to publish.
        pub ports: Vec<PortBinding>,
        /// Ports to expose, "80/tcp".
        pub exposed_ports: Vec<String>,
        /// Publish all exposed ports.
        pub publish_all_ports: bool,
        /// Anonymous volumes: paths in the container.
        pub volumes: Vec<String>,
        /// MAC address on the first network.
        pub mac_address: String,
        /// Settings for each network, by its name.
        pub networks: BTreeMap<String, NetworkAttachment>,
        /// Links in the old form "container:alias".
        pub links: Vec<String>,
        /// Shell for shell-form health checks; the image's when empty.
        pub shell: Vec<String>,
        /// What the Docker API wants echoed and the engine does not use.
        #[serde(with = "byte_string")]
        pub opaque: Vec<u8>,
        /// Driver of volumes that are made on the way; "local" when empty.
        pub volume_driver: String,
    }

    /// A port made reachable from outside.
    pub struct PortBinding {
        /// Port in the container.
        pub container_port: u32,
        /// "tcp", "udp" or "sctp".
        pub protocol: String,
        /// Address on the host; empty for all.
        pub host_ip: String,
        /// Port on the host, or "first-last"; empty for any free one.
        pub host_port: String,
    }

    /// How a container joins a network.
    pub struct NetworkAttachment {
        /// Names under which others on the network find it.
        pub aliases: Vec<String>,
        /// Fixed IPv4 address.
        pub ipv4_address: String,
        /// Fixed IPv6 address.
        pub ipv6_address: String,
        /// Links on this network.
        pub links: Vec<String>,
        /// Options for the network's driver.
        pub driver_opts: BTreeMap<String, String>,
        /// Fixed MAC address.
        pub mac_address: String,
        /// Link-local addresses.
        pub link_local_ips: Vec<String>,
        /// The network with the highest one gives the default route.
        pub gw_priority: i32,
    }

    /// A mount in the new form.
    pub struct Mount {
        /// "bind", "tmpfs", "volume" or "image" (`type` in davit.v1).
        pub kind: String,
        /// Path on the host, volume name, or image.
        pub source: String,
        /// Absolute path in the container.
        pub target: String,
        /// Mount read-only.
        pub read_only: bool,
        /// "private", "rprivate", "shared", "rshared", "slave", "rslave" or "".
        pub propagation: String,
        /// Without the mounts below the source.
        pub non_recursive: bool,
        /// Make the source directory when it is missing.
        pub create_source: bool,
        /// tmpfs: bytes, 0 for no limit.
        pub tmpfs_size: i64,
        /// tmpfs: mode bits, 0 for 01777.
        pub tmpfs_mode: u32,
        /// Further mount options.
        pub options: Vec<String>,
        /// volume, image: path inside the source.
        pub subpath: String,
        /// volume: do not copy the image's content into a new volume.
        pub no_copy: bool,
        /// volume: labels for one that is made on the way.
        pub volume_labels: BTreeMap<String, String>,
        /// volume: driver, likewise.
        pub volume_driver: String,
        /// volume: driver options, likewise.
        pub volume_options: BTreeMap<String, String>,
        /// Accepted and ignored.
        pub consistency: String,
        /// volume: refuse instead of making a volume that is not there.
        pub must_exist: bool,
    }

    /// A device of the host.
    pub struct Device {
        /// Path on the host; a directory means all devices below it.
        pub host_path: String,
        /// Path in the container; the same when empty.
        pub container_path: String,
        /// Some of "rwm"; all when empty.
        pub permissions: String,
    }

    /// Limits. 0 or an empty string means none of that kind.
    pub struct Resources {
        /// Bytes of memory.
        pub memory: i64,
        /// Bytes of memory plus swap; -1 unlimited, 0 twice the memory.
        pub memory_swap: i64,
        /// Bytes to which it is pushed back when the host is short.
        pub memory_reservation: i64,
        /// 0 to 100, -1 for the host's.
        pub memory_swappiness: Option<i64>,
        /// Bytes of kernel memory (gone from the kernel; a warning).
        pub kernel_memory: i64,
        /// Billionths of a CPU.
        pub nano_cpus: i64,
        /// Relative weight, 1024 is normal.
        pub cpu_shares: i64,
        /// CFS period, microseconds.
        pub cpu_period: i64,
        /// CFS quota in a period, microseconds.
        pub cpu_quota: i64,
        /// Real-time period, microseconds.
        pub cpu_rt_period: i64,
        /// Real-time run time, microseconds.
        pub cpu_rt_runtime: i64,
        /// CPUs it may use, "0-3,7".
        pub cpuset_cpus: String,
        /// NUMA nodes it may use.
        pub cpuset_mems: String,
        /// Processes; -1 for no limit.
        pub pids_limit: i64,
        /// 10 to 1000.
        pub blkio_weight: u32,
        /// Weight on single devices.
        pub blkio_weight_device: Vec<WeightDevice>,
        /// Bytes read a second.
        pub blkio_device_read_bps: Vec<ThrottleDevice>,
        /// Bytes written a second.
        pub blkio_device_write_bps: Vec<ThrottleDevice>,
        /// Reads a second.
        pub blkio_device_read_iops: Vec<ThrottleDevice>,
        /// Writes a second.
        pub blkio_device_write_iops: Vec<ThrottleDevice>,
    }

    /// Block I/O weight on one device.
    pub struct WeightDevice {
        /// Device node on the host.
        pub path: String,
        /// 10 to 1000.
        pub weight: u32,
    }

    /// A bound on one device.
    pub struct ThrottleDevice {
        /// Device node on the host.
        pub path: String,
        /// Bytes or operations a second.
        pub rate: u64,
    }

    /// A resource limit of processes.
    pub struct Ulimit {
        /// "nofile", "nproc", …, without "RLIMIT_".
        pub name: String,
        /// -1 for unlimited.
        pub soft: i64,
        /// -1 for unlimited.
        pub hard: i64,
    }

    /// When an ended container is started again.
    pub struct RestartPolicy {
        /// "no" (or ""), "on-failure", "always" or "unless-stopped".
        pub name: String,
        /// on-failure: restarts at most; 0 for no bound.
        pub maximum_retry_count: i32,
    }

    /// Where output goes.
    pub struct LogConfig {
        /// "json-file" (also when empty) or "none".
        pub driver: String,
        /// "max-size" ("20m") and "max-file" ("5") for json-file.
        pub options: BTreeMap<String, String>,
    }

    /// Size of a terminal, in characters.
    pub struct TerminalSize {
        /// Columns.
        pub width: u32,
        /// Rows.
        pub height: u32,
    }

    /// What to run in a container that runs already.
    pub struct ExecOptions {
        /// Path and arguments.
        pub args: Vec<String>,
        /// "NAME=value", over the container's.
        pub env: Vec<String>,
        /// Directory to start in; the container's when empty.
        pub working_dir: String,
        /// As in [`ContainerOptions::user`]; the container's when empty.
        pub user: String,
        /// Allocate a terminal.
        pub tty: bool,
        /// Keep stdin open.
        pub attach_stdin: bool,
        /// Give stdout to the caller.
        pub attach_stdout: bool,
        /// Give stderr to the caller.
        pub attach_stderr: bool,
        /// All capabilities.
        pub privileged: bool,
        /// Keys that detach.
        pub detach_keys: String,
        /// Size of the terminal at the start.
        pub terminal_size: Option<TerminalSize>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_cost_one_byte_and_come_back() {
        let bytes = rmp_serde::to_vec_named(&ContainerOptions::default()).unwrap();
        assert_eq!(bytes.len(), 1);
        let back: ContainerOptions = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(back, ContainerOptions::default());
    }

    #[test]
    fn an_empty_list_that_was_set_differs_from_none() {
        let options = ContainerOptions {
            entrypoint: Some(Vec::new()),
            stop_timeout: Some(0),
            resources: Resources {
                memory_swappiness: Some(0),
                ..Default::default()
            },
            opaque: vec![0, 255, 7],
            ..Default::default()
        };
        let bytes = rmp_serde::to_vec_named(&options).unwrap();
        assert_eq!(
            rmp_serde::from_slice::<ContainerOptions>(&bytes).unwrap(),
            options
        );
        let json = serde_json::to_vec(&options).unwrap();
        assert_eq!(
            serde_json::from_slice::<ContainerOptions>(&json).unwrap(),
            options
        );
    }

    #[test]
    fn unknown_fields_of_a_newer_daemon_are_ignored() {
        let bytes =
            rmp_serde::to_vec_named(&serde_json::json!({"hostname": "h", "not_yet": [1, 2]}))
                .unwrap();
        let options: ContainerOptions = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(options.hostname, "h");
    }
}
