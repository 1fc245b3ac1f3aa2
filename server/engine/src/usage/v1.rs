//! The files of cgroup v1 (kernel: admin-guide/cgroup-v1).

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    cgroup::{number, pairs},
    nanoseconds_per_tick,
};
use crate::model::{BlkioEntry, BlkioStats, CpuStats, MemoryStats, PidsStats};

/// Limits from here on are "none": the kernel rounds the largest number down
/// to whole pages.
const NO_LIMIT: u64 = 1 << 62;

type Dirs = [(String, PathBuf)];

fn dir<'a>(dirs: &'a Dirs, controller: &str) -> Option<&'a Path> {
    dirs.iter()
        .find(|(name, _)| name == controller)
        .map(|(_, dir)| dir.as_path())
}

pub(super) fn cpu(dirs: &Dirs) -> CpuStats {
    let mut stats = CpuStats::default();
    if let Some(dir) = dir(dirs, "cpuacct") {
        stats.usage_total = number(dir.join("cpuacct.usage"));
        let split = pairs(dir.join("cpuacct.stat"));
        let nanoseconds = |key: &str| {
            split
                .get(key)
                .map_or(0, |ticks| ticks.saturating_mul(nanoseconds_per_tick()))
        };
        (stats.usage_user, stats.usage_kernel) = (nanoseconds("user"), nanoseconds("system"));
        let per_cpu = fs::read_to_string(dir.join("cpuacct.usage_percpu")).unwrap_or_default();
        stats.usage_per_cpu = per_cpu
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
    }
    if let Some(dir) = dir(dirs, "cpu") {
        let throttling = pairs(dir.join("cpu.stat"));
        let get = |key: &str| throttling.get(key).copied().unwrap_or(0);
        stats.throttling_periods = get("nr_periods");
        stats.throttled_periods = get("nr_throttled");
        stats.throttled_time = get("throttled_time");
    }
    stats
}

pub(super) fn memory(dirs: &Dirs) -> MemoryStats {
    let Some(dir) = dir(dirs, "memory") else {
        return MemoryStats::default();
    };
    let limit = number(dir.join("memory.limit_in_bytes"));
    MemoryStats {
        usage: number(dir.join("memory.usage_in_bytes")),
        max_usage: number(dir.join("memory.max_usage_in_bytes")),
        limit: if limit >= NO_LIMIT { 0 } else { limit },
        failcnt: number(dir.join("memory.failcnt")),
        stats: pairs(dir.join("memory.stat")),
    }
}

pub(super) fn pids(dirs: &Dirs) -> PidsStats {
    let Some(dir) = dir(dirs, "pids") else {
        return PidsStats::default();
    };
    let limit = number(dir.join("pids.max"));
    PidsStats {
        current: number(dir.join("pids.current")),
        limit: if limit == u64::MAX { 0 } else { limit },
    }
}

pub(super) fn block_io(dirs: &Dirs) -> BlkioStats {
    let Some(dir) = dir(dirs, "blkio") else {
        return BlkioStats::default();
    };
    let read = |names: [&str; 2]| {
        let entries = names
            .into_iter()
            .map(|name| entries(&fs::read_to_string(dir.join(name)).unwrap_or_default()));
        // The throttling layer counts everything; a scheduler's file, where
        // there is one, only what went through it.
        entries
            .into_iter()
            .find(|list| !list.is_empty())
            .unwrap_or_default()
    };
    BlkioStats {
        service_bytes: read([
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ]),
        serviced: read([
            "blkio.throttle.io_serviced_recursive",
            "blkio.throttle.io_serviced",
        ]),
    }
}

/// Lines of "major:minor Operation value".
pub(super) fn entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        let op = fields.next()?.to_owned();
        let value = fields.next()?.parse().ok()?;
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op,
            value,
        })
    };
    text.lines().filter_map(entry).collect()
}
