//! Limits as v2's files take them. The OCI spec counts in v1's units, so some are converted.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::{Error, Result, limit, read_if_there, write};

/// Makes a directory and its parents, and with `controllers` hands every controller down to it.
pub(super) fn make(directory: &Path, controllers: bool) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().ok_or_else(|| {
        let source = std::io::Error::from_raw_os_error(libc::ENOENT);
        Error::Make {
            path: directory.to_owned(),
            source,
        }
    })?;
    if !parent.is_dir() {
        make(parent, controllers)?;
    }
    if controllers {
        hand_down(parent)?;
    }
    match std::fs::create_dir(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::Make {
            path: directory.to_owned(),
            source: e,
        }),
        _ => Ok(()),
    }
}

/// Enables in the children of `directory` every controller that it has.
fn hand_down(directory: &Path) -> Result<()> {
    let available = read_if_there(&directory.join("cgroup.controllers"))?.unwrap_or_default();
    let enabled = read_if_there(&directory.join("cgroup.subtree_control"))?.unwrap_or_default();
    let has = |name: &str| enabled.split_whitespace().any(|e| e == name);
    for controller in available.split_whitespace().filter(|c| !has(c)) {
        // One that refuses (processes inside, a real-time one in cpu) is missed when its limit is set.
        if let Err(e) = write(
            &directory.join("cgroup.subtree_control"),
            &format!("+{controller}"),
        ) {
            tracing::debug!(error = %e, "controller is not handed down");
        }
    }
    Ok(())
}

/// See [`super::Cgroup::apply`].
pub(super) fn apply(
    directory: &Path,
    resources: &LinuxResources,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let file = |name: &str| Some(directory.join(name));
    if let Some(memory) = resources.memory() {
        apply_memory(directory, memory, warnings)?;
    }
    if let Some(cpu) = resources.cpu() {
        apply_cpu(directory, cpu, warnings)?;
    }
    if let Some(pids) = resources.pids()
        && pids.limit() != 0
    {
        limit(
            "the pids limit",
            file("pids.max"),
            &or_max(pids.limit()),
            warnings,
        )?;
    }
    if let Some(block) = resources.block_io() {
        apply_block(directory, block, warnings)?;
    }
    for huge in resources.hugepage_limits().as_deref().unwrap_or_default() {
        let size = huge.page_size();
        if !size.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Error::BadLimit(format!("{size:?} is not a huge page size")));
        }
        let what = format!("the limit of {size} huge pages");
        limit(
            &what,
            file(&format!("hugetlb.{size}.max")),
            &or_max(huge.limit()),
            warnings,
        )?;
    }
    if resources
        .network()
        .as_ref()
        .is_some_and(|n| n.class_id().is_some() || n.priorities().is_some())
    {
        warnings.push("network class and priorities are not enforced: cgroup v2 has none".into());
    }
    for (name, value) in resources.unified().iter().flatten() {
        if name.contains('/') || !name.contains('.') {
            return Err(Error::BadLimit(format!(
                "{name:?} is not the name of a cgroup file"
            )));
        }
        for line in value.lines() {
            limit(
                &format!("unified setting {name}"),
                file(name),
                line,
                warnings,
            )?;
        }
    }
    Ok(())
}

