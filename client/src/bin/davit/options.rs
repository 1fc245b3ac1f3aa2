//! The flags that `run` and `create` share, and the container options that
//! they mean.

use clap::Args;
use davit_client::v1;

use crate::{
    error::{Failure, Outcome},
    human::parse_bytes,
    ports::NetworkFlags,
    terminal,
};

/// docker's flags for what a container is and may do.
#[derive(Debug, Args)]
pub(crate) struct ContainerFlags {
    /// Assign a name to the container
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Automatically remove the container when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<std::path::PathBuf>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    entrypoint: Option<String>,
    /// Working directory inside the container
    #[arg(short, long)]
    workdir: Option<String>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long)]
    user: Option<String>,
    /// Add additional groups to join
    #[arg(long)]
    group_add: Vec<String>,
    /// Container host name
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Container NIS domain name
    #[arg(long)]
    domainname: Option<String>,
    /// Set meta data on a container
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Bind mount a path: host:container[:options]
    #[arg(short, long)]
    volume: Vec<String>,
    /// Attach a filesystem mount: type=bind|tmpfs|volume|image,source=…,target=…
    #[arg(long)]
    mount: Vec<String>,
    /// Mount volumes from the specified container(s): container[:ro|rw]
    #[arg(long)]
    volumes_from: Vec<String>,
    /// Optional volume driver for the container
    #[arg(long)]
    volume_driver: Option<String>,
    /// Mount a tmpfs directory: path[:options]
    #[arg(long)]
    tmpfs: Vec<String>,
    /// Add a host device: host[:container[:rwm]]
    #[arg(long)]
    device: Vec<String>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long)]
    device_cgroup_rule: Vec<String>,
    /// Add Linux capabilities
    #[arg(long)]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long)]
    cap_drop: Vec<String>,
    /// Give extended privileges to the container
    #[arg(long)]
    privileged: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    read_only: bool,
    /// Security options
    #[arg(long)]
    security_opt: Vec<String>,
    /// Memory limit
    #[arg(short, long, value_parser = parse_bytes)]
    memory: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, allow_hyphen_values = true, value_parser = bytes_or_unlimited)]
    memory_swap: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_parser = parse_bytes)]
    memory_reservation: Option<i64>,
    /// Tune container memory swappiness (0 to 100)
    #[arg(long, allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_parser = cpus)]
    cpus: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short, long)]
    cpu_shares: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) period, microseconds
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota, microseconds
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long)]
    blkio_weight: Option<u32>,
    /// Ulimit options: name=soft[:hard]
    #[arg(long)]
    ulimit: Vec<String>,
    /// PID namespace to use
    #[arg(long)]
    pid: Option<String>,
    /// IPC mode to use
    #[arg(long)]
    ipc: Option<String>,
    /// UTS namespace to use
    #[arg(long)]
    uts: Option<String>,
    #[command(flatten)]
    network: NetworkFlags,
    /// User namespace to use
    #[arg(long)]
    userns: Option<String>,
    /// Cgroup namespace to use (host|private)
    #[arg(long)]
    cgroupns: Option<String>,
    /// Optional parent cgroup for the container
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Sysctl options
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Disable OOM Killer
    #[arg(long)]
    oom_kill_disable: bool,
    /// Signal to stop the container
    #[arg(long)]
    stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long, allow_hyphen_values = true)]
    stop_timeout: Option<i32>,
    /// Restart policy to apply when a container exits
    #[arg(long, value_parser = restart_policy)]
    restart: Option<v1::RestartPolicy>,
    /// Command to run to check health
    #[arg(long)]
    health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_parser = nanoseconds)]
    health_interval: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_parser = nanoseconds)]
    health_timeout: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long)]
    health_retries: Option<i32>,
    /// Start period for the container to initialize before counting failures
    #[arg(long, value_parser = nanoseconds)]
    health_start_period: Option<i64>,
    /// Time between running the check during the start period
    #[arg(long, value_parser = nanoseconds)]
    health_start_interval: Option<i64>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    no_healthcheck: bool,
    /// Runtime to use for this container: builtin, runc, crun, or a path
    #[arg(long)]
    runtime: Option<String>,
    /// Size of /dev/shm
    #[arg(long, value_parser = parse_bytes)]
    shm_size: Option<i64>,
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long)]
    add_host: Vec<String>,
    /// Set custom DNS servers
    #[arg(long)]
    dns: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long)]
    dns_search: Vec<String>,
    /// Set DNS options
    #[arg(long)]
    dns_option: Vec<String>,
    /// Logging driver for the container (json-file or none)
    #[arg(long)]
    log_driver: Option<String>,
    /// Log driver options: max-size=20m, max-file=5
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    /// Add an annotation to the container
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// Set platform (os[/arch[/variant]])
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Pull image before creating: always, missing or never
    #[arg(long, default_value = "missing")]
    pub(crate) pull: PullPolicy,
    /// Suppress the pull output
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PullPolicy {
    Always,
    Missing,
    Never,
}

