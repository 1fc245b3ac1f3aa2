//! Limits: checked and completed as docker does it, in its words, and turned
//! into what a runtime applies. What the host can't enforce becomes a warning.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use davit_store::{
    Error, Result,
    options::{Resources, ThrottleDevice},
};
use oci_spec::{
    OciSpecError,
    runtime::{
        LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpu, LinuxCpuBuilder, LinuxMemory,
        LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
        LinuxThrottleDevice, LinuxThrottleDeviceBuilder, LinuxWeightDevice,
        LinuxWeightDeviceBuilder,
    },
};

use super::{CgroupFacts, HostFacts, devices};

/// Least memory that a container can be limited to; docker's.
const MIN_MEMORY: i64 = 6 << 20;

/// Microseconds of the period that `nano_cpus` is a part of.
const NANO_PERIOD: i64 = 100_000;

/// What limits are checked for: docker allows some combinations only later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A new container.
    Create,
    /// A change of one that is there.
    Update,
}

/// Checks limits and gives those that are applied on this host: what it
/// can't do is taken out with a warning, what docker fills in is filled in.
///
/// # Errors
/// `InvalidArgument` in docker's words.
pub fn adapt(
    given: &Resources,
    oom_kill_disable: bool,
    host: &HostFacts,
    occasion: Occasion,
) -> Result<Adapted> {
    let mut adapted = Adapted {
        resources: given.clone(),
        oom_kill_disable,
        warnings: Vec::new(),
    };
    adapted.memory(&host.cgroup, occasion)?;
    adapted.memory_extras(&host.cgroup)?;
    adapted.oom_and_pids(&host.cgroup);
    adapted.cpu(host)?;
    adapted.cpuset(&host.cgroup)?;
    adapted.block_io(&host.cgroup)?;
    Ok(adapted)
}

/// Puts `change` over `old`: what is 0 or empty in `change` stays, as docker's
/// `update` does it. The result is not checked yet.
pub fn merge(old: &Resources, change: &Resources) -> Resources {
    let mut new = old.clone();
    let numbers: [(&mut i64, i64); 11] = [
        (&mut new.memory, change.memory),
        (&mut new.memory_swap, change.memory_swap),
        (&mut new.memory_reservation, change.memory_reservation),
        (&mut new.kernel_memory, change.kernel_memory),
        (&mut new.nano_cpus, change.nano_cpus),
        (&mut new.cpu_shares, change.cpu_shares),
        (&mut new.cpu_period, change.cpu_period),
        (&mut new.cpu_quota, change.cpu_quota),
        (&mut new.cpu_rt_period, change.cpu_rt_period),
        (&mut new.cpu_rt_runtime, change.cpu_rt_runtime),
        (&mut new.pids_limit, change.pids_limit),
    ];
    for (place, value) in numbers {
        if value != 0 {
            *place = value;
        }
    }
    // NanoCPUs and period with quota are two words for one thing: the newer goes.
    if change.nano_cpus != 0 {
        (new.cpu_period, new.cpu_quota) = (0, 0);
    } else if change.cpu_period != 0 || change.cpu_quota != 0 {
        new.nano_cpus = 0;
    }
    if change.memory_swappiness.is_some() {
        new.memory_swappiness = change.memory_swappiness;
    }
    if change.blkio_weight != 0 {
        new.blkio_weight = change.blkio_weight;
    }
    for (place, value) in [
        (&mut new.cpuset_cpus, &change.cpuset_cpus),
        (&mut new.cpuset_mems, &change.cpuset_mems),
    ] {
        if !value.is_empty() {
            place.clone_from(value);
        }
    }
    if !change.blkio_weight_device.is_empty() {
        new.blkio_weight_device
            .clone_from(&change.blkio_weight_device);
    }
    let throttles = [
        (
            &mut new.blkio_device_read_bps,
            &change.blkio_device_read_bps,
        ),
        (
            &mut new.blkio_device_write_bps,
            &change.blkio_device_write_bps,
        ),
        (
            &mut new.blkio_device_read_iops,
            &change.blkio_device_read_iops,
        ),
        (
            &mut new.blkio_device_write_iops,
            &change.blkio_device_write_iops,
        ),
    ];
    for (place, value) in throttles {
        if !value.is_empty() {
            place.clone_from(value);
        }
    }
    new
}

/// Limits as they are applied on this host.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapted {
    /// The limits.
    pub resources: Resources,
    /// The OOM killer is off for the container.
    pub oom_kill_disable: bool,
    /// What was taken out or is unwise.
    pub warnings: Vec<String>,
}