fn apply_memory(directory: &Path, memory: &LinuxMemory, warnings: &mut Vec<String>) -> Result<()> {
    let file = |name: &str| Some(directory.join(name));
    let limit_bytes = memory.limit().filter(|n| *n != 0);
    let swap = swap_alone(memory)?;
    // Swap first when it grows without bound, so that a shrinking memory limit finds room.
    if let Some(swap) = swap {
        limit(
            "the swap limit",
            file("memory.swap.max"),
            &or_max(swap),
            warnings,
        )?;
    }
    if let Some(bytes) = limit_bytes {
        limit(
            "the memory limit",
            file("memory.max"),
            &or_max(bytes),
            warnings,
        )?;
    }
    if let Some(bytes) = memory.reservation().filter(|n| *n != 0) {
        limit(
            "the memory reservation",
            file("memory.low"),
            &or_max(bytes),
            warnings,
        )?;
    }
    if memory.kernel().is_some_and(|n| n != 0) || memory.kernel_tcp().is_some_and(|n| n != 0) {
        warnings.push("kernel memory limits are not enforced: cgroup v2 has none".into());
    }
    if memory.disable_oom_killer() == Some(true) {
        warnings.push("the OOM killer is not disabled: cgroup v2 can't".into());
    }
    if memory.swappiness().is_some() {
        warnings.push("swappiness is not set: cgroup v2 has none".into());
    }
    Ok(())
}

/// The spec's swap limit counts memory too; v2's does not. -1 is no limit.
fn swap_alone(memory: &LinuxMemory) -> Result<Option<i64>> {
    let (limit, Some(swap)) = (
        memory.limit().unwrap_or(0),
        memory.swap().filter(|n| *n != 0),
    ) else {
        return Ok(match memory.limit() {
            Some(-1) if memory.swap().is_none() => Some(-1),
            _ => None,
        });
    };
    match (limit, swap) {
        (_, -1) => Ok(Some(-1)),
        (0 | -1, _) => Err(Error::BadLimit("a swap limit needs a memory limit".into())),
        (limit, swap) if swap < limit => Err(Error::BadLimit(format!(
            "memory and swap together ({swap}) are less than memory ({limit})"
        ))),
        (limit, swap) => Ok(Some(swap - limit)),
    }
}

fn apply_cpu(directory: &Path, cpu: &LinuxCpu, warnings: &mut Vec<String>) -> Result<()> {
    let file = |name: &str| Some(directory.join(name));
    if let Some(shares) = cpu.shares().filter(|n| *n != 0) {
        limit(
            "the cpu weight",
            file("cpu.weight"),
            &weight_of_shares(shares).to_string(),
            warnings,
        )?;
    }
    let (quota, period) = (
        cpu.quota().filter(|n| *n != 0),
        cpu.period().filter(|n| *n != 0),
    );
    if quota.is_some() || period.is_some() {
        limit(
            "the cpu quota",
            file("cpu.max"),
            &cpu_max(directory, quota, period)?,
            warnings,
        )?;
    }
    if let Some(burst) = cpu.burst() {
        limit(
            "the cpu burst",
            file("cpu.max.burst"),
            &burst.to_string(),
            warnings,
        )?;
    }
    if let Some(idle) = cpu.idle() {
        limit(
            "the idle policy",
            file("cpu.idle"),
            &idle.to_string(),
            warnings,
        )?;
    }
    if cpu.realtime_runtime().is_some_and(|n| n != 0)
        || cpu.realtime_period().is_some_and(|n| n != 0)
    {
        warnings.push("real-time limits are not enforced: cgroup v2 has none".into());
    }
    for (what, name, value) in [
        ("the cpu set", "cpuset.cpus", cpu.cpus()),
        ("the memory nodes", "cpuset.mems", cpu.mems()),
    ] {
        if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
            limit(what, file(name), value, warnings)?;
        }
    }
    Ok(())
}

/// `quota period`; what is not given stays as it is.
fn cpu_max(directory: &Path, quota: Option<i64>, period: Option<u64>) -> Result<String> {
    let current = read_if_there(&directory.join("cpu.max"))?.unwrap_or_default();
    let mut current = current.split_whitespace().map(str::to_owned);
    let (old_quota, old_period) = (current.next(), current.next());
    let quota = quota
        .map(or_max)
        .or(old_quota)
        .unwrap_or_else(|| "max".into());
    let period = period
        .map(|n| n.to_string())
        .or(old_period)
        .unwrap_or_else(|| "100000".into());
    Ok(format!("{quota} {period}"))
}