impl ContainerFlags {
    /// The request that these flags make of `image` and `args`.
    pub(crate) fn request(
        &self,
        image: &str,
        args: &[String],
    ) -> Outcome<v1::CreateContainerRequest> {
        Ok(v1::CreateContainerRequest {
            name: self.name.clone().unwrap_or_default(),
            image: image.to_owned(),
            platform: self
                .platform
                .as_deref()
                .map(platform)
                .transpose()
                .map_err(Failure::new)?,
            options: Some(
                self.container_options(args)
                    .map_err(|text| Failure::new(text).with_code(125))?,
            ),
            id: String::new(),
        })
    }

    fn container_options(&self, args: &[String]) -> Result<v1::ContainerOptions, String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Ok(v1::ContainerOptions {
            args: args.to_vec(),
            args_set: !args.is_empty(),
            entrypoint: self.entrypoint.iter().cloned().collect(),
            entrypoint_set: self.entrypoint.is_some(),
            env: self.environment()?,
            working_dir: text(&self.workdir),
            user: text(&self.user),
            group_add: self.group_add.clone(),
            hostname: text(&self.hostname),
            domainname: text(&self.domainname),
            tty: self.tty,
            open_stdin: self.interactive,
            labels: self.label.iter().map(|label| pair(label)).collect(),
            mounts: self
                .mount
                .iter()
                .map(|text| mount(text))
                .collect::<Result<_, _>>()?,
            devices: self.device.iter().map(|text| device(text)).collect(),
            device_cgroup_rules: self.device_cgroup_rule.clone(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            privileged: self.privileged,
            read_only: self.read_only,
            security_opt: self
                .security_opt
                .iter()
                .map(|text| security(text))
                .collect::<Result<_, _>>()?,
            resources: Some(self.resources()),
            ulimits: self
                .ulimit
                .iter()
                .map(|text| ulimit(text))
                .collect::<Result<_, _>>()?,
            pid_mode: text(&self.pid),
            ipc_mode: text(&self.ipc),
            uts_mode: text(&self.uts),
            network_mode: self.network.mode(),
            networks: self.network.attachments()?,
            mac_address: text(&self.network.mac_address),
            ports: self.network.ports()?,
            exposed_ports: self.network.exposed()?,
            publish_all_ports: self.network.publish_all,
            links: self.network.link.clone(),
            userns_mode: text(&self.userns),
            cgroupns_mode: text(&self.cgroupns),
            cgroup_parent: text(&self.cgroup_parent),
            sysctls: self.sysctl.iter().map(|text| pair(text)).collect(),
            init: self.init,
            oom_score_adj: self.oom_score_adj.unwrap_or_default(),
            oom_kill_disable: self.oom_kill_disable,
            stop_signal: text(&self.stop_signal),
            stop_timeout: self.stop_timeout.unwrap_or_default(),
            stop_timeout_set: self.stop_timeout.is_some(),
            restart_policy: self.restart.clone(),
            healthcheck: self.healthcheck(),
            auto_remove: self.rm,
            runtime: text(&self.runtime),
            shm_size: self.shm_size.unwrap_or_default(),
            tmpfs: self
                .tmpfs
                .iter()
                .map(|text| split_once_or(text, ':'))
                .collect(),
            extra_hosts: self.add_host.clone(),
            dns: self.dns.clone(),
            dns_search: self.dns_search.clone(),
            dns_options: self.dns_option.clone(),
            log: self.log(),
            terminal_size: if self.tty { terminal::size() } else { None },
            binds: self
                .volume
                .iter()
                .filter(|text| text.contains(':'))
                .map(|text| absolute(text))
                .collect(),
            volumes: self
                .volume
                .iter()
                .filter(|text| !text.contains(':'))
                .cloned()
                .collect(),
            volumes_from: self.volumes_from.clone(),
            volume_driver: text(&self.volume_driver),
            annotations: self.annotation.iter().map(|text| pair(text)).collect(),
            ..Default::default()
        })
    }

    fn environment(&self) -> Result<Vec<String>, String> {
        let mut all = Vec::new();
        for file in &self.env_file {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            let lines = text.lines().map(str::trim_start);
            all.extend(
                lines
                    .filter(|line| !line.is_empty() && !line.starts_with('#'))
                    .filter_map(inherited),
            );
        }
        all.extend(self.env.iter().filter_map(|text| inherited(text)));
        Ok(all)
    }

