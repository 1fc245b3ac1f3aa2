//! Limits: docker's flat HostConfig fields from and to `v1::Resources`.

use davit_client::v1;
use serde_json::{Map, Value, json};

use crate::{failure::Result, fields::Fields};

/// Reads the limits out of a HostConfig or an update body. In an update a
/// field that is missing stays as it is.
pub(crate) fn from_json(host: &Fields<'_>) -> Result<v1::Resources> {
    let swappiness = host
        .opt_int("MemorySwappiness")?
        .filter(|value| *value != -1);
    Ok(v1::Resources {
        memory: host.int("Memory")?,
        memory_swap: host.int("MemorySwap")?,
        memory_reservation: host.int("MemoryReservation")?,
        memory_swappiness: swappiness.unwrap_or_default(),
        memory_swappiness_set: swappiness.is_some(),
        kernel_memory: host.int("KernelMemory")?,
        nano_cpus: host.int("NanoCpus")?,
        cpu_shares: host.int("CpuShares")?,
        cpu_period: host.int("CpuPeriod")?,
        cpu_quota: host.int("CpuQuota")?,
        cpu_rt_period: host.int("CpuRealtimePeriod")?,
        cpu_rt_runtime: host.int("CpuRealtimeRuntime")?,
        cpuset_cpus: host.string("CpusetCpus")?,
        cpuset_mems: host.string("CpusetMems")?,
        // Given as 0 it means "no limit", which an update has to say.
        pids_limit: host
            .opt_int("PidsLimit")?
            .map_or(0, |limit| if limit == 0 { -1 } else { limit }),
        blkio_weight: host.small("BlkioWeight", "uint16")?,
        blkio_weight_device: weights(host)?,
        blkio_device_read_bps: rates(host, "BlkioDeviceReadBps")?,
        blkio_device_write_bps: rates(host, "BlkioDeviceWriteBps")?,
        blkio_device_read_iops: rates(host, "BlkioDeviceReadIOps")?,
        blkio_device_write_iops: rates(host, "BlkioDeviceWriteIOps")?,
    })
}

fn weights(host: &Fields<'_>) -> Result<Vec<v1::WeightDevice>> {
    let devices = host.objects("BlkioWeightDevice")?;
    let device = |item: &Fields<'_>| {
        Ok(v1::WeightDevice {
            path: item.string("Path")?,
            weight: item.small("Weight", "uint16")?,
        })
    };
    devices.iter().map(device).collect()
}

fn rates(host: &Fields<'_>, key: &str) -> Result<Vec<v1::ThrottleDevice>> {
    let devices = host.objects(key)?;
    let device = |item: &Fields<'_>| {
        Ok(v1::ThrottleDevice {
            path: item.string("Path")?,
            rate: item.small("Rate", "uint64")?,
        })
    };
    devices.iter().map(device).collect()
}

/// The fields as HostConfig shows them, in docker's order.
pub(crate) fn to_json(
    limits: &v1::Resources,
    options: &v1::ContainerOptions,
) -> Map<String, Value> {
    let rates = |devices: &[v1::ThrottleDevice]| -> Value {
        devices
            .iter()
            .map(|device| json!({"Path": device.path, "Rate": device.rate}))
            .collect()
    };
    let weights: Value = limits
        .blkio_weight_device
        .iter()
        .map(|device| json!({"Path": device.path, "Weight": device.weight}))
        .collect();
    let value = json!({
        "CpuShares": limits.cpu_shares,
        "Memory": limits.memory,
        "NanoCpus": limits.nano_cpus,
        "CgroupParent": options.cgroup_parent,
        "BlkioWeight": limits.blkio_weight,
        "BlkioWeightDevice": weights,
        "BlkioDeviceReadBps": rates(&limits.blkio_device_read_bps),
        "BlkioDeviceWriteBps": rates(&limits.blkio_device_write_bps),
        "BlkioDeviceReadIOps": rates(&limits.blkio_device_read_iops),
        "BlkioDeviceWriteIOps": rates(&limits.blkio_device_write_iops),
        "CpuPeriod": limits.cpu_period,
        "CpuQuota": limits.cpu_quota,
        "CpuRealtimePeriod": limits.cpu_rt_period,
        "CpuRealtimeRuntime": limits.cpu_rt_runtime,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "Devices": devices(options),
        "DeviceCgroupRules": super::list_or_null(&options.device_cgroup_rules),
        "DeviceRequests": null,
        "MemoryReservation": limits.memory_reservation,
        "MemorySwap": limits.memory_swap,
        "MemorySwappiness": limits.memory_swappiness_set.then_some(limits.memory_swappiness),
        "OomKillDisable": options.oom_kill_disable,
        "PidsLimit": (limits.pids_limit > 0).then_some(limits.pids_limit),
        "Ulimits": ulimits(options),
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

fn devices(options: &v1::ContainerOptions) -> Value {
    let device = |device: &v1::Device| {
        json!({
            "PathOnHost": device.host_path,
            "PathInContainer": device.container_path,
            "CgroupPermissions": device.permissions,
        })
    };
    options.devices.iter().map(device).collect()
}

fn ulimits(options: &v1::ContainerOptions) -> Value {
    let limit =
        |limit: &v1::Ulimit| json!({"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft});
    options.ulimits.iter().map(limit).collect()
}

/// Reads devices and ulimits, which belong to the limits in docker's form.
pub(crate) fn devices_from_json(host: &Fields<'_>) -> Result<Vec<v1::Device>> {
    let items = host.objects("Devices")?;
    let device = |item: &Fields<'_>| {
        Ok(v1::Device {
            host_path: item.string("PathOnHost")?,
            container_path: item.string("PathInContainer")?,
            permissions: item.string("CgroupPermissions")?,
        })
    };
    items.iter().map(device).collect()
}

pub(crate) fn ulimits_from_json(host: &Fields<'_>) -> Result<Vec<v1::Ulimit>> {
    let items = host.objects("Ulimits")?;
    let limit = |item: &Fields<'_>| {
        Ok(v1::Ulimit {
            name: item.string("Name")?,
            soft: item.int("Soft")?,
            hard: item.int("Hard")?,
        })
    };
    items.iter().map(limit).collect()
}
