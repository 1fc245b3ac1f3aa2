//! The files of cgroup v2 (kernel: admin-guide/cgroup-v2).

use std::{fs, path::Path};

use super::cgroup::{number, pairs};
use crate::model::{BlkioEntry, BlkioStats, CpuStats, MemoryStats, PidsStats};

pub(super) fn cpu(dir: &Path) -> CpuStats {
    let stat = pairs(dir.join("cpu.stat"));
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    // Microseconds here, nanoseconds in our answer.
    let time = |key: &str| get(key).saturating_mul(1000);
    CpuStats {
        usage_total: time("usage_usec"),
        usage_kernel: time("system_usec"),
        usage_user: time("user_usec"),
        throttling_periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled_time: time("throttled_usec"),
        ..Default::default()
    }
}

pub(super) fn memory(dir: &Path) -> MemoryStats {
    let limit = number(dir.join("memory.max"));
    let events = pairs(dir.join("memory.events"));
    MemoryStats {
        usage: number(dir.join("memory.current")),
        max_usage: number(dir.join("memory.peak")),
        limit: if limit == u64::MAX { 0 } else { limit },
        failcnt: events.get("max").copied().unwrap_or(0),
        stats: pairs(dir.join("memory.stat")),
    }
}

pub(super) fn pids(dir: &Path) -> PidsStats {
    let limit = number(dir.join("pids.max"));
    PidsStats {
        current: number(dir.join("pids.current")),
        limit: if limit == u64::MAX { 0 } else { limit },
    }
}

pub(super) fn block_io(dir: &Path) -> BlkioStats {
    entries(&fs::read_to_string(dir.join("io.stat")).unwrap_or_default())
}

/// Lines of "major:minor key=value …".
pub(super) fn entries(text: &str) -> BlkioStats {
    let mut stats = BlkioStats::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut stats.service_bytes, "Read"),
                "wbytes" => (&mut stats.service_bytes, "Write"),
                "rios" => (&mut stats.serviced, "Read"),
                "wios" => (&mut stats.serviced, "Write"),
                _ => continue,
            };
            let value = value.parse().unwrap_or(0);
            list.push(BlkioEntry {
                major,
                minor,
                op: op.to_owned(),
                value,
            });
        }
    }
    stats
}
