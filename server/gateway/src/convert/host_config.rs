//! `v1::ContainerOptions` as the HostConfig that inspect shows.

use davit_client::v1;
use serde_json::{Map, Value, json};

use super::{create, list_or_null, mount, resources, sorted};

/// HostConfig in docker's order of fields, with the echo of what the client
/// gave laid over it.
pub(crate) fn of(options: &v1::ContainerOptions, default_log: &str) -> Value {
    let echo = echo(options);
    let mut value = general(options, default_log);
    value.extend(namespaces(options));
    value.extend(resources::to_json(
        &options.resources.clone().unwrap_or_default(),
        options,
    ));
    if !options.mounts.is_empty() {
        let mounts: Value = options.mounts.iter().map(mount::to_json).collect();
        value.insert("Mounts".into(), mounts);
    }
    let paths = |set: &[String], default: &[&str]| -> Value {
        if options.privileged && !options.paths_set {
            Value::Null
        } else if options.paths_set {
            json!(set)
        } else {
            json!(default)
        }
    };
    value.insert(
        "MaskedPaths".into(),
        paths(&options.masked_paths, create::MASKED_PATHS),
    );
    value.insert(
        "ReadonlyPaths".into(),
        paths(&options.readonly_paths, create::READONLY_PATHS),
    );
    if options.init {
        value.insert("Init".into(), json!(true));
    }
    for (key, item) in echo_part(&echo, "HostConfig") {
        value.insert(key, item);
    }
    Value::Object(value)
}

/// What a client gave at create and the engine does not know.
pub(crate) fn echo(options: &v1::ContainerOptions) -> Value {
    serde_json::from_slice(&options.opaque).unwrap_or_default()
}

/// The echo of one part ("Config" or "HostConfig").
pub(crate) fn echo_part(echo: &Value, part: &str) -> Map<String, Value> {
    echo.get(part)
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

fn general(options: &v1::ContainerOptions, default_log: &str) -> Map<String, Value> {
    let log = options.log.clone().unwrap_or_default();
    let driver = if log.driver.is_empty() {
        default_log
    } else {
        &log.driver
    };
    let restart = options.restart_policy.clone().unwrap_or_default();
    let restart_name = if restart.name.is_empty() {
        "no"
    } else {
        &restart.name
    };
    let mut value = object(json!({
        "Binds": list_or_null(&options.binds),
        "ContainerIDFile": "",
        "LogConfig": {"Type": driver, "Config": sorted(&log.options)},
        "NetworkMode": network_mode(options),
        "PortBindings": port_bindings(&options.ports),
        "RestartPolicy": {
            "Name": restart_name,
            "MaximumRetryCount": restart.maximum_retry_count,
        },
        "AutoRemove": options.auto_remove,
        "VolumeDriver": options.volume_driver,
        "VolumesFrom": list_or_null(&options.volumes_from),
        "ConsoleSize": options.terminal_size.map_or([0, 0], |size| [size.height, size.width]),
        "CapAdd": list_or_null(&options.cap_add),
        "CapDrop": list_or_null(&options.cap_drop),
        "CgroupnsMode": or(&options.cgroupns_mode, "host"),
        "Dns": options.dns,
        "DnsOptions": options.dns_options,
        "DnsSearch": options.dns_search,
        "ExtraHosts": list_or_null(&options.extra_hosts),
        "GroupAdd": list_or_null(&options.group_add),
        "IpcMode": or(&options.ipc_mode, "private"),
        "Cgroup": "",
        "Links": list_or_null(&options.links),
        "OomScoreAdj": options.oom_score_adj,
    }));
    if !options.annotations.is_empty() {
        value.insert("Annotations".into(), sorted(&options.annotations));
    }
    value
}

fn namespaces(options: &v1::ContainerOptions) -> Map<String, Value> {
    let shm = if options.shm_size == 0 {
        64 << 20
    } else {
        options.shm_size
    };
    let mut value = object(json!({
        "PidMode": options.pid_mode,
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all_ports,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": list_or_null(&options.security_opt),
    }));
    if !options.tmpfs.is_empty() {
        value.insert("Tmpfs".into(), sorted(&options.tmpfs));
    }
    value.insert("UTSMode".into(), json!(options.uts_mode));
    value.insert("UsernsMode".into(), json!(options.userns_mode));
    value.insert("ShmSize".into(), json!(shm));
    if !options.sysctls.is_empty() {
        value.insert("Sysctls".into(), sorted(&options.sysctls));
    }
    value.insert("Runtime".into(), json!(or(&options.runtime, "builtin")));
    value.insert("Isolation".into(), json!(""));
    value
}

/// Docker's word for the default network.
pub(crate) fn network_mode(options: &v1::ContainerOptions) -> &str {
    or(&options.network_mode, "default")
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

/// Ports by "80/tcp", several bindings of one port together.
pub(crate) fn port_bindings(ports: &[v1::PortBinding]) -> Value {
    let mut bindings = Map::new();
    for port in ports {
        let key = format!("{}/{}", port.container_port, or(&port.protocol, "tcp"));
        let binding = json!({"HostIp": port.host_ip, "HostPort": port.host_port});
        if let Value::Array(list) = bindings.entry(key).or_insert_with(|| json!([])) {
            list.push(binding);
        }
    }
    Value::Object(bindings)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
