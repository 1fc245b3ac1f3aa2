//! A container as `GET /containers/{id}/json` gives it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    image::{driver, healthcheck},
    network::network_settings,
    time,
};
use crate::v1::{self, ContainerStatus};

/// A container in docker's shape; `size` adds `SizeRw` and `SizeRootFs`.
pub fn container(details: &v1::ContainerDetails, size: bool) -> Value {
    let short = details.container.clone().unwrap_or_default();
    let options = details.options.clone().unwrap_or_default();
    let state_of = short.state.clone().unwrap_or_default();
    let mut value = json!({
        "Id": short.id,
        "Created": time(short.created_at.as_ref()),
        "Path": details.path,
        "Args": details.args,
        "State": state(&state_of),
        "Image": short.image_id,
        "ResolvConfPath": details.resolv_conf_path,
        "HostnamePath": details.hostname_path,
        "HostsPath": details.hosts_path,
        "LogPath": details.log_path,
        "Name": format!("/{}", short.name),
        "RestartCount": state_of.restart_count,
        "Driver": driver(&details.driver),
        "Platform": if details.platform.is_empty() { "linux" } else { &details.platform },
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": if details.exec_ids.is_empty() { Value::Null } else { json!(details.exec_ids) },
        "HostConfig": host_config(&options, &details.runtime),
        "GraphDriver": {"Data": graph(&details.driver_data), "Name": driver(&details.driver)},
        "Mounts": short.mounts.iter().map(mount_point).collect::<Vec<_>>(),
        "Config": config(details, &short, &options),
        "NetworkSettings": network_settings(&short, &details.network_namespace),
    });
    if let Some(object) = value.as_object_mut() {
        if let Some(manifest) = &details.image_manifest {
            object.insert(
                "ImageManifestDescriptor".into(),
                json!({"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}),
            );
        }
        if size {
            object.insert("SizeRw".into(), short.size_rw.into());
            object.insert("SizeRootFs".into(), short.size_root_fs.into());
        }
    }
    value
}

/// A container's state in docker's shape.
pub fn state(state: &v1::ContainerState) -> Value {
    let status = state.status();
    let running = matches!(
        status,
        ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting
    );
    let mut value = json!({
        "Status": status_word(status),
        "Running": running,
        "Paused": status == ContainerStatus::Paused,
        "Restarting": status == ContainerStatus::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": status == ContainerStatus::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time(state.started_at.as_ref()),
        "FinishedAt": time(state.finished_at.as_ref()),
    });
    if let (Some(health), Some(object)) = (&state.health, value.as_object_mut())
        && !health.status.is_empty()
    {
        let log: Vec<Value> = health
            .log
            .iter()
            .map(|result| {
                json!({
                    "Start": time(result.start.as_ref()),
                    "End": time(result.end.as_ref()),
                    "ExitCode": result.exit_code,
                    "Output": result.output,
                })
            })
            .collect();
        let health =
            json!({"Status": health.status, "FailingStreak": health.failing_streak, "Log": log});
        object.insert("Health".into(), health);
    }
    value
}

fn status_word(status: ContainerStatus) -> &'static str {
    match status {
        ContainerStatus::Unspecified => "",
        ContainerStatus::Created => "created",
        ContainerStatus::Running => "running",
        ContainerStatus::Paused => "paused",
        ContainerStatus::Restarting => "restarting",
        ContainerStatus::Removing => "removing",
        ContainerStatus::Exited => "exited",
        ContainerStatus::Dead => "dead",
    }
}

fn graph(data: &std::collections::HashMap<String, String>) -> Value {
    let names = [
        ("lower", "LowerDir"),
        ("merged", "MergedDir"),
        ("upper", "UpperDir"),
        ("work", "WorkDir"),
    ];
    let data: Map<String, Value> = names
        .into_iter()
        .filter_map(|(ours, theirs)| {
            data.get(ours)
                .map(|path| (theirs.to_owned(), path.as_str().into()))
        })
        .collect();
    if data.is_empty() {
        Value::Null
    } else {
        Value::Object(data)
    }
}

fn mount_point(mount: &v1::MountPoint) -> Value {
    let mut value = json!({
        "Type": mount.r#type,
        "Source": mount.source,
        "Destination": mount.destination,
        "Mode": mount.mode,
        "RW": mount.read_write,
        "Propagation": mount.propagation,
    });
    if let Some(object) = value.as_object_mut() {
        if !mount.name.is_empty() {
            object.insert("Name".into(), mount.name.clone().into());
        }
        if !mount.driver.is_empty() {
            object.insert("Driver".into(), mount.driver.clone().into());
        }
    }
    value
}

fn list(items: &[String]) -> Value {
    if items.is_empty() {
        Value::Null
    } else {
        json!(items)
    }
}

fn set(items: &[String]) -> Value {
    if items.is_empty() {
        return Value::Null;
    }
    items
        .iter()
        .map(|item| (item.clone(), json!({})))
        .collect::<Map<_, _>>()
        .into()
}

fn config(
    details: &v1::ContainerDetails,
    short: &v1::Container,
    options: &v1::ContainerOptions,
) -> Value {
    let image = details.config.clone().unwrap_or_default();
    let hostname = if options.hostname.is_empty() && options.network_mode != "host" {
        short.id.get(..12).unwrap_or_default()
    } else {
        &options.hostname
    };
    let mut value = json!({
        "Hostname": hostname,
        "Domainname": options.domainname,
        "User": details.user,
        "AttachStdin": options.attach_stdin,
        "AttachStdout": options.attach_stdout,
        "AttachStderr": options.attach_stderr,
        "Tty": options.tty,
        "OpenStdin": options.open_stdin,
        "StdinOnce": options.stdin_once,
        "Env": image.env,
        "Cmd": list(&image.cmd),
        "Image": short.image,
        "Volumes": set(&image.volumes),
        "WorkingDir": image.working_dir,
        "Entrypoint": list(&image.entrypoint),
        "OnBuild": list(&image.on_build),
        "Labels": short.labels.iter().collect::<BTreeMap<_, _>>(),
    });
    if let Some(object) = value.as_object_mut() {
        if !image.exposed_ports.is_empty() {
            object.insert("ExposedPorts".into(), set(&image.exposed_ports));
        }
        if !image.stop_signal.is_empty() {
            object.insert("StopSignal".into(), image.stop_signal.clone().into());
        }
        if options.stop_timeout_set {
            object.insert("StopTimeout".into(), options.stop_timeout.into());
        }
        if !image.shell.is_empty() {
            object.insert("Shell".into(), json!(image.shell));
        }
        if let Some(check) = &image.healthcheck {
            object.insert("Healthcheck".into(), healthcheck(check));
        }
    }
    value
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn host_config(options: &v1::ContainerOptions, runtime: &str) -> Value {
    let restart = options.restart_policy.clone().unwrap_or_default();
    let log = options.log.clone().unwrap_or_default();
    let console = options.terminal_size.unwrap_or_default();
    let mut value = json!({
        "Binds": list(&options.binds),
        "ContainerIDFile": "",
        "LogConfig": {"Type": or(&log.driver, "json-file"), "Config": log.options},
        "NetworkMode": or(&options.network_mode, "default"),
        "PortBindings": ports(options),
        "RestartPolicy": {"Name": or(&restart.name, "no"), "MaximumRetryCount": restart.maximum_retry_count},
        "AutoRemove": options.auto_remove,
        "VolumeDriver": options.volume_driver,
        "VolumesFrom": list(&options.volumes_from),
        "ConsoleSize": [console.height, console.width],
        "CapAdd": list(&options.cap_add),
        "CapDrop": list(&options.cap_drop),
        "CgroupnsMode": or(&options.cgroupns_mode, "host"),
        "Dns": options.dns,
        "DnsOptions": options.dns_options,
        "DnsSearch": options.dns_search,
        "ExtraHosts": list(&options.extra_hosts),
        "GroupAdd": list(&options.group_add),
        "IpcMode": or(&options.ipc_mode, "private"),
        "Cgroup": "",
        "Links": list(&options.links),
        "OomScoreAdj": options.oom_score_adj,
        "PidMode": options.pid_mode,
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all_ports,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": list(&options.security_opt),
        "UTSMode": options.uts_mode,
        "UsernsMode": options.userns_mode,
    });
    if let Some(object) = value.as_object_mut() {
        object.extend(environment(options, runtime));
        object.extend(resources(&options.resources.clone().unwrap_or_default()));
        if !options.sysctls.is_empty() {
            object.insert("Sysctls".into(), json!(options.sysctls));
        }
        if !options.tmpfs.is_empty() {
            object.insert("Tmpfs".into(), json!(options.tmpfs));
        }
        if !options.annotations.is_empty() {
            object.insert("Annotations".into(), json!(options.annotations));
        }
        if !options.mounts.is_empty() {
            object.insert("Mounts".into(), options.mounts.iter().map(mount).collect());
        }
        if options.init {
            object.insert("Init".into(), true.into());
        }
    }
    value
}

/// The half of the host config that says what surrounds the process.
fn environment(options: &v1::ContainerOptions, runtime: &str) -> Map<String, Value> {
    let ulimits: Value = options
        .ulimits
        .iter()
        .map(|limit| json!({"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard}))
        .collect();
    let value = json!({
        "ShmSize": if options.shm_size == 0 { 64 << 20 } else { options.shm_size },
        "Runtime": or(runtime, "builtin"),
        "Isolation": "",
        "CgroupParent": options.cgroup_parent,
        "Devices": options.devices.iter().map(device).collect::<Vec<_>>(),
        "DeviceCgroupRules": list(&options.device_cgroup_rules),
        "DeviceRequests": Value::Null,
        "OomKillDisable": options.oom_kill_disable,
        "Ulimits": ulimits,
        "MaskedPaths": options.masked_paths,
        "ReadonlyPaths": options.readonly_paths,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn resources(resources: &v1::Resources) -> Map<String, Value> {
    let devices = |list: &[v1::ThrottleDevice]| -> Value {
        list.iter()
            .map(|device| json!({"Path": device.path, "Rate": device.rate}))
            .collect()
    };
    let weights: Value = resources
        .blkio_weight_device
        .iter()
        .map(|device| json!({"Path": device.path, "Weight": device.weight}))
        .collect();
    let pids = if resources.pids_limit == 0 {
        Value::Null
    } else {
        resources.pids_limit.into()
    };
    let swappiness = if resources.memory_swappiness_set {
        resources.memory_swappiness.into()
    } else {
        Value::Null
    };
    let value = json!({
        "CpuShares": resources.cpu_shares,
        "Memory": resources.memory,
        "NanoCpus": resources.nano_cpus,
        "BlkioWeight": resources.blkio_weight,
        "BlkioWeightDevice": weights,
        "BlkioDeviceReadBps": devices(&resources.blkio_device_read_bps),
        "BlkioDeviceWriteBps": devices(&resources.blkio_device_write_bps),
        "BlkioDeviceReadIOps": devices(&resources.blkio_device_read_iops),
        "BlkioDeviceWriteIOps": devices(&resources.blkio_device_write_iops),
        "CpuPeriod": resources.cpu_period,
        "CpuQuota": resources.cpu_quota,
        "CpuRealtimePeriod": resources.cpu_rt_period,
        "CpuRealtimeRuntime": resources.cpu_rt_runtime,
        "CpusetCpus": resources.cpuset_cpus,
        "CpusetMems": resources.cpuset_mems,
        "MemoryReservation": resources.memory_reservation,
        "MemorySwap": resources.memory_swap,
        "MemorySwappiness": swappiness,
        "PidsLimit": pids,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn ports(options: &v1::ContainerOptions) -> Value {
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &options.ports {
        let key = format!("{}/{}", port.container_port, or(&port.protocol, "tcp"));
        let binding = json!({"HostIp": port.host_ip, "HostPort": port.host_port});
        bindings.entry(key).or_default().push(binding);
    }
    json!(bindings)
}

fn device(device: &v1::Device) -> Value {
    json!({
        "PathOnHost": device.host_path,
        "PathInContainer": device.container_path,
        "CgroupPermissions": or(&device.permissions, "rwm"),
    })
}

fn mount(mount: &v1::Mount) -> Value {
    let mut value = json!({"Type": mount.r#type, "Source": mount.source, "Target": mount.target});
    if let Some(object) = value.as_object_mut() {
        if mount.read_only {
            object.insert("ReadOnly".into(), true.into());
        }
        if !mount.propagation.is_empty() {
            object.insert(
                "BindOptions".into(),
                json!({"Propagation": mount.propagation}),
            );
        }
        if mount.r#type == "tmpfs" && (mount.tmpfs_size != 0 || mount.tmpfs_mode != 0) {
            let options = json!({"SizeBytes": mount.tmpfs_size, "Mode": mount.tmpfs_mode});
            object.insert("TmpfsOptions".into(), options);
        }
    }
    value
}
