//! `Stats` on the wire: containerd's own messages, `io.containerd.cgroups.v1.Metrics` or `v2.Metrics`.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;

use crate::cgroup::{BlockEntry, BlockStats, CpuStats, MemoryStats, Stats};
use crate::events::pack;

/// What clients take for "no limit".
const NO_LIMIT_V1: u64 = 0x7fff_ffff_ffff_f000;

/// The message that fits the host's cgroup version.
pub(crate) fn encode(stats: &Stats, is_v2: bool) -> Any {
    if is_v2 {
        pack("io.containerd.cgroups.v2", &metrics_v2(stats))
    } else {
        pack("io.containerd.cgroups.v1", &metrics_v1(stats))
    }
}

fn metrics_v1(stats: &Stats) -> v1::Metrics {
    let oom = v1::MemoryOomControl {
        oom_kill: stats.memory.oom_kills,
        ..Default::default()
    };
    v1::Metrics {
        pids: MessageField::some(v1::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit.unwrap_or(0),
            ..Default::default()
        }),
        cpu: MessageField::some(cpu_v1(&stats.cpu)),
        memory: MessageField::some(memory_v1(&stats.memory)),
        blkio: MessageField::some(block_v1(&stats.block)),
        memory_oom_control: MessageField::some(oom),
        ..Default::default()
    }
}

fn cpu_v1(cpu: &CpuStats) -> v1::CPUStat {
    let usage = v1::CPUUsage {
        total: cpu.total,
        kernel: cpu.system,
        user: cpu.user,
        per_cpu: cpu.per_cpu.clone(),
        ..Default::default()
    };
    let throttling = v1::Throttle {
        periods: cpu.periods,
        throttled_periods: cpu.throttled_periods,
        throttled_time: cpu.throttled,
        ..Default::default()
    };
    v1::CPUStat {
        usage: MessageField::some(usage),
        throttling: MessageField::some(throttling),
        ..Default::default()
    }
}

fn memory_v1(memory: &MemoryStats) -> v1::MemoryStat {
    let mut wire = v1::MemoryStat {
        usage: entry(memory.usage, memory.peak, memory.limit, memory.failures),
        swap: entry(
            memory.swap_usage,
            memory.swap_peak,
            memory.swap_limit,
            memory.swap_failures,
        ),
        kernel: entry(memory.kernel_usage, 0, None, 0),
        kernel_tcp: entry(memory.kernel_tcp_usage, 0, None, 0),
        ..Default::default()
    };
    for (name, value) in &memory.stat {
        let Some(field) = field_v1(&mut wire, name) else {
            continue;
        };
        *field = *value;
    }
    wire
}

fn field_v1<'a>(wire: &'a mut v1::MemoryStat, name: &str) -> Option<&'a mut u64> {
    Some(match name {
        "cache" => &mut wire.cache,
        "rss" => &mut wire.rss,
        "rss_huge" => &mut wire.rss_huge,
        "mapped_file" => &mut wire.mapped_file,
        "dirty" => &mut wire.dirty,
        "writeback" => &mut wire.writeback,
        "pgpgin" => &mut wire.pg_pg_in,
        "pgpgout" => &mut wire.pg_pg_out,
        "pgfault" => &mut wire.pg_fault,
        "pgmajfault" => &mut wire.pg_maj_fault,
        "inactive_anon" => &mut wire.inactive_anon,
        "active_anon" => &mut wire.active_anon,
        "inactive_file" => &mut wire.inactive_file,
        "active_file" => &mut wire.active_file,
        "unevictable" => &mut wire.unevictable,
        "hierarchical_memory_limit" => &mut wire.hierarchical_memory_limit,
        "hierarchical_memsw_limit" => &mut wire.hierarchical_swap_limit,
        "total_cache" => &mut wire.total_cache,
        "total_rss" => &mut wire.total_rss,
        "total_rss_huge" => &mut wire.total_rss_huge,
        "total_mapped_file" => &mut wire.total_mapped_file,
        "total_dirty" => &mut wire.total_dirty,
        "total_writeback" => &mut wire.total_writeback,
        "total_pgpgin" => &mut wire.total_pg_pg_in,
        "total_pgpgout" => &mut wire.total_pg_pg_out,
        "total_pgfault" => &mut wire.total_pg_fault,
        "total_pgmajfault" => &mut wire.total_pg_maj_fault,
        "total_inactive_anon" => &mut wire.total_inactive_anon,
        "total_active_anon" => &mut wire.total_active_anon,
        "total_inactive_file" => &mut wire.total_inactive_file,
        "total_active_file" => &mut wire.total_active_file,
        "total_unevictable" => &mut wire.total_unevictable,
        _ => return None,
    })
}

fn entry(usage: u64, max: u64, limit: Option<u64>, failcnt: u64) -> MessageField<v1::MemoryEntry> {
    let limit = limit.unwrap_or(NO_LIMIT_V1);
    MessageField::some(v1::MemoryEntry {
        limit,
        usage,
        max,
        failcnt,
        ..Default::default()
    })
}