/// v1's shares (2 to 262144) on v2's scale (1 to 10000), as all runtimes convert them.
fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

fn apply_block(directory: &Path, block: &LinuxBlockIo, warnings: &mut Vec<String>) -> Result<()> {
    if let Some(weight) = block.weight().filter(|n| *n != 0) {
        let bfq = directory.join("io.bfq.weight");
        let (path, value) = if bfq.exists() {
            (bfq, weight.to_string())
        } else {
            // bfq's 10 to 1000 on the scale 1 to 10000.
            let weight = u64::from(weight.clamp(10, 1000));
            (
                directory.join("io.weight"),
                format!("default {}", 1 + (weight - 10) * 9999 / 990),
            )
        };
        limit("the block I/O weight", Some(path), &value, warnings)?;
    }
    if block.leaf_weight().is_some_and(|n| n != 0) {
        warnings.push("the block I/O leaf weight is not enforced: cgroup v2 has none".into());
    }
    for device in block.weight_device().as_deref().unwrap_or_default() {
        if let Some(weight) = device.weight().filter(|n| *n != 0) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            limit(
                "a device's block I/O weight",
                Some(directory.join("io.bfq.weight")),
                &value,
                warnings,
            )?;
        }
    }
    let throttles = [
        ("rbps", block.throttle_read_bps_device()),
        ("wbps", block.throttle_write_bps_device()),
        ("riops", block.throttle_read_iops_device()),
        ("wiops", block.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.as_deref().unwrap_or_default() {
            let path: PathBuf = directory.join("io.max");
            limit(
                "a device's block I/O limit",
                Some(path),
                &throttle(device, key),
                warnings,
            )?;
        }
    }
    Ok(())
}

fn throttle(device: &LinuxThrottleDevice, key: &str) -> String {
    let rate = if device.rate() == 0 {
        "max".to_owned()
    } else {
        device.rate().to_string()
    };
    format!("{}:{} {key}={rate}", device.major(), device.minor())
}

fn or_max(number: i64) -> String {
    if number < 0 {
        "max".into()
    } else {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(json: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Result<()>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let mut warnings = Vec::new();
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let done = apply(dir.path(), &resources, &mut warnings);
        (dir, done, warnings)
    }

    fn content(dir: &tempfile::TempDir, name: &str) -> String {
        std::fs::read_to_string(dir.path().join(name)).unwrap()
    }

    #[test]
    fn units_are_converted() {
        let json = r#"{"memory":{"limit":1000,"swap":1500},"cpu":{"shares":1024,"quota":50000},"pids":{"limit":-1}}"#;
        let files = [
            ("memory.max", ""),
            ("memory.swap.max", ""),
            ("cpu.weight", ""),
            ("cpu.max", "max 100000\n"),
            ("pids.max", ""),
        ];
        let (dir, done, warnings) = applied(json, &files);
        done.unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(content(&dir, "memory.max"), "1000");
        assert_eq!(content(&dir, "memory.swap.max"), "500");
        assert_eq!(content(&dir, "cpu.weight"), "39");
        assert!(content(&dir, "cpu.max").starts_with("50000 100000"));
        assert_eq!(content(&dir, "pids.max"), "max");
    }

    #[test]
    fn a_missing_controller_is_a_warning() {
        let (_dir, done, warnings) =
            applied(r#"{"pids":{"limit":5},"memory":{"swappiness":3}}"#, &[]);
        done.unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [
            r#"{"memory":{"limit":10,"swap":5}}"#,
            r#"{"unified":{"../x":"1"}}"#,
            r#"{"memory":{"swap":5}}"#,
        ] {
            assert!(applied(json, &[]).1.is_err(), "{json}");
        }
    }

    #[test]
    fn weights_span_the_scale() {
        assert_eq!(
            (
                weight_of_shares(0),
                weight_of_shares(2),
                weight_of_shares(262_144)
            ),
            (1, 1, 10_000)
        );
    }
}
