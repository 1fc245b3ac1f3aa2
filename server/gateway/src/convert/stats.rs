//! Usage samples as GET /containers/{id}/stats sends them. Docker's sample
//! carries the one before it, from which clients compute percentages.

use davit_client::v1;
use serde_json::{Map, Value, json};

use super::time;

/// One sample; `before` is the previous one of the same stream.
pub(crate) fn of(sample: &v1::StatsResponse, before: Option<&v1::StatsResponse>) -> Value {
    let read = |sample: Option<&v1::StatsResponse>| {
        time::rfc3339(sample.and_then(|sample| sample.read_at.as_ref()))
    };
    let cpu_of = |sample: Option<&v1::StatsResponse>| match sample.and_then(|s| s.cpu.as_ref()) {
        Some(usage) => cpu(usage),
        None => cpu_of_nothing(),
    };
    let mut value = Map::new();
    let mut put = |key: &str, item: Value| value.insert(key.to_owned(), item);
    put("name", json!(format!("/{}", sample.name)));
    put("id", json!(sample.id));
    put("read", json!(read(Some(sample))));
    put("preread", json!(read(before)));
    put("pids_stats", pids(sample.pids.as_ref()));
    put("blkio_stats", blkio(sample.blkio.as_ref()));
    put("num_procs", json!(0));
    put("storage_stats", json!({}));
    put("cpu_stats", cpu_of(Some(sample)));
    put("precpu_stats", cpu_of(before));
    put(
        "memory_stats",
        sample.memory.as_ref().map_or_else(|| json!({}), memory),
    );
    if !sample.networks.is_empty() {
        put("networks", networks(sample));
    }
    Value::Object(value)
}

/// What dockerd sends for a container that does not run.
pub(crate) fn of_stopped(id: &str, name: &str) -> Value {
    let sample = v1::StatsResponse {
        id: id.to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    of(&sample, None)
}

fn pids(pids: Option<&v1::PidsStats>) -> Value {
    let mut value = Map::new();
    if let Some(pids) = pids {
        value.insert("current".into(), json!(pids.current));
        // Go's clients know "no limit" as the largest number.
        let limit = if pids.limit == 0 {
            u64::MAX
        } else {
            pids.limit
        };
        value.insert("limit".into(), json!(limit));
    }
    Value::Object(value)
}

fn blkio(blkio: Option<&v1::BlkioStats>) -> Value {
    let entries = |entries: &[v1::BlkioEntry]| -> Value {
        let entry = |entry: &v1::BlkioEntry| json!({"major": entry.major, "minor": entry.minor, "op": entry.op, "value": entry.value});
        if entries.is_empty() {
            Value::Null
        } else {
            entries.iter().map(entry).collect()
        }
    };
    json!({
        "io_service_bytes_recursive":
            blkio.map_or(Value::Null, |blkio| entries(&blkio.service_bytes)),
        "io_serviced_recursive": blkio.map_or(Value::Null, |blkio| entries(&blkio.serviced)),
        "io_queue_recursive": null,
        "io_service_time_recursive": null,
        "io_wait_time_recursive": null,
        "io_merged_recursive": null,
        "io_time_recursive": null,
        "sectors_recursive": null,
    })
}

fn cpu(cpu: &v1::CpuStats) -> Value {
    let mut usage = json!({"total_usage": cpu.usage_total});
    if !cpu.usage_per_cpu.is_empty() {
        usage["percpu_usage"] = json!(cpu.usage_per_cpu);
    }
    usage["usage_in_kernelmode"] = json!(cpu.usage_kernel);
    usage["usage_in_usermode"] = json!(cpu.usage_user);
    json!({
        "cpu_usage": usage,
        "system_cpu_usage": cpu.system_usage,
        "online_cpus": cpu.online_cpus,
        "throttling_data": {
            "periods": cpu.throttling_periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled_time,
        },
    })
}

fn cpu_of_nothing() -> Value {
    json!({
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    })
}

fn memory(memory: &v1::MemoryStats) -> Value {
    let mut value = json!({"usage": memory.usage});
    if memory.max_usage != 0 {
        value["max_usage"] = json!(memory.max_usage);
    }
    let stats: std::collections::BTreeMap<_, _> = memory.stats.iter().collect();
    value["stats"] = json!(stats);
    if memory.failcnt != 0 {
        value["failcnt"] = json!(memory.failcnt);
    }
    value["limit"] = json!(memory.limit);
    value
}

fn networks(sample: &v1::StatsResponse) -> Value {
    let sorted: std::collections::BTreeMap<_, _> = sample.networks.iter().collect();
    let network = |stats: &v1::NetworkStats| {
        json!({
            "rx_bytes": stats.rx_bytes,
            "rx_packets": stats.rx_packets,
            "rx_errors": stats.rx_errors,
            "rx_dropped": stats.rx_dropped,
            "tx_bytes": stats.tx_bytes,
            "tx_packets": stats.tx_packets,
            "tx_errors": stats.tx_errors,
            "tx_dropped": stats.tx_dropped,
        })
    };
    Value::Object(
        sorted
            .into_iter()
            .map(|(name, stats)| (name.clone(), network(stats)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_carries_the_one_before() {
        let sample = |total| v1::StatsResponse {
            cpu: Some(v1::CpuStats {
                usage_total: total,
                online_cpus: 2,
                ..Default::default()
            }),
            pids: Some(v1::PidsStats {
                current: 1,
                limit: 0,
            }),
            name: "n".into(),
            ..Default::default()
        };
        let value = of(&sample(20), Some(&sample(10)));
        assert_eq!(value["cpu_stats"]["cpu_usage"]["total_usage"], 20);
        assert_eq!(value["precpu_stats"]["cpu_usage"]["total_usage"], 10);
        assert_eq!(value["pids_stats"]["limit"], u64::MAX);
        assert!(value.get("networks").is_none());
        let first = of(&sample(20), None);
        assert_eq!(first["precpu_stats"]["cpu_usage"]["total_usage"], 0);
        assert!(first["precpu_stats"].get("system_cpu_usage").is_none());
    }
}
