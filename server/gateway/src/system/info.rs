//! GET /info

use std::collections::BTreeMap;

use davit_client::v1;
use serde_json::{Map, Value, json};

use crate::{
    convert::time,
    failure::Result,
    reply::{self, Reply},
    request::Call,
    version::ApiVersion,
};

pub(crate) async fn info(call: Call) -> Result<Reply> {
    let found = call
        .gateway
        .calls()
        .system()
        .info(v1::InfoRequest {})
        .await?
        .into_inner();
    Ok(reply::ok(&to_json(&found, call.version)))
}

fn to_json(info: &v1::InfoResponse, version: ApiVersion) -> Value {
    let mut value = objects(info);
    value.extend(host(info));
    value.extend(settings(info));
    if version < ApiVersion::new(1, 47) {
        value.insert("SystemStatus".into(), Value::Null);
    }
    Value::Object(value)
}

fn objects(info: &v1::InfoResponse) -> Map<String, Value> {
    let limit = |name: &str| info.limits.iter().any(|limit| limit == name);
    map(json!({
        "ID": info.id,
        "Containers": info.containers,
        "ContainersRunning": info.containers_running,
        "ContainersPaused": info.containers_paused,
        "ContainersStopped": info.containers_stopped,
        "Images": info.images,
        "Driver": info.snapshotter,
        "DriverStatus": [["Root Dir", info.root_dir]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["host", "null"],
            "Authorization": null,
            "Log": ["json-file", "none"],
        },
        "MemoryLimit": limit("memory"),
        "SwapLimit": limit("swap"),
        "CpuCfsPeriod": limit("cpu"),
        "CpuCfsQuota": limit("cpu"),
        "CPUShares": limit("cpu"),
        "CPUSet": limit("cpuset"),
        "PidsLimit": limit("pids"),
        "IPv4Forwarding": on("/proc/sys/net/ipv4/ip_forward"),
        "Debug": false,
        "NFd": info.fds,
        "OomKillDisable": info.cgroup_version != "2" && limit("memory"),
        "NGoroutines": 0,
        "SystemTime": time::rfc3339(info.time.as_ref()),
        "LoggingDriver": "json-file",
        "CgroupDriver": if info.cgroup_driver.is_empty() { "cgroupfs" } else { &info.cgroup_driver },
        // Docker knows 1 and 2; with both mounted the controllers are in 1.
        "CgroupVersion": if info.cgroup_version == "2" { "2" } else { "1" },
        "NEventsListener": 0,
    }))
}

fn on(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}

fn host(info: &v1::InfoResponse) -> Map<String, Value> {
    map(json!({
        "KernelVersion": info.kernel_version,
        "OperatingSystem": info.operating_system,
        "OSVersion": info.os_version,
        "OSType": "linux",
        "Architecture": architecture(&info.architecture),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": registries(info),
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "GenericResources": null,
        "DockerRootDir": info.root_dir,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": info.name,
        "Labels": info.labels,
        "ExperimentalBuild": false,
        "ServerVersion": info.version,
    }))
}

/// The kernel's name of it, which docker has here (and Go's everywhere else).
fn architecture(name: &str) -> &str {
    match name {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

fn registries(info: &v1::InfoResponse) -> Value {
    let mut configs = Map::new();
    let entry = |name: &str, secure: bool| json!({"Name": name, "Mirrors": [], "Secure": secure, "Official": name == "docker.io"});
    configs.insert("docker.io".into(), entry("docker.io", true));
    for name in &info.insecure_registries {
        configs.insert(name.clone(), entry(name, false));
    }
    json!({
        "AllowNondistributableArtifactsCIDRs": null,
        "AllowNondistributableArtifactsHostnames": null,
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
        "IndexConfigs": configs,
        "Mirrors": null,
    })
}

fn settings(info: &v1::InfoResponse) -> Map<String, Value> {
    let runtimes: BTreeMap<_, _> = info
        .runtimes
        .iter()
        .map(|(name, path)| {
            (
                name,
                json!({"path": if path.is_empty() { name } else { path }}),
            )
        })
        .collect();
    let warnings = if info.warnings.is_empty() {
        Value::Null
    } else {
        json!(info.warnings)
    };
    map(json!({
        "Runtimes": runtimes,
        "DefaultRuntime": info.default_runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": false,
            "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": info.security_options,
        "CDISpecDirs": [],
        "Warnings": warnings,
    }))
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version;

    #[test]
    fn what_clients_read_is_there() {
        let info = v1::InfoResponse {
            containers: 3,
            architecture: "amd64".into(),
            cgroup_version: "hybrid".into(),
            limits: vec!["memory".into(), "cpu".into()],
            ..Default::default()
        };
        let value = to_json(&info, version::MAX);
        for key in [
            "Containers",
            "Images",
            "Debug",
            "ExperimentalBuild",
            "OSType",
            "DockerRootDir",
            "ServerVersion",
            "OperatingSystem",
            "MemTotal",
            "Labels",
            "Plugins",
            "Swarm",
            "RegistryConfig",
            "SecurityOptions",
            "Runtimes",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
        assert_eq!(value["Architecture"], "x86_64");
        assert_eq!(value["CgroupVersion"], "1");
        assert_eq!(value["MemoryLimit"], true);
        assert_eq!(value["PidsLimit"], false);
    }
}
