//! Limits as v1's files take them.

use std::path::Path;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

use super::{Cgroup, Error, Result, limit, read, read_number, write};

/// Makes a directory and its parents. A new cpuset has no cpus and takes no process, so it gets its parent's.
pub(super) fn make(directory: &Path, cpuset: bool) -> Result<()> {
    match std::fs::create_dir(directory) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let parent = directory
                .parent()
                .ok_or_else(|| Error::open(directory, e))?;
            make(parent, cpuset)?;
            if cpuset {
                // Children copy this one's cpus, which saves each of them two reads and two writes. Only a shortcut.
                let _ = write(&parent.join("cgroup.clone_children"), "1");
            }
            match std::fs::create_dir(directory) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::Make {
                        path: directory.to_owned(),
                        source: e,
                    });
                }
                _ => {}
            }
        }
        Err(e) => {
            return Err(Error::Make {
                path: directory.to_owned(),
                source: e,
            });
        }
    }
    if cpuset {
        fill_cpuset(directory)
    } else {
        Ok(())
    }
}

/// Gives a cpuset what its parent has, and the parent first: whoever made that may not have come to fill it yet, and
/// what is copied from an empty one takes no process either. The root is never empty.
fn fill_cpuset(directory: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        inherit(directory, file)?;
    }
    Ok(())
}

fn inherit(directory: &Path, file: &str) -> Result<String> {
    let path = directory.join(file);
    let own = read(&path)?;
    if !own.trim().is_empty() {
        return Ok(own);
    }
    let Some(parent) = directory.parent().filter(|p| p.join(file).exists()) else {
        return Ok(own);
    };
    let inherited = inherit(parent, file)?;
    write(&path, inherited.trim())?;
    Ok(inherited)
}

/// See [`Cgroup::apply`].
pub(super) fn apply(
    cgroup: &Cgroup,
    resources: &LinuxResources,
    warnings: &mut Vec<String>,
) -> Result<()> {
    if let Some(memory) = resources.memory() {
        apply_memory(cgroup, memory, warnings)?;
    }
    if let Some(cpu) = resources.cpu() {
        apply_cpu(cgroup, cpu, warnings)?;
    }
    if let Some(pids) = resources.pids()
        && pids.limit() != 0
    {
        let value = if pids.limit() < 0 {
            "max".to_owned()
        } else {
            pids.limit().to_string()
        };
        limit(
            "the pids limit",
            cgroup.v1_file("pids", "pids.max"),
            &value,
            warnings,
        )?;
    }
    if let Some(block) = resources.block_io() {
        apply_block(cgroup, block, warnings)?;
    }
    apply_huge_pages(
        cgroup,
        resources.hugepage_limits().as_deref().unwrap_or_default(),
        warnings,
    )?;
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            let path = cgroup.v1_file("net_cls", "net_cls.classid");
            limit("the network class", path, &class.to_string(), warnings)?;
        }
        for priority in network.priorities().as_deref().unwrap_or_default() {
            let value = format!("{} {}", priority.name(), priority.priority());
            let path = cgroup.v1_file("net_prio", "net_prio.ifpriomap");
            limit("the network priority", path, &value, warnings)?;
        }
    }
    if resources.unified().as_ref().is_some_and(|u| !u.is_empty()) {
        warnings
            .push("settings under \"unified\" are not enforced: this host has cgroup v1".into());
    }
    if resources.rdma().as_ref().is_some_and(|r| !r.is_empty()) {
        apply_rdma(cgroup, resources, warnings)?;
    }
    Ok(())
}

