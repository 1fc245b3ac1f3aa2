//! What a running container uses: one sample, out of its cgroups' files and
//! its network namespace. Reads a few dozen small files; nothing waits.

mod cgroup;
mod network;
mod v1;
mod v2;

use davit_store::Result;
use jiff::Timestamp;

pub use cgroup::Cgroup;

use crate::{model::Stats, spec::HostFacts};

/// The container to measure.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its first process on the host.
    pub pid: u32,
    /// `Plan::cgroup_path`.
    pub cgroup_path: &'a str,
    /// It has a network of its own (`NetworkMode::is_own`); the host's or
    /// another's traffic is not its.
    pub own_network: bool,
}

impl Measured<'_> {
    /// Its cgroup.
    ///
    /// # Errors
    /// `NotFound` when it does not run any more.
    pub fn cgroup(&self, host: &HostFacts) -> Result<Cgroup> {
        Cgroup::find(host, self.cgroup_path, self.pid)
    }
}

/// Takes one sample.
///
/// # Errors
/// `NotFound` when it does not run any more.
pub fn sample(host: &HostFacts, of: &Measured<'_>) -> Result<Stats> {
    let cgroup = of.cgroup(host)?;
    let mut stats = Stats {
        read_at: Timestamp::now(),
        id: of.id.to_owned(),
        name: of.name.to_owned(),
        cpu: cgroup.cpu(),
        memory: cgroup.memory(),
        pids: cgroup.pids(),
        blkio: cgroup.block_io(),
        networks: Default::default(),
    };
    (stats.cpu.system_usage, stats.cpu.online_cpus) = host_cpu();
    if of.own_network {
        stats.networks = network::of_process(of.pid);
    }
    if let Some(total) =
        memory_total().filter(|&total| stats.memory.limit == 0 || stats.memory.limit > total)
    {
        stats.memory.limit = total;
    }
    Ok(stats)
}

/// CPU time of the whole host in nanoseconds, and its CPUs (proc_stat(5)).
fn host_cpu() -> (u64, u32) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    parse_host_cpu(&text, nanoseconds_per_tick())
}

fn parse_host_cpu(text: &str, tick: u64) -> (u64, u32) {
    let mut cpus = 0;
    let mut total = 0;
    for line in text.lines().take_while(|line| line.starts_with("cpu")) {
        let mut fields = line.split_whitespace();
        if fields.next() != Some("cpu") {
            cpus += 1;
            continue;
        }
        // user, nice, system, idle, iowait, irq, softirq, steal; the guest
        // columns behind them are counted in user and nice already.
        let ticks: u64 = fields
            .take(8)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        total = ticks.saturating_mul(tick);
    }
    (total, cpus)
}

/// Length of the kernel's clock tick as user space sees it.
pub(crate) fn nanoseconds_per_tick() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// Bytes of memory of the host.
pub(crate) fn memory_total() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

#[cfg(test)]
mod tests;