impl Adapted {
    fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }

    fn memory(&mut self, cgroup: &CgroupFacts, occasion: Occasion) -> Result<()> {
        let r = &mut self.resources;
        if r.memory < 0 || r.memory != 0 && r.memory < MIN_MEMORY {
            return invalid("Minimum memory limit allowed is 6MB");
        }
        if r.memory > 0 && !cgroup.memory {
            (r.memory, r.memory_swap) = (0, 0);
            self.warn("Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.");
        }
        let r = &mut self.resources;
        if r.memory > 0 && r.memory_swap != -1 && !cgroup.swap {
            r.memory_swap = -1;
            self.warn("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.");
        }
        let r = &mut self.resources;
        if r.memory_swap < -1 {
            return invalid("Invalid memory swap limit: use -1 for unlimited swap");
        }
        if r.memory > 0 && r.memory_swap > 0 && r.memory_swap < r.memory {
            return invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            );
        }
        if r.memory == 0 && r.memory_swap > 0 && occasion == Occasion::Create {
            return invalid(
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            );
        }
        if r.memory > 0 && r.memory_swap == 0 {
            r.memory_swap = r.memory.saturating_mul(2);
        }
        Ok(())
    }

    fn memory_extras(&mut self, cgroup: &CgroupFacts) -> Result<()> {
        if let Some(swappiness) = self
            .resources
            .memory_swappiness
            .filter(|&value| value != -1)
        {
            if !cgroup.memory_swappiness {
                self.resources.memory_swappiness = None;
                self.warn("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.");
            } else if !(0..=100).contains(&swappiness) {
                return invalid(format!(
                    "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
                ));
            }
        }
        if self.resources.memory_reservation > 0 && !cgroup.memory_reservation {
            self.resources.memory_reservation = 0;
            self.warn("Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.");
        }
        let r = &self.resources;
        if r.memory_reservation < 0 || r.memory_reservation > 0 && r.memory_reservation < MIN_MEMORY
        {
            return invalid("Minimum memory reservation allowed is 6MB");
        }
        if r.memory > 0 && r.memory_reservation > 0 && r.memory < r.memory_reservation {
            return invalid(
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            );
        }
        if r.kernel_memory != 0 {
            self.resources.kernel_memory = 0;
            self.warn("Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.");
        }
        Ok(())
    }

    fn oom_and_pids(&mut self, cgroup: &CgroupFacts) {
        if self.oom_kill_disable && !cgroup.oom_kill_disable {
            self.oom_kill_disable = false;
            self.warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
        }
        if self.oom_kill_disable && self.resources.memory == 0 {
            self.warn("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.");
        }
        if self.resources.pids_limit > 0 && !cgroup.pids {
            self.resources.pids_limit = 0;
            self.warn("Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.");
        }
    }

    fn cpu(&mut self, host: &HostFacts) -> Result<()> {
        let (r, count) = (&self.resources, host.cpu_count);
        if r.nano_cpus > 0 && r.cpu_period > 0 {
            return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if r.nano_cpus > 0 && r.cpu_quota > 0 {
            return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
        if r.nano_cpus > 0 && !host.cgroup.cpu_cfs {
            return invalid(
                "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
            );
        }
        let (least, most) = (10_000_000, i64::from(count) * 1_000_000_000);
        if r.nano_cpus != 0 && !(least..=most).contains(&r.nano_cpus) {
            return invalid(format!(
                "Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
            ));
        }
        if r.cpu_shares < 0 {
            return invalid(format!(
                "invalid CPU shares ({}): value must be a positive integer",
                r.cpu_shares
            ));
        }
        if r.cpu_shares > 0 && !host.cgroup.cpu_shares {
            self.resources.cpu_shares = 0;
            self.warn("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.");
        }
        self.cpu_time(&host.cgroup)
    }

    fn cpu_time(&mut self, cgroup: &CgroupFacts) -> Result<()> {
        let r = &mut self.resources;
        if (r.cpu_period != 0 || r.cpu_quota != 0) && !cgroup.cpu_cfs {
            (r.cpu_period, r.cpu_quota) = (0, 0);
            self.warn(
                "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
            );
        }
        let r = &self.resources;
        if r.cpu_period != 0 && !(1_000..=1_000_000).contains(&r.cpu_period) {
            return invalid(
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            );
        }
        if r.cpu_quota > 0 && r.cpu_quota < 1_000 {
            return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
        }
        if r.cpu_rt_period < 0 || r.cpu_rt_runtime < 0 {
            return invalid("CPU real-time period and runtime can not be negative");
        }
        if r.cpu_rt_period > 0 && !cgroup.cpu_rt {
            return invalid(
                "Your kernel does not support CPU real-time period or the cgroup is not mounted",
            );
        }
        if r.cpu_rt_runtime > 0 && !cgroup.cpu_rt {
            return invalid(
                "Your kernel does not support CPU real-time runtime or the cgroup is not mounted",
            );
        }
        if r.cpu_rt_period != 0 && r.cpu_rt_runtime > r.cpu_rt_period {
            return invalid("cpu real-time runtime cannot be higher than cpu real-time period");
        }
        Ok(())
    }

    fn cpuset(&mut self, cgroup: &CgroupFacts) -> Result<()> {
        let r = &mut self.resources;
        if (!r.cpuset_cpus.is_empty() || !r.cpuset_mems.is_empty()) && !cgroup.cpuset {
            r.cpuset_cpus.clear();
            r.cpuset_mems.clear();
            self.warn("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.");
        }
        let r = &self.resources;
        in_set("cpuset cpus", "CPUs", &r.cpuset_cpus, &cgroup.cpus)?;
        in_set("cpuset mems", "memory nodes", &r.cpuset_mems, &cgroup.mems)
    }

    fn block_io(&mut self, cgroup: &CgroupFacts) -> Result<()> {
        let r = &mut self.resources;
        if r.blkio_weight > 0 && !cgroup.blkio_weight {
            r.blkio_weight = 0;
            self.warn("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.");
        }
        let weight = self.resources.blkio_weight;
        if weight > 0 && !(10..=1000).contains(&weight) {
            return invalid("Range of blkio weight is from 10 to 1000");
        }
        if !self.resources.blkio_weight_device.is_empty() && !cgroup.blkio_weight_device {
            self.resources.blkio_weight_device.clear();
            self.warn("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.");
        }
        for device in &self.resources.blkio_weight_device {
            if !(10..=1000).contains(&device.weight) {
                return invalid(format!(
                    "Range of blkio weight is from 10 to 1000, not {} as for {}",
                    device.weight, device.path
                ));
            }
        }
        let r = &mut self.resources;
        let rates = [
            (
                &mut r.blkio_device_read_bps,
                cgroup.blkio_bps,
                "BPS Block I/O read limit",
                "Block I/O BPS read limit",
            ),
            (
                &mut r.blkio_device_write_bps,
                cgroup.blkio_bps,
                "BPS Block I/O write limit",
                "Block I/O BPS write limit",
            ),
            (
                &mut r.blkio_device_read_iops,
                cgroup.blkio_iops,
                "IOPS Block read limit",
                "Block I/O IOPS read limit",
            ),
            (
                &mut r.blkio_device_write_iops,
                cgroup.blkio_iops,
                "IOPS Block I/O write limit",
                "Block I/O IOPS write limit",
            ),
        ];
        for (list, able, what, short) in rates {
            if !list.is_empty() && !able {
                list.clear();
                self.warnings.push(format!("Your kernel does not support {what} or the cgroup is not mounted. {short} discarded."));
            }
        }
        Ok(())
    }

    /// The limits for the spec, without device rules. Looks up the block
    /// devices.
    ///
    /// # Errors
    /// `InvalidArgument` when a block device is not there.
    pub fn to_spec(&self) -> Result<LinuxResources> {
        let r = &self.resources;
        let mut builder = LinuxResourcesBuilder::default()
            .memory(self.spec_memory()?)
            .cpu(spec_cpu(r)?);
        if r.pids_limit != 0 {
            builder = builder.pids(
                LinuxPidsBuilder::default()
                    .limit(r.pids_limit.max(-1))
                    .build()
                    .map_err(entry)?,
            );
        }
        if let Some(block_io) = spec_block_io(r)? {
            builder = builder.block_io(block_io);
        }
        builder.build().map_err(entry)
    }

    fn spec_memory(&self) -> Result<LinuxMemory> {
        let r = &self.resources;
        let mut builder = LinuxMemoryBuilder::default();
        if r.memory > 0 {
            builder = builder.limit(r.memory);
        }
        if r.memory_swap != 0 && r.memory > 0 || r.memory_swap > 0 {
            builder = builder.swap(r.memory_swap);
        }
        if r.memory_reservation > 0 {
            builder = builder.reservation(r.memory_reservation);
        }
        if let Some(swappiness) = r
            .memory_swappiness
            .and_then(|value| u64::try_from(value).ok())
        {
            builder = builder.swappiness(swappiness);
        }
        if self.oom_kill_disable {
            builder = builder.disable_oom_killer(true);
        }
        builder.build().map_err(entry)
    }
}

fn spec_cpu(r: &Resources) -> Result<LinuxCpu> {
    let mut builder = LinuxCpuBuilder::default();
    if r.cpu_shares > 0 {
        builder = builder.shares(r.cpu_shares.unsigned_abs());
    }
    let (period, quota) = if r.nano_cpus > 0 {
        (NANO_PERIOD, r.nano_cpus / (1_000_000_000 / NANO_PERIOD))
    } else {
        (r.cpu_period, r.cpu_quota)
    };
    if period > 0 {
        builder = builder.period(period.unsigned_abs());
    }
    if quota != 0 {
        builder = builder.quota(quota);
    }
    if r.cpu_rt_period > 0 {
        builder = builder.realtime_period(r.cpu_rt_period.unsigned_abs());
    }
    if r.cpu_rt_runtime > 0 {
        builder = builder.realtime_runtime(r.cpu_rt_runtime);
    }
    if !r.cpuset_cpus.is_empty() {
        builder = builder.cpus(r.cpuset_cpus.as_str());
    }
    if !r.cpuset_mems.is_empty() {
        builder = builder.mems(r.cpuset_mems.as_str());
    }
    builder.build().map_err(entry)
}

fn spec_block_io(r: &Resources) -> Result<Option<LinuxBlockIo>> {
    let mut builder = LinuxBlockIoBuilder::default();
    let mut any = false;
    if r.blkio_weight > 0 {
        builder = builder.weight(u16::try_from(r.blkio_weight).unwrap_or(u16::MAX));
        any = true;
    }
    if !r.blkio_weight_device.is_empty() {
        let devices = r
            .blkio_weight_device
            .iter()
            .map(weight_device)
            .collect::<Result<Vec<_>>>()?;
        builder = builder.weight_device(devices);
        any = true;
    }
    let lists = [
        &r.blkio_device_read_bps,
        &r.blkio_device_write_bps,
        &r.blkio_device_read_iops,
        &r.blkio_device_write_iops,
    ];
    any |= lists.iter().any(|list| !list.is_empty());
    if !any {
        return Ok(None);
    }
    let block_io = builder
        .throttle_read_bps_device(throttles(&r.blkio_device_read_bps)?)
        .throttle_write_bps_device(throttles(&r.blkio_device_write_bps)?)
        .throttle_read_iops_device(throttles(&r.blkio_device_read_iops)?)
        .throttle_write_iops_device(throttles(&r.blkio_device_write_iops)?)
        .build()
        .map_err(entry)?;
    Ok(Some(block_io))
}

fn weight_device(device: &davit_store::options::WeightDevice) -> Result<LinuxWeightDevice> {
    let (major, minor) = block_device(&device.path)?;
    let weight = u16::try_from(device.weight).unwrap_or(u16::MAX);
    LinuxWeightDeviceBuilder::default()
        .major(major)
        .minor(minor)
        .weight(weight)
        .build()
        .map_err(entry)
}

fn throttles(list: &[ThrottleDevice]) -> Result<Vec<LinuxThrottleDevice>> {
    let one = |device: &ThrottleDevice| {
        let (major, minor) = block_device(&device.path)?;
        LinuxThrottleDeviceBuilder::default()
            .major(major)
            .minor(minor)
            .rate(device.rate)
            .build()
            .map_err(entry)
    };
    list.iter().map(one).collect()
}

fn block_device(path: &str) -> Result<(i64, i64)> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        Error::invalid(format!("looking for block device {path}")).with_source(error)
    })?;
    if !metadata.file_type().is_block_device() {
        return invalid(format!("{path} is not a block device"));
    }
    Ok(devices::numbers(metadata.rdev()))
}

/// Whether all of `wanted` ("0-2,5") is in `available`.
fn in_set(field: &str, noun: &str, wanted: &str, available: &str) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let Some(set) = ranges(wanted) else {
        return invalid(format!("Invalid value {wanted} for {field}"));
    };
    let have = ranges(available).unwrap_or_default();
    let inside =
        |&(first, last): &(u32, u32)| have.iter().any(|&(low, high)| low <= first && last <= high);
    if have.is_empty() || set.iter().all(inside) {
        return Ok(());
    }
    invalid(format!(
        "Requested {noun} are not available - requested {wanted}, available: {available}"
    ))
}

/// Ranges of a kernel list, neighbours joined; `None` when it is none.
fn ranges(list: &str) -> Option<Vec<(u32, u32)>> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for part in list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > 8191 {
            return None;
        }
        ranges.push((first, last));
    }
    ranges.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    Some(joined)
}

fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::invalid(text))
}

fn entry(error: OciSpecError) -> Error {
    Error::internal("making the limits of the spec").with_source(error)
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;