fn apply_memory(cgroup: &Cgroup, memory: &LinuxMemory, warnings: &mut Vec<String>) -> Result<()> {
    let file = |name: &str| cgroup.v1_file("memory", name);
    let mut memory_limit = memory.limit().filter(|n| *n != 0);
    let swap = memory.swap().filter(|n| *n != 0);
    if memory_limit == Some(-1) && swap.is_none() && memory.swap().is_none() {
        // No limit on memory is no limit on memory and swap, which has to go first.
        limit(
            "the swap limit",
            file("memory.memsw.limit_in_bytes"),
            "-1",
            &mut Vec::new(),
        )?;
    }
    if let Some(swap) = swap {
        // memory <= memory and swap holds at every step.
        let current = file("memory.memsw.limit_in_bytes").and_then(|p| read_number(&p));
        let raise_first = match (memory_limit, current) {
            (Some(-1), _) | (_, None) => true,
            (Some(wanted), Some(current)) => u64::try_from(wanted).is_ok_and(|w| w > current),
            (None, Some(_)) => false,
        };
        if let Some(wanted) = memory_limit.take_if(|_| !raise_first) {
            limit(
                "the memory limit",
                file("memory.limit_in_bytes"),
                &wanted.to_string(),
                warnings,
            )?;
        }
        limit(
            "the swap limit",
            file("memory.memsw.limit_in_bytes"),
            &swap.to_string(),
            warnings,
        )?;
    }
    if let Some(wanted) = memory_limit {
        limit(
            "the memory limit",
            file("memory.limit_in_bytes"),
            &wanted.to_string(),
            warnings,
        )?;
    }
    let numbers = [
        (
            "the memory reservation",
            "memory.soft_limit_in_bytes",
            memory.reservation().filter(|n| *n != 0),
        ),
        (
            "the kernel TCP memory limit",
            "memory.kmem.tcp.limit_in_bytes",
            memory.kernel_tcp().filter(|n| *n != 0),
        ),
    ];
    for (what, name, value) in numbers {
        if let Some(value) = value {
            limit(what, file(name), &value.to_string(), warnings)?;
        }
    }
    if memory.kernel().is_some_and(|n| n != 0) {
        warnings.push("the kernel memory limit is not enforced: Linux has given it up".into());
    }
    if memory.disable_oom_killer() == Some(true) {
        limit(
            "disabling the OOM killer",
            file("memory.oom_control"),
            "1",
            warnings,
        )?;
    }
    match memory.swappiness() {
        None => Ok(()),
        Some(n) if n <= 100 => limit(
            "swappiness",
            file("memory.swappiness"),
            &n.to_string(),
            warnings,
        ),
        Some(n) => Err(Error::BadLimit(format!(
            "swappiness {n} is not between 0 and 100"
        ))),
    }
}

fn apply_cpu(cgroup: &Cgroup, cpu: &LinuxCpu, warnings: &mut Vec<String>) -> Result<()> {
    let file = |name: &str| cgroup.v1_file("cpu", name);
    if let Some(shares) = cpu.shares().filter(|n| *n != 0) {
        limit(
            "the cpu weight",
            file("cpu.shares"),
            &shares.to_string(),
            warnings,
        )?;
    }
    let period = cpu.period().filter(|n| *n != 0);
    let quota = cpu.quota().filter(|n| *n != 0);
    if let Some(period) = period {
        let value = period.to_string();
        let set = limit(
            "the cpu period",
            file("cpu.cfs_period_us"),
            &value,
            warnings,
        );
        match (set, quota) {
            // The old quota may be too much for the new period, so the new one goes first.
            (Err(e), Some(quota)) if e.is(libc::EINVAL) => {
                limit(
                    "the cpu quota",
                    file("cpu.cfs_quota_us"),
                    &quota.to_string(),
                    warnings,
                )?;
                limit(
                    "the cpu period",
                    file("cpu.cfs_period_us"),
                    &value,
                    warnings,
                )?;
            }
            (other, _) => other?,
        }
    }
    let numbers = [
        (
            "the cpu quota",
            "cpu.cfs_quota_us",
            quota.map(|n| n.to_string()),
        ),
        (
            "the cpu burst",
            "cpu.cfs_burst_us",
            cpu.burst().map(|n| n.to_string()),
        ),
        (
            "the real-time period",
            "cpu.rt_period_us",
            cpu.realtime_period()
                .filter(|n| *n != 0)
                .map(|n| n.to_string()),
        ),
        (
            "the real-time runtime",
            "cpu.rt_runtime_us",
            cpu.realtime_runtime()
                .filter(|n| *n != 0)
                .map(|n| n.to_string()),
        ),
        (
            "the idle policy",
            "cpu.idle",
            cpu.idle().map(|n| n.to_string()),
        ),
    ];
    for (what, name, value) in numbers {
        if let Some(value) = value {
            limit(what, file(name), &value, warnings)?;
        }
    }
    for (what, name, value) in [
        ("the cpu set", "cpuset.cpus", cpu.cpus()),
        ("the memory nodes", "cpuset.mems", cpu.mems()),
    ] {
        if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
            limit(what, cgroup.v1_file("cpuset", name), value, warnings)?;
        }
    }
    Ok(())
}

