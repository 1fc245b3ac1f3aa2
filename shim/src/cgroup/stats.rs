//! What a container uses, read from the kernel's files. Times in nanoseconds, sizes in bytes.

use std::path::Path;

use super::{Cgroup, Result, read_if_there, read_number};

/// A reading of all controllers that are there; the others stay at their zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) cpu: CpuStats,
    pub(crate) memory: MemoryStats,
    pub(crate) pids: PidsStats,
    pub(crate) block: BlockStats,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CpuStats {
    pub(crate) total: u64,
    pub(crate) user: u64,
    pub(crate) system: u64,
    /// v1 only.
    pub(crate) per_cpu: Vec<u64>,
    pub(crate) periods: u64,
    pub(crate) throttled_periods: u64,
    pub(crate) throttled: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemoryStats {
    pub(crate) usage: u64,
    pub(crate) peak: u64,
    /// `None` when there is none.
    pub(crate) limit: Option<u64>,
    /// v1: how often the limit was hit.
    pub(crate) failures: u64,
    /// v1: memory and swap; v2: swap alone.
    pub(crate) swap_usage: u64,
    pub(crate) swap_peak: u64,
    pub(crate) swap_limit: Option<u64>,
    pub(crate) swap_failures: u64,
    pub(crate) kernel_usage: u64,
    pub(crate) kernel_tcp_usage: u64,
    /// `memory.stat` as it stands.
    pub(crate) stat: Vec<(String, u64)>,
    /// v2: `memory.events` as it stands.
    pub(crate) events: Vec<(String, u64)>,
    pub(crate) oom_kills: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PidsStats {
    pub(crate) current: u64,
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BlockStats {
    pub(crate) bytes: Vec<BlockEntry>,
    pub(crate) operations: Vec<BlockEntry>,
}

/// `operation` is "Read", "Write", "Sync", "Async", "Discard" or "Total".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub(crate) major: u64,
    pub(crate) minor: u64,
    pub(crate) operation: String,
    pub(crate) value: u64,
}

impl Cgroup {
    /// Reads everything once.
    ///
    /// # Errors
    /// A file that is there can't be read.
    pub(crate) fn stats(&self) -> Result<Stats> {
        match &self.v2 {
            Some(directory) if self.is_pure_v2() => read_v2(directory, self.oom_kills()),
            _ => self.read_v1(),
        }
    }

    fn read_v1(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        if let Some(member) = self.member("cpuacct") {
            let d = &member.directory;
            stats.cpu.total = number(d, "cpuacct.usage");
            stats.cpu.user = number(d, "cpuacct.usage_user");
            stats.cpu.system = number(d, "cpuacct.usage_sys");
            let each = read_if_there(&d.join("cpuacct.usage_percpu"))?.unwrap_or_default();
            stats.cpu.per_cpu = each
                .split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect();
        }
        if let Some(path) = self.v1_file("cpu", "cpu.stat") {
            let stat = pairs(&path)?;
            stats.cpu.periods = get(&stat, "nr_periods");
            stats.cpu.throttled_periods = get(&stat, "nr_throttled");
            stats.cpu.throttled = get(&stat, "throttled_time");
        }
        if let Some(member) = self.member("memory") {
            stats.memory = memory_v1(&member.directory)?;
            stats.memory.oom_kills = self.oom_kills();
        }
        if let Some(member) = self.member("pids") {
            stats.pids = pids(&member.directory);
        }
        if let Some(member) = self.member("blkio") {
            stats.block = block_v1(&member.directory)?;
        }
        Ok(stats)
    }
}

fn memory_v1(d: &Path) -> Result<MemoryStats> {
    Ok(MemoryStats {
        usage: number(d, "memory.usage_in_bytes"),
        peak: number(d, "memory.max_usage_in_bytes"),
        limit: limit_v1(d, "memory.limit_in_bytes"),
        failures: number(d, "memory.failcnt"),
        swap_usage: number(d, "memory.memsw.usage_in_bytes"),
        swap_peak: number(d, "memory.memsw.max_usage_in_bytes"),
        swap_limit: limit_v1(d, "memory.memsw.limit_in_bytes"),
        swap_failures: number(d, "memory.memsw.failcnt"),
        kernel_usage: number(d, "memory.kmem.usage_in_bytes"),
        kernel_tcp_usage: number(d, "memory.kmem.tcp.usage_in_bytes"),
        stat: pairs(&d.join("memory.stat"))?,
        events: Vec::new(),
        oom_kills: 0,
    })
}

fn block_v1(d: &Path) -> Result<BlockStats> {
    let read = |file: &str| -> Result<Vec<BlockEntry>> {
        let text = read_if_there(&d.join(file))?.unwrap_or_default();
        Ok(text.lines().filter_map(block_line).collect())
    };
    let mut block = BlockStats {
        bytes: read("blkio.bfq.io_service_bytes_recursive")?,
        operations: read("blkio.bfq.io_serviced_recursive")?,
    };
    if block.bytes.is_empty() {
        block.bytes = read("blkio.throttle.io_service_bytes_recursive")?;
        block.operations = read("blkio.throttle.io_serviced_recursive")?;
    }
    Ok(block)
}

/// `8:0 Read 4096`
fn block_line(line: &str) -> Option<BlockEntry> {
    let mut fields = line.split(' ');
    let (major, minor) = fields.next()?.split_once(':')?;
    let (operation, value) = (fields.next()?, fields.next()?);
    Some(BlockEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        operation: operation.to_owned(),
        value: value.parse().ok()?,
    })
}

fn read_v2(d: &Path, oom_kills: u64) -> Result<Stats> {
    let cpu = pairs(&d.join("cpu.stat"))?;
    let micro = |name: &str| get(&cpu, name).saturating_mul(1000);
    let io = read_if_there(&d.join("io.stat"))?.unwrap_or_default();
    Ok(Stats {
        cpu: CpuStats {
            total: micro("usage_usec"),
            user: micro("user_usec"),
            system: micro("system_usec"),
            per_cpu: Vec::new(),
            periods: get(&cpu, "nr_periods"),
            throttled_periods: get(&cpu, "nr_throttled"),
            throttled: micro("throttled_usec"),
        },
        memory: MemoryStats {
            usage: number(d, "memory.current"),
            peak: number(d, "memory.peak"),
            limit: read_number(&d.join("memory.max")),
            swap_usage: number(d, "memory.swap.current"),
            swap_peak: number(d, "memory.swap.peak"),
            swap_limit: read_number(&d.join("memory.swap.max")),
            stat: pairs(&d.join("memory.stat"))?,
            events: pairs(&d.join("memory.events"))?,
            oom_kills,
            ..MemoryStats::default()
        },
        pids: pids(d),
        block: block_v2(&io),
    })
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn block_v2(text: &str) -> BlockStats {
    let mut block = BlockStats::default();
    for line in text.lines() {
        let Some((device, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((Ok(major), Ok(minor))) =
            device.split_once(':').map(|(a, b)| (a.parse(), b.parse()))
        else {
            continue;
        };
        for (name, value) in rest.split(' ').filter_map(|f| f.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let (list, operation) = match name {
                "rbytes" => (&mut block.bytes, "Read"),
                "wbytes" => (&mut block.bytes, "Write"),
                "dbytes" => (&mut block.bytes, "Discard"),
                "rios" => (&mut block.operations, "Read"),
                "wios" => (&mut block.operations, "Write"),
                "dios" => (&mut block.operations, "Discard"),
                _ => continue,
            };
            list.push(BlockEntry {
                major,
                minor,
                operation: operation.to_owned(),
                value,
            });
        }
    }
    block
}

fn pids(d: &Path) -> PidsStats {
    PidsStats {
        current: number(d, "pids.current"),
        limit: read_number(&d.join("pids.max")),
    }
}

fn number(directory: &Path, file: &str) -> u64 {
    read_number(&directory.join(file)).unwrap_or(0)
}

/// v1 says "no limit" with the largest multiple of the page size that it can count.
fn limit_v1(directory: &Path, file: &str) -> Option<u64> {
    read_number(&directory.join(file)).filter(|n| *n < 0x7fff_ffff_ffff_0000)
}

fn pairs(path: &Path) -> Result<Vec<(String, u64)>> {
    let text = read_if_there(path)?.unwrap_or_default();
    let pair = |l: &str| {
        l.split_once(' ')
            .and_then(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)))
    };
    Ok(text.lines().filter_map(pair).collect())
}

fn get(pairs: &[(String, u64)], name: &str) -> u64 {
    pairs
        .iter()
        .find(|(key, _)| key == name)
        .map_or(0, |(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_files() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put(
            "cpu.stat",
            "usage_usec 12\nuser_usec 7\nsystem_usec 5\nnr_periods 3\nnr_throttled 1\nthrottled_usec 9\n",
        );
        put("memory.current", "4096\n");
        put("memory.max", "max\n");
        put("memory.stat", "anon 1\nfile 2\n");
        put("memory.events", "low 0\noom_kill 2\n");
        put(
            "io.stat",
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        );
        put("pids.current", "2\n");
        put("pids.max", "10\n");
        let cgroup = Cgroup {
            v1: Vec::new(),
            v2: Some(dir.path().to_owned()),
        };
        let stats = cgroup.stats().unwrap();
        assert_eq!((stats.cpu.total, stats.cpu.throttled), (12_000, 9_000));
        assert_eq!(
            (
                stats.memory.usage,
                stats.memory.limit,
                stats.memory.oom_kills
            ),
            (4096, None, 2)
        );
        assert_eq!((stats.pids.current, stats.pids.limit), (2, Some(10)));
        let write = stats
            .block
            .operations
            .iter()
            .find(|e| e.operation == "Write")
            .unwrap();
        assert_eq!((write.major, write.value), (8, 4));
    }

    #[test]
    fn v1_block_lines() {
        let entry = block_line("8:16 Write 81920").unwrap();
        assert_eq!((entry.major, entry.minor, entry.value), (8, 16, 81920));
        assert_eq!(block_line("Total 81920"), None);
    }
}
