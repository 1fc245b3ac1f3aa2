//! Tests of the limits: docker's wording, host by host.

use super::*;
use crate::spec::host::tests::{able, unable};

fn check(change: impl FnOnce(&mut Resources)) -> Result<Adapted> {
    let mut resources = Resources::default();
    change(&mut resources);
    adapt(&resources, false, &able(), Occasion::Create)
}

fn error(change: impl FnOnce(&mut Resources)) -> String {
    check(change).unwrap_err().to_string()
}

#[test]
fn nothing_asked_nothing_set() {
    let adapted = check(|_| {}).unwrap();
    assert!(adapted.warnings.is_empty());
    let spec = adapted.to_spec().unwrap();
    assert!(spec.pids().is_none() && spec.block_io().is_none());
    assert_eq!(spec.memory().unwrap().limit(), None);
}

#[test]
fn memory_is_completed() {
    let adapted = check(|r| r.memory = 64 << 20).unwrap();
    assert_eq!(adapted.resources.memory_swap, 128 << 20);
    let memory = adapted.to_spec().unwrap().memory().unwrap();
    assert_eq!(
        (memory.limit(), memory.swap()),
        (Some(64 << 20), Some(128 << 20))
    );
    let unlimited = check(|r| (r.memory, r.memory_swap) = (64 << 20, -1)).unwrap();
    assert_eq!(
        unlimited.to_spec().unwrap().memory().unwrap().swap(),
        Some(-1)
    );
}

#[test]
fn memory_in_dockers_words() {
    assert_eq!(
        error(|r| r.memory = 4 << 20),
        "Minimum memory limit allowed is 6MB"
    );
    assert_eq!(
        error(|r| r.memory = -1),
        "Minimum memory limit allowed is 6MB"
    );
    assert_eq!(
        error(|r| (r.memory, r.memory_swap) = (16 << 20, 8 << 20)),
        "Minimum memoryswap limit should be larger than memory limit, see usage"
    );
    assert_eq!(
        error(|r| r.memory_swap = 16 << 20),
        "You should always set the Memory limit when using Memoryswap limit, see usage"
    );
    assert_eq!(
        error(|r| r.memory_swappiness = Some(101)),
        "Invalid value: 101, valid memory swappiness range is 0-100"
    );
    assert_eq!(
        error(|r| r.memory_reservation = 1),
        "Minimum memory reservation allowed is 6MB"
    );
    assert_eq!(
        error(|r| (r.memory, r.memory_reservation) = (16 << 20, 32 << 20)),
        "Minimum memory limit can not be less than memory reservation limit, see usage"
    );
    assert!(
        check(|r| r.memory_swappiness = Some(-1))
            .unwrap()
            .to_spec()
            .unwrap()
            .memory()
            .unwrap()
            .swappiness()
            .is_none()
    );
}

#[test]
fn cpu_in_dockers_words() {
    assert_eq!(
        error(|r| r.nano_cpus = 3_000_000_000),
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"
    );
    assert_eq!(
        error(|r| r.nano_cpus = 1),
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"
    );
    assert_eq!(
        error(|r| (r.nano_cpus, r.cpu_period) = (1_000_000_000, 1000)),
        "Conflicting options: Nano CPUs and CPU Period cannot both be set"
    );
    assert_eq!(
        error(|r| (r.nano_cpus, r.cpu_quota) = (1_000_000_000, 1000)),
        "Conflicting options: Nano CPUs and CPU Quota cannot both be set"
    );
    assert_eq!(
        error(|r| r.cpu_period = 10),
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
    );
    assert_eq!(
        error(|r| r.cpu_quota = 10),
        "CPU cfs quota can not be less than 1ms (i.e. 1000)"
    );
    let cpu = check(|r| r.nano_cpus = 1_500_000_000)
        .unwrap()
        .to_spec()
        .unwrap()
        .cpu()
        .clone()
        .unwrap();
    assert_eq!((cpu.period(), cpu.quota()), (Some(100_000), Some(150_000)));
}