fn apply_block(cgroup: &Cgroup, block: &LinuxBlockIo, warnings: &mut Vec<String>) -> Result<()> {
    let file = |name: &str| cgroup.v1_file("blkio", name);
    // With the bfq scheduler the plain names do not exist.
    let either = |plain: &str, bfq: &str| file(plain).filter(|p| p.exists()).or_else(|| file(bfq));
    if let Some(weight) = block.weight().filter(|n| *n != 0) {
        let path = either("blkio.weight", "blkio.bfq.weight");
        limit("the block I/O weight", path, &weight.to_string(), warnings)?;
    }
    if let Some(weight) = block.leaf_weight().filter(|n| *n != 0) {
        limit(
            "the block I/O leaf weight",
            file("blkio.leaf_weight"),
            &weight.to_string(),
            warnings,
        )?;
    }
    for device in block.weight_device().as_deref().unwrap_or_default() {
        if let Some(weight) = device.weight().filter(|n| *n != 0) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            let path = either("blkio.weight_device", "blkio.bfq.weight_device");
            limit("a device's block I/O weight", path, &value, warnings)?;
        }
    }
    let throttles = [
        (
            "blkio.throttle.read_bps_device",
            block.throttle_read_bps_device(),
        ),
        (
            "blkio.throttle.write_bps_device",
            block.throttle_write_bps_device(),
        ),
        (
            "blkio.throttle.read_iops_device",
            block.throttle_read_iops_device(),
        ),
        (
            "blkio.throttle.write_iops_device",
            block.throttle_write_iops_device(),
        ),
    ];
    for (name, devices) in throttles {
        for device in devices.as_deref().unwrap_or_default() {
            limit(
                "a device's block I/O limit",
                file(name),
                &throttle(device),
                warnings,
            )?;
        }
    }
    Ok(())
}

fn throttle(device: &LinuxThrottleDevice) -> String {
    format!("{}:{} {}", device.major(), device.minor(), device.rate())
}

fn apply_huge_pages(
    cgroup: &Cgroup,
    limits: &[LinuxHugepageLimit],
    warnings: &mut Vec<String>,
) -> Result<()> {
    for huge in limits {
        let what = format!("the limit of {} huge pages", huge.page_size());
        let size = huge.page_size();
        if !size.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Error::BadLimit(format!("{size:?} is not a huge page size")));
        }
        let path = cgroup.v1_file("hugetlb", &format!("hugetlb.{size}.limit_in_bytes"));
        limit(&what, path, &huge.limit().to_string(), warnings)?;
    }
    Ok(())
}

fn apply_rdma(
    cgroup: &Cgroup,
    resources: &LinuxResources,
    warnings: &mut Vec<String>,
) -> Result<()> {
    for (device, rdma) in resources.rdma().iter().flatten() {
        let number = |n: Option<u32>| n.map_or("max".to_owned(), |n| n.to_string());
        let value = format!(
            "{device} hca_handle={} hca_object={}",
            number(rdma.hca_handles()),
            number(rdma.hca_objects())
        );
        limit(
            "the RDMA limit",
            cgroup.v1_file("rdma", "rdma.max"),
            &value,
            warnings,
        )?;
    }
    Ok(())
}