    fn resources(&self) -> v1::Resources {
        v1::Resources {
            memory: self.memory.unwrap_or_default(),
            memory_swap: self.memory_swap.unwrap_or_default(),
            memory_reservation: self.memory_reservation.unwrap_or_default(),
            memory_swappiness: self.memory_swappiness.unwrap_or_default(),
            memory_swappiness_set: self.memory_swappiness.is_some(),
            nano_cpus: self.cpus.unwrap_or_default(),
            cpu_shares: self.cpu_shares.unwrap_or_default(),
            cpu_period: self.cpu_period.unwrap_or_default(),
            cpu_quota: self.cpu_quota.unwrap_or_default(),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
            pids_limit: self.pids_limit.unwrap_or_default(),
            blkio_weight: self.blkio_weight.unwrap_or_default(),
            ..Default::default()
        }
    }

    fn healthcheck(&self) -> Option<v1::HealthCheck> {
        if self.no_healthcheck {
            return Some(v1::HealthCheck {
                test: vec!["NONE".into()],
                ..Default::default()
            });
        }
        let check = v1::HealthCheck {
            test: self
                .health_cmd
                .iter()
                .flat_map(|line| ["CMD-SHELL".to_owned(), line.clone()])
                .collect(),
            interval_ns: self.health_interval.unwrap_or_default(),
            timeout_ns: self.health_timeout.unwrap_or_default(),
            retries: self.health_retries.unwrap_or_default(),
            start_period_ns: self.health_start_period.unwrap_or_default(),
            start_interval_ns: self.health_start_interval.unwrap_or_default(),
        };
        (check != v1::HealthCheck::default()).then_some(check)
    }

    fn log(&self) -> Option<v1::LogConfig> {
        if self.log_driver.is_none() && self.log_opt.is_empty() {
            return None;
        }
        Some(v1::LogConfig {
            driver: self.log_driver.clone().unwrap_or_default(),
            options: self.log_opt.iter().map(|text| pair(text)).collect(),
        })
    }
}

/// "NAME=value" as it is; "NAME" with the caller's value, or not at all.
fn inherited(text: &str) -> Option<String> {
    if text.contains('=') {
        return Some(text.to_owned());
    }
    std::env::var(text)
        .ok()
        .map(|value| format!("{text}={value}"))
}

pub(crate) fn pair(text: &str) -> (String, String) {
    split_once_or(text, '=')
}

fn split_once_or(text: &str, separator: char) -> (String, String) {
    let (key, value) = text.split_once(separator).unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// A relative source ("./data:/data") is meant from where the user stands.
fn absolute(bind: &str) -> String {
    if !bind.starts_with('.') {
        return bind.to_owned();
    }
    let (source, rest) = bind.split_once(':').unwrap_or((bind, ""));
    match std::path::absolute(source) {
        Ok(path) => format!("{}:{rest}", path.display()),
        Err(_) => bind.to_owned(),
    }
}

/// "os[/arch[/variant]]", or an architecture alone.
pub(crate) fn platform(text: &str) -> Result<v1::Platform, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (os, architecture, variant) = match parts.as_slice() {
        ["linux"] => ("linux", "", ""),
        [architecture] => ("linux", *architecture, ""),
        [os, architecture] => (*os, *architecture, ""),
        [os, architecture, variant] => (*os, *architecture, *variant),
        _ => {
            return Err(format!(
                "\"{text}\" is an invalid platform; give os/arch[/variant]"
            ));
        }
    };
    Ok(v1::Platform {
        os: os.into(),
        architecture: architecture.into(),
        variant: variant.into(),
        os_version: String::new(),
    })
}

fn bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" {
        Ok(-1)
    } else {
        parse_bytes(text)
    }
}

fn cpus(text: &str) -> Result<i64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok((value * 1e9).round() as i64),
        _ => Err(format!("failed to parse {text} as a rational number")),
    }
}

fn nanoseconds(text: &str) -> Result<i64, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    i64::try_from(span.as_nanos()).map_err(|_| format!("{text} is too long"))
}

/// "no", "always", "unless-stopped", "on-failure[:n]".
pub(crate) fn restart_policy(text: &str) -> Result<v1::RestartPolicy, String> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    let maximum_retry_count = match count {
        "" => 0,
        _ => count
            .parse()
            .map_err(|_| "maximum retry count must be an integer".to_owned())?,
    };
    Ok(v1::RestartPolicy {
        name: name.into(),
        maximum_retry_count,
    })
}

