//! The body of POST /containers/create as `v1::ContainerOptions`.

use std::collections::HashMap;

use davit_client::v1;
use serde_json::{Map, Value};

use super::{config, mount, resources};
use crate::{
    failure::{Failure, Result},
    fields::Fields,
};

/// HostConfig fields that the engine has no use for, or only as a plain value
/// where docker tells null from it; kept for inspect.
const ECHO_HOST: &[&str] = &[
    "ContainerIDFile",
    "Cgroup",
    "Isolation",
    "StorageOpt",
    "KernelMemoryTCP",
    "OomKillDisable",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
    "Init",
    "ConsoleSize",
];
/// The same of Config.
const ECHO_CONFIG: &[&str] = &["ArgsEscaped", "NetworkDisabled", "OnBuild"];

/// What dockerd hides unless it is told otherwise.
pub(crate) const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// What dockerd makes read-only unless it is told otherwise.
pub(crate) const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Image and options of a create body.
///
/// # Errors
/// 400 for wrong types and for what this host can never do.
pub(crate) fn from_json(body: Option<&Value>) -> Result<(String, v1::ContainerOptions)> {
    let body = body.unwrap_or(&Value::Null);
    let config = Fields::root(body, "ContainerConfigWrapper")?;
    let only_host = body.as_object().is_none_or(|map| {
        map.keys()
            .all(|key| key == "HostConfig" || key == "NetworkingConfig")
    });
    if only_host {
        return Err(Failure::bad_request(
            "config cannot be empty in order to create a container",
        ));
    }
    let host = config.object("HostConfig")?;
    refuse_impossible(&host)?;
    let mut options = v1::ContainerOptions::default();
    from_config(&config, &mut options)?;
    from_host(&host, &mut options)?;
    from_host_namespaces(&host, &mut options)?;
    options.networks = networks(&config.object("NetworkingConfig")?)?;
    options.opaque = echo(&config, &host).into();
    Ok((config.string("Image")?, options))
}