#[test]
fn cpuset_in_dockers_words() {
    assert_eq!(
        error(|r| r.cpuset_cpus = "0-x".into()),
        "Invalid value 0-x for cpuset cpus"
    );
    assert_eq!(
        error(|r| r.cpuset_cpus = "0-4".into()),
        "Requested CPUs are not available - requested 0-4, available: 0-1"
    );
    assert_eq!(
        error(|r| r.cpuset_mems = "1".into()),
        "Requested memory nodes are not available - requested 1, available: 0"
    );
    assert!(check(|r| r.cpuset_cpus = "1,0".into()).is_ok());
    assert!(error(|r| r.cpuset_cpus = "0-4294967295".into()).starts_with("Invalid value"));
}

#[test]
fn block_io() {
    assert_eq!(
        error(|r| r.blkio_weight = 5),
        "Range of blkio weight is from 10 to 1000"
    );
    let missing = |r: &mut Resources| {
        r.blkio_device_read_bps = vec![ThrottleDevice {
            path: "/dev/nope".into(),
            rate: 1,
        }]
    };
    assert_eq!(
        check(missing).unwrap().to_spec().unwrap_err().to_string(),
        "looking for block device /dev/nope"
    );
    let odd = |r: &mut Resources| {
        r.blkio_device_read_bps = vec![ThrottleDevice {
            path: "/dev/null".into(),
            rate: 1,
        }]
    };
    assert_eq!(
        check(odd).unwrap().to_spec().unwrap_err().to_string(),
        "/dev/null is not a block device"
    );
}

#[test]
fn what_the_host_cannot_do_is_told() {
    let device = |path: &str| {
        vec![ThrottleDevice {
            path: path.into(),
            rate: 1,
        }]
    };
    let given = Resources {
        memory: 64 << 20,
        memory_swappiness: Some(10),
        memory_reservation: 32 << 20,
        kernel_memory: 64 << 20,
        cpu_shares: 512,
        cpu_period: 1,
        cpuset_cpus: "99".to_owned(),
        pids_limit: 10,
        blkio_weight: 1,
        blkio_device_read_bps: device("/x"),
        blkio_device_write_iops: device("/x"),
        ..Default::default()
    };
    let adapted = adapt(&given, true, &unable(), Occasion::Create).unwrap();
    assert_eq!(adapted.warnings.len(), 12);
    for warning in &adapted.warnings {
        assert!(
            warning.starts_with("Your kernel does not support "),
            "{warning}"
        );
        assert!(warning.contains("discarded"), "{warning}");
    }
    assert_eq!(adapted.resources, Resources::default());
    let error = adapt(
        &Resources {
            nano_cpus: 1_000_000_000,
            ..Default::default()
        },
        false,
        &unable(),
        Occasion::Create,
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .starts_with("NanoCPUs can not be set")
    );
}

#[test]
fn updates_change_only_what_they_name() {
    let old = Resources {
        memory: 64 << 20,
        nano_cpus: 1_000_000_000,
        cpuset_cpus: "0".into(),
        ..Default::default()
    };
    let new = merge(
        &old,
        &Resources {
            cpu_quota: 50_000,
            pids_limit: -1,
            ..Default::default()
        },
    );
    assert_eq!(
        new,
        Resources {
            memory: 64 << 20,
            cpu_quota: 50_000,
            pids_limit: -1,
            cpuset_cpus: "0".into(),
            ..Default::default()
        }
    );
    assert_eq!(
        merge(
            &new,
            &Resources {
                nano_cpus: 5,
                ..Default::default()
            }
        )
        .cpu_quota,
        0
    );
    assert!(
        adapt(
            &Resources {
                memory_swap: 16 << 20,
                ..Default::default()
            },
            false,
            &able(),
            Occasion::Update
        )
        .is_ok()
    );
}