/// A profile's file is read here: the daemon may not see the user's files.
fn security(text: &str) -> Result<String, String> {
    match text
        .strip_prefix("seccomp=")
        .or_else(|| text.strip_prefix("seccomp:"))
    {
        Some(path) if path != "unconfined" && path != "builtin" && !path.starts_with('{') => {
            let json = std::fs::read_to_string(path)
                .map_err(|error| format!("opening seccomp profile ({path}) failed: {error}"))?;
            Ok(format!("seccomp={json}"))
        }
        _ => Ok(text.to_owned()),
    }
}

fn device(text: &str) -> v1::Device {
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default();
    let second = parts.next();
    let third = parts.next();
    // "host:rwm" is allowed, too.
    let permissions_only = second
        .is_some_and(|part| third.is_none() && part.bytes().all(|byte| b"rwm".contains(&byte)));
    let (container, permissions) = if permissions_only {
        (host, second.unwrap_or_default())
    } else {
        (second.unwrap_or(host), third.unwrap_or("rwm"))
    };
    v1::Device {
        host_path: host.into(),
        container_path: container.into(),
        permissions: permissions.into(),
    }
}

fn ulimit(text: &str) -> Result<v1::Ulimit, String> {
    let invalid = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |part: &str| match part {
        "unlimited" => Ok(-1),
        _ => part.parse::<i64>().map_err(|_| invalid()),
    };
    Ok(v1::Ulimit {
        name: name.into(),
        soft: number(soft)?,
        hard: number(hard)?,
    })
}

/// `--mount type=…,source=…,target=…,…`.
fn mount(text: &str) -> Result<v1::Mount, String> {
    let mut mount = v1::Mount {
        r#type: "volume".into(),
        ..Default::default()
    };
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .map_or((field, None), |(k, v)| (k, Some(v)));
        let needed = || {
            value
                .map(str::to_owned)
                .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))
        };
        let flag = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("invalid value for {key}: {other}")),
        };
        match key {
            "type" => mount.r#type = needed()?.to_lowercase(),
            "source" | "src" => mount.source = needed()?,
            "target" | "destination" | "dst" => mount.target = needed()?,
            "readonly" | "ro" => mount.read_only = flag()?,
            "bind-propagation" => mount.propagation = needed()?,
            "bind-nonrecursive" => mount.non_recursive = flag()?,
            "volume-nocopy" => mount.no_copy = flag()?,
            "volume-must-exist" => mount.must_exist = flag()?,
            "volume-subpath" | "image-subpath" => mount.subpath = needed()?,
            "volume-driver" => mount.volume_driver = needed()?,
            "volume-label" => mount.volume_labels.extend([pair(&needed()?)]),
            "volume-opt" => mount.volume_options.extend([pair(&needed()?)]),
            "tmpfs-size" => mount.tmpfs_size = parse_bytes(&needed()?)?,
            "tmpfs-mode" => {
                mount.tmpfs_mode = u32::from_str_radix(&needed()?, 8)
                    .map_err(|_| format!("invalid value for {key}: {field}"))?;
            }
            "consistency" => mount.consistency = needed()?,
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if mount.target.is_empty() {
        return Err("target is required".into());
    }
    if mount.r#type == "bind" && mount.source.starts_with('.') {
        mount.source = std::path::absolute(&mount.source)
            .map_err(|error| error.to_string())?
            .display()
            .to_string();
    }
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_parsed_as_docker_does() {
        let parsed = mount("type=bind,source=/a,target=/b,readonly").unwrap();
        assert_eq!(
            (parsed.source.as_str(), parsed.target.as_str()),
            ("/a", "/b")
        );
        assert!(parsed.read_only);
        assert_eq!(
            mount("type=tmpfs,dst=/t,tmpfs-size=1m").unwrap().tmpfs_size,
            1 << 20
        );
        assert!(mount("type=bind,source=/a").unwrap_err().contains("target"));
        assert!(
            mount("type=bind,target=/b,bogus=1")
                .unwrap_err()
                .contains("bogus")
        );
    }

    #[test]
    fn devices_and_limits() {
        let parsed = device("/dev/null:rw");
        assert_eq!(
            (parsed.container_path.as_str(), parsed.permissions.as_str()),
            ("/dev/null", "rw")
        );
        assert_eq!(device("/dev/a:/dev/b:r").container_path, "/dev/b");
        assert_eq!(ulimit("nofile=1024:2048").unwrap().hard, 2048);
        assert!(ulimit("nofile").is_err());
        assert_eq!(cpus("1.5"), Ok(1_500_000_000));
        assert!(cpus("x").is_err());
    }
}