fn refuse_impossible(host: &Fields<'_>) -> Result<()> {
    if let Some(request) = host.objects("DeviceRequests")?.first() {
        let capabilities = request.get("Capabilities").cloned().unwrap_or_default();
        return Err(Failure::bad_request(format!(
            "could not select device driver {:?} with capabilities: {}",
            request.string("Driver")?,
            capabilities.to_string().replace('"', "").replace(',', " ")
        )));
    }
    if !host.string_map("StorageOpt")?.is_empty() {
        return Err(Failure::bad_request(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    Ok(())
}

fn from_config(config: &Fields<'_>, options: &mut v1::ContainerOptions) -> Result<()> {
    options.args = config.words("Cmd")?.unwrap_or_default();
    options.args_set = !options.args.is_empty();
    let entrypoint = config.words("Entrypoint")?;
    options.entrypoint_set = entrypoint.is_some();
    options.entrypoint = entrypoint.unwrap_or_default();
    options.env = config.strings("Env")?;
    options.working_dir = config.string("WorkingDir")?;
    options.user = config.string("User")?;
    options.hostname = config.string("Hostname")?;
    options.domainname = config.string("Domainname")?;
    options.tty = config.flag("Tty")?;
    options.open_stdin = config.flag("OpenStdin")?;
    options.stdin_once = config.flag("StdinOnce")?;
    options.attach_stdin = config.flag("AttachStdin")?;
    options.attach_stdout = config.flag("AttachStdout")?;
    options.attach_stderr = config.flag("AttachStderr")?;
    options.labels = config.string_map("Labels")?;
    options.stop_signal = config.string("StopSignal")?;
    options.stop_timeout_set = config.has("StopTimeout");
    options.stop_timeout = config.small("StopTimeout", "int")?;
    options.healthcheck = config::health_from_json(config)?;
    options.exposed_ports = config.set("ExposedPorts")?;
    options.volumes = config.set("Volumes")?;
    options.mac_address = config.string("MacAddress")?;
    options.shell = config.strings("Shell")?;
    Ok(())
}

fn from_host(host: &Fields<'_>, options: &mut v1::ContainerOptions) -> Result<()> {
    options.binds = host.strings("Binds")?;
    options.mounts = mount::from_json(host)?;
    options.tmpfs = host.string_map("Tmpfs")?;
    options.volumes_from = host.strings("VolumesFrom")?;
    options.volume_driver = host.string("VolumeDriver")?;
    options.devices = resources::devices_from_json(host)?;
    options.device_cgroup_rules = host.strings("DeviceCgroupRules")?;
    options.cap_add = host.words("CapAdd")?.unwrap_or_default();
    options.cap_drop = host.words("CapDrop")?.unwrap_or_default();
    options.privileged = host.flag("Privileged")?;
    options.read_only = host.flag("ReadonlyRootfs")?;
    options.security_opt = host.strings("SecurityOpt")?;
    options.resources = Some(resources::from_json(host)?);
    options.ulimits = resources::ulimits_from_json(host)?;
    options.oom_score_adj = host.small("OomScoreAdj", "int")?;
    options.oom_kill_disable = host.flag("OomKillDisable")?;
    options.shm_size = host.int("ShmSize")?;
    options.sysctls = host.string_map("Sysctls")?;
    options.init = host.flag("Init")?;
    options.auto_remove = host.flag("AutoRemove")?;
    options.runtime = host.string("Runtime")?;
    options.annotations = host.string_map("Annotations")?;
    options.group_add = host.strings("GroupAdd")?;
    let restart = host.object("RestartPolicy")?;
    options.restart_policy = host
        .has("RestartPolicy")
        .then(|| restart_policy(&restart))
        .transpose()?
        .filter(|policy| !policy.name.is_empty());
    let log = host.object("LogConfig")?;
    let log = v1::LogConfig {
        driver: log.string("Type")?,
        options: log.string_map("Config")?,
    };
    options.log = (log != v1::LogConfig::default()).then_some(log);
    options.terminal_size = terminal_size(host)?;
    let masked = host.opt_strings("MaskedPaths")?;
    let readonly = host.opt_strings("ReadonlyPaths")?;
    options.paths_set = masked.is_some() || readonly.is_some();
    if options.paths_set {
        let default = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        options.masked_paths = masked.unwrap_or_else(|| default(MASKED_PATHS));
        options.readonly_paths = readonly.unwrap_or_else(|| default(READONLY_PATHS));
    }
    Ok(())
}

fn from_host_namespaces(host: &Fields<'_>, options: &mut v1::ContainerOptions) -> Result<()> {
    options.pid_mode = host.string("PidMode")?;
    options.ipc_mode = host.string("IpcMode")?;
    options.uts_mode = host.string("UTSMode")?;
    options.userns_mode = host.string("UsernsMode")?;
    options.cgroupns_mode = host.string("CgroupnsMode")?;
    options.cgroup_parent = host.string("CgroupParent")?;
    options.network_mode = match host.string("NetworkMode")?.as_str() {
        // Docker's word for "whatever the daemon's default is".
        "default" => String::new(),
        mode => mode.to_owned(),
    };
    options.extra_hosts = host.strings("ExtraHosts")?;
    options.dns = host.strings("Dns")?;
    options.dns_search = host.strings("DnsSearch")?;
    options.dns_options = host.strings("DnsOptions")?;
    options.links = host.strings("Links")?;
    options.publish_all_ports = host.flag("PublishAllPorts")?;
    options.ports = ports(host)?;
    Ok(())
}

/// Reads a restart policy out of a HostConfig or an update.
pub(crate) fn restart_policy(policy: &Fields<'_>) -> Result<v1::RestartPolicy> {
    Ok(v1::RestartPolicy {
        name: policy.string("Name")?,
        maximum_retry_count: policy.small("MaximumRetryCount", "int")?,
    })
}

/// `ConsoleSize` is [height, width]; zeros mean that nobody knows.
pub(crate) fn terminal_size(fields: &Fields<'_>) -> Result<Option<v1::TerminalSize>> {
    let Some(Value::Array(size)) = fields.get("ConsoleSize") else {
        return Ok(None);
    };
    let side = |at: usize| {
        size.get(at)
            .and_then(Value::as_u64)
            .and_then(|side| side.try_into().ok())
    };
    let (Some(height), Some(width)) = (side(0), side(1)) else {
        return Err(Failure::bad_request(
            "invalid ConsoleSize: [height, width] expected",
        ));
    };
    Ok((height > 0 && width > 0).then_some(v1::TerminalSize { width, height }))
}

fn ports(host: &Fields<'_>) -> Result<Vec<v1::PortBinding>> {
    let mut ports = Vec::new();
    let bindings = host.object("PortBindings")?;
    for key in host.set("PortBindings")? {
        let invalid = || Failure::bad_request(format!("invalid port specification: {key:?}"));
        let (port, protocol) = key.split_once('/').unwrap_or((&key, "tcp"));
        let container_port: u16 = port.parse().map_err(|_| invalid())?;
        let mut of_port = bindings.objects(&key)?;
        if of_port.is_empty() {
            // "80/tcp": [] publishes on any port, as one empty binding does.
            of_port = vec![Fields::root(&Value::Null, "PortBinding")?];
        }
        for binding in of_port {
            ports.push(v1::PortBinding {
                container_port: container_port.into(),
                protocol: protocol.to_ascii_lowercase(),
                host_ip: binding.string("HostIp")?,
                host_port: binding.string("HostPort")?,
            });
        }
    }
    Ok(ports)
}

fn networks(config: &Fields<'_>) -> Result<HashMap<String, v1::NetworkAttachment>> {
    let mut networks = HashMap::new();
    for (name, endpoint) in config.object_map("EndpointsConfig")? {
        networks.insert(name, attachment(&endpoint)?);
    }
    Ok(networks)
}

/// Reads an endpoint's settings.
pub(crate) fn attachment(endpoint: &Fields<'_>) -> Result<v1::NetworkAttachment> {
    let ipam = endpoint.object("IPAMConfig")?;
    Ok(v1::NetworkAttachment {
        aliases: endpoint.strings("Aliases")?,
        ipv4_address: ipam.string("IPv4Address")?,
        ipv6_address: ipam.string("IPv6Address")?,
        links: endpoint.strings("Links")?,
        driver_opts: endpoint.string_map("DriverOpts")?,
        mac_address: endpoint.string("MacAddress")?,
        link_local_ips: ipam.strings("LinkLocalIPs")?,
        gw_priority: endpoint.small("GwPriority", "int")?,
    })
}

/// What inspect has to give back and the engine does not know.
fn echo(config: &Fields<'_>, host: &Fields<'_>) -> Vec<u8> {
    let pick = |fields: &Fields<'_>, keys: &[&str]| -> Map<String, Value> {
        let value = |key: &&str| Some(((*key).to_owned(), fields.get(key)?.clone()));
        keys.iter().filter_map(value).collect()
    };
    let mut echo = Map::new();
    echo.insert("Config".into(), pick(config, ECHO_CONFIG).into());
    echo.insert("HostConfig".into(), pick(host, ECHO_HOST).into());
    Value::Object(echo).to_string().into_bytes()
}

/// A platform as docker writes it: "linux", "linux/arm64", "linux/arm/v7".
pub(crate) fn platform(text: &str) -> Result<Option<v1::Platform>> {
    if text.is_empty() {
        return Ok(None);
    }
    // From API 1.48 on some calls take the platform as JSON.
    if let Ok(value @ Value::Object(_)) = serde_json::from_str::<Value>(text) {
        let fields = Fields::root(&value, "Platform")?;
        return Ok(Some(v1::Platform {
            os: fields.string("os")?,
            architecture: fields.string("architecture")?,
            variant: fields.string("variant")?,
            os_version: fields.string("os.version")?,
        }));
    }
    let mut parts = text.split('/');
    let mut next = || parts.next().unwrap_or("").to_ascii_lowercase();
    let platform = v1::Platform {
        os: next(),
        architecture: next(),
        variant: next(),
        os_version: String::new(),
    };
    if platform.os.is_empty() || parts.next().is_some() {
        return Err(Failure::bad_request(format!(
            "{text:?} is an invalid component of {text:?}: platform specifier component must \
             match \"^[A-Za-z0-9_-]+$\": invalid argument"
        )));
    }
    Ok(Some(platform))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_of_the_cli_becomes_options() {
        let body = json!({
            "Hostname": "", "User": "1000", "AttachStdin": true, "Tty": false, "OpenStdin": true,
            "StdinOnce": true, "Env": ["A=1"], "Cmd": ["echo", "hi"], "Image": "busybox",
            "Volumes": {"/data": {}}, "Entrypoint": null, "Labels": {"a": "b"},
            "ExposedPorts": {"80/tcp": {}}, "StopTimeout": 3,
            "HostConfig": {
                "Binds": ["/a:/b:ro"], "NetworkMode": "default", "Memory": 1_048_576,
                "NanoCpus": 500_000_000, "PidsLimit": 0, "Init": null,
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
                "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
                "Mounts": [{"Type": "bind", "Source": "/x", "Target": "/y", "ReadOnly": true,
                            "BindOptions": {"Propagation": "rslave"}}],
                "ConsoleSize": [24, 80], "MaskedPaths": null, "MemorySwappiness": -1,
                "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
            },
            "NetworkingConfig": {"EndpointsConfig": {"n": {"Aliases": ["x"], "IPAMConfig": null}}}
        });
        let (image, options) = from_json(Some(&body)).unwrap();
        assert_eq!(image, "busybox");
        assert!(options.args_set && !options.entrypoint_set && options.stdin_once);
        assert_eq!(options.binds, ["/a:/b:ro"]);
        assert_eq!(options.network_mode, "");
        assert_eq!(options.volumes, ["/data"]);
        assert_eq!((options.stop_timeout, options.stop_timeout_set), (3, true));
        let limits = options.resources.unwrap();
        assert_eq!(
            (limits.memory, limits.nano_cpus, limits.pids_limit),
            (1 << 20, 500_000_000, -1)
        );
        assert!(!limits.memory_swappiness_set && !options.paths_set);
        assert_eq!(options.ports[0].host_port, "8080");
        assert_eq!(options.restart_policy.unwrap().maximum_retry_count, 2);
        assert_eq!(options.mounts[0].propagation, "rslave");
        assert_eq!(
            options.terminal_size,
            Some(v1::TerminalSize {
                width: 80,
                height: 24
            })
        );
        assert_eq!(options.ulimits[0].hard, 20);
        assert_eq!(options.networks["n"].aliases, ["x"]);
    }

    #[test]
    fn entrypoint_null_empty_and_blank_differ() {
        let options = |entrypoint: Value| {
            from_json(Some(&json!({"Image": "x", "Entrypoint": entrypoint})))
                .unwrap()
                .1
        };
        assert!(!options(Value::Null).entrypoint_set);
        assert!(options(json!([])).entrypoint_set);
        assert_eq!(options(json!([""])).entrypoint, [""]);
        assert_eq!(options(json!("sh")).entrypoint, ["sh"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let message = |body: Value| from_json(Some(&body)).unwrap_err().message().to_owned();
        let empty = "config cannot be empty in order to create a container";
        assert_eq!(message(json!({})), empty);
        assert_eq!(message(json!({"HostConfig": {}})), empty);
        assert_eq!(from_json(None).unwrap_err().message(), empty);
        assert!(message(json!({"Image": 1})).contains("of type string"));
        assert_eq!(
            message(json!({"Image": "x", "HostConfig":
                {"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]}})),
            "could not select device driver \"\" with capabilities: [[gpu]]"
        );
        assert_eq!(
            message(json!({"Image": "x", "HostConfig": {"Mounts": [{"Type": "cloud"}]}})),
            "invalid mount config for type \"cloud\": mount type unknown"
        );
        assert!(
            message(json!({"Image": "x", "HostConfig": {"PortBindings": {"x/tcp": null}}}))
                .contains("invalid port specification")
        );
        assert!(
            message(json!({"Image": "x", "HostConfig": {"BlkioWeight": -1}})).contains("uint16")
        );
    }

    #[test]
    fn platforms() {
        assert_eq!(platform("").unwrap(), None);
        assert_eq!(platform("linux/arm/v7").unwrap().unwrap().variant, "v7");
        let json = r#"{"os":"linux","architecture":"arm64"}"#;
        assert_eq!(platform(json).unwrap().unwrap().architecture, "arm64");
        assert!(platform("a/b/c/d").is_err());
    }
}