fn block_v1(block: &BlockStats) -> v1::BlkIOStat {
    let entries = |from: &[BlockEntry]| {
        from.iter()
            .map(|entry| v1::BlkIOEntry {
                op: entry.operation.clone(),
                major: entry.major,
                minor: entry.minor,
                value: entry.value,
                ..Default::default()
            })
            .collect()
    };
    v1::BlkIOStat {
        io_service_bytes_recursive: entries(&block.bytes),
        io_serviced_recursive: entries(&block.operations),
        ..Default::default()
    }
}

fn metrics_v2(stats: &Stats) -> v2::Metrics {
    let micro = |nanoseconds: u64| nanoseconds / 1000;
    let cpu = v2::CPUStat {
        usage_usec: micro(stats.cpu.total),
        user_usec: micro(stats.cpu.user),
        system_usec: micro(stats.cpu.system),
        nr_periods: stats.cpu.periods,
        nr_throttled: stats.cpu.throttled_periods,
        throttled_usec: micro(stats.cpu.throttled),
        ..Default::default()
    };
    let events = |name: &str| {
        stats
            .memory
            .events
            .iter()
            .find(|(key, _)| key == name)
            .map_or(0, |(_, value)| *value)
    };
    let memory_events = v2::MemoryEvents {
        low: events("low"),
        high: events("high"),
        max: events("max"),
        oom: events("oom"),
        oom_kill: events("oom_kill"),
        oom_group_kill: events("oom_group_kill"),
        ..Default::default()
    };
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit.unwrap_or(0),
            ..Default::default()
        }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory_v2(&stats.memory)),
        memory_events: MessageField::some(memory_events),
        io: MessageField::some(v2::IOStat {
            usage: io_v2(&stats.block),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn memory_v2(memory: &MemoryStats) -> v2::MemoryStat {
    let mut wire = v2::MemoryStat {
        usage: memory.usage,
        max_usage: memory.peak,
        usage_limit: memory.limit.unwrap_or(u64::MAX),
        swap_usage: memory.swap_usage,
        swap_max_usage: memory.swap_peak,
        swap_limit: memory.swap_limit.unwrap_or(u64::MAX),
        ..Default::default()
    };
    for (name, value) in &memory.stat {
        let Some(field) = field_v2(&mut wire, name) else {
            continue;
        };
        *field = *value;
    }
    wire
}

fn field_v2<'a>(wire: &'a mut v2::MemoryStat, name: &str) -> Option<&'a mut u64> {
    Some(match name {
        "anon" => &mut wire.anon,
        "file" => &mut wire.file,
        "kernel_stack" => &mut wire.kernel_stack,
        "slab" => &mut wire.slab,
        "sock" => &mut wire.sock,
        "shmem" => &mut wire.shmem,
        "file_mapped" => &mut wire.file_mapped,
        "file_dirty" => &mut wire.file_dirty,
        "file_writeback" => &mut wire.file_writeback,
        "anon_thp" => &mut wire.anon_thp,
        "inactive_anon" => &mut wire.inactive_anon,
        "active_anon" => &mut wire.active_anon,
        "inactive_file" => &mut wire.inactive_file,
        "active_file" => &mut wire.active_file,
        "unevictable" => &mut wire.unevictable,
        "slab_reclaimable" => &mut wire.slab_reclaimable,
        "slab_unreclaimable" => &mut wire.slab_unreclaimable,
        "pgfault" => &mut wire.pgfault,
        "pgmajfault" => &mut wire.pgmajfault,
        "workingset_refault" => &mut wire.workingset_refault,
        "workingset_activate" => &mut wire.workingset_activate,
        "workingset_nodereclaim" => &mut wire.workingset_nodereclaim,
        "pgrefill" => &mut wire.pgrefill,
        "pgscan" => &mut wire.pgscan,
        "pgsteal" => &mut wire.pgsteal,
        "pgactivate" => &mut wire.pgactivate,
        "pgdeactivate" => &mut wire.pgdeactivate,
        "pglazyfree" => &mut wire.pglazyfree,
        "pglazyfreed" => &mut wire.pglazyfreed,
        "thp_fault_alloc" => &mut wire.thp_fault_alloc,
        "thp_collapse_alloc" => &mut wire.thp_collapse_alloc,
        _ => return None,
    })
}

fn io_v2(block: &BlockStats) -> Vec<v2::IOEntry> {
    let mut entries: Vec<v2::IOEntry> = Vec::new();
    let mut add = |from: &BlockEntry, operations: bool| {
        let known = entries
            .iter()
            .position(|entry| (entry.major, entry.minor) == (from.major, from.minor));
        let at = known.unwrap_or_else(|| {
            entries.push(v2::IOEntry {
                major: from.major,
                minor: from.minor,
                ..Default::default()
            });
            entries.len() - 1
        });
        match (from.operation.as_str(), operations) {
            ("Read", false) => entries[at].rbytes = from.value,
            ("Write", false) => entries[at].wbytes = from.value,
            ("Read", true) => entries[at].rios = from.value,
            ("Write", true) => entries[at].wios = from.value,
            _ => {}
        }
    };
    block.bytes.iter().for_each(|entry| add(entry, false));
    block.operations.iter().for_each(|entry| add(entry, true));
    entries
}
