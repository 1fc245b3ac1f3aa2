//! Limits as the kernel sees them, changes to them, and what is read back.

use serde_json::json;

use crate::bundle::{Bundle, wait, wait_for};
use crate::cgroup::{Cgroup, Layout};

crate::tests!(
    in_the_kernel,
    update,
    oom,
    statistics,
    rlimits,
    oom_score,
    nested_cgroups_are_removed,
    device_program
);

fn value(bundle: &Bundle, controller: &str, file: &str) -> String {
    let text = std::fs::read_to_string(bundle.cgroup(controller).join(file));
    text.unwrap_or_default().trim().to_owned()
}

fn running(bundle: &Bundle) -> (crate::runtime::builtin::Builtin, i32) {
    let runtime = bundle.runtime();
    let (created, _) = bundle.create(&runtime).unwrap();
    wait(runtime.start(&bundle.id)).unwrap();
    (runtime, created.pid)
}

fn cgroup(bundle: &Bundle) -> Cgroup {
    let path = bundle.spec["linux"]["cgroupsPath"].as_str().unwrap();
    Cgroup::at(&Layout::detect().unwrap(), std::path::Path::new(path)).unwrap()
}

fn in_the_kernel() {
    let bundle = Bundle::new(&["sleep", "100"]).with(|s| {
        s["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20, "swappiness": 10});
        s["linux"]["resources"]["cpu"] = json!({"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"});
        s["linux"]["resources"]["pids"] = json!({"limit": 77});
        s["linux"]["resources"]["blockIO"] = json!({"weight": 100});
    });
    let (runtime, pid) = running(&bundle);
    for (controller, file, want) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "134217728"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "77"),
        ("pids", "cgroup.procs", &pid.to_string()),
        ("unified", "cgroup.procs", &pid.to_string()),
        ("systemd", "cgroup.procs", &pid.to_string()),
    ] {
        assert_eq!(value(&bundle, controller, file), want, "{file}");
    }
    let devices = value(&bundle, "devices", "devices.list");
    assert!(
        devices.contains("c 1:3 rwm") && !devices.contains("a *:*"),
        "{devices}"
    );
    wait(runtime.delete(&bundle.id, true)).unwrap();
    wait_for(pid);
}

fn update() {
    let bundle = Bundle::new(&["sleep", "100"]).with(|s| {
        s["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 64 << 20});
    });
    let (runtime, pid) = running(&bundle);
    let change = |json: serde_json::Value| {
        wait(runtime.update(&bundle.id, json.to_string().as_bytes())).unwrap()
    };
    // Up, where swap has to go first; and down, where memory has to.
    change(json!({"memory": {"limit": 256 << 20, "swap": 512 << 20}}));
    assert_eq!(
        value(&bundle, "memory", "memory.limit_in_bytes"),
        "268435456"
    );
    change(
        json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}, "pids": {"limit": 5}, "cpu": {"quota": 20000}}),
    );
    assert_eq!(
        value(&bundle, "memory", "memory.memsw.limit_in_bytes"),
        "33554432"
    );
    assert_eq!(value(&bundle, "pids", "pids.max"), "5");
    change(json!({"pids": {"limit": -1}, "memory": {"limit": -1, "swap": -1}}));
    assert_eq!(value(&bundle, "pids", "pids.max"), "max");
    assert_eq!(value(&bundle, "cpu", "cpu.cfs_quota_us"), "20000");
    assert!(wait(runtime.update(&bundle.id, b"{\"cpu\":{\"cpus\":\"77\"}}")).is_err());
    assert!(wait(runtime.update(&bundle.id, b"nonsense")).is_err());
    wait(runtime.delete(&bundle.id, true)).unwrap();
    wait_for(pid);
}

fn oom() {
    let bundle =
        Bundle::shell("sleep 0.2; dd if=/dev/zero of=/dev/shm/x bs=1M count=40").with(|s| {
            s["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
        });
    let (runtime, pid) = running(&bundle);
    let cgroup = cgroup(&bundle);
    let watch = cgroup.oom_watch().unwrap().unwrap();
    assert_eq!(cgroup.oom_kills(), 0);
    let mut poll = [rustix::event::PollFd::new(
        &watch,
        rustix::event::PollFlags::IN,
    )];
    let limit = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(rustix::event::poll(&mut poll, Some(&limit)).unwrap(), 1);
    watch.drain();
    wait_for(pid);
    assert!(cgroup.oom_kills() > 0);
    wait(runtime.delete(&bundle.id, true)).unwrap();
}

fn statistics() {
    let bundle = Bundle::shell("dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; i=0; while test $i -lt 20000; do i=$((i+1)); done; sleep 100").with(|s| {
        s["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        s["linux"]["resources"]["pids"] = json!({"limit": 9});
    });
    let (runtime, pid) = running(&bundle);
    let cgroup = cgroup(&bundle);
    crate::bundle::until("it has worked", || {
        let stats = cgroup.stats().unwrap();
        stats.memory.usage > 8 << 20 && stats.cpu.total > 1_000_000
    });
    let stats = cgroup.stats().unwrap();
    assert_eq!(
        (stats.memory.limit, stats.pids.limit),
        (Some(64 << 20), Some(9))
    );
    assert!(
        stats.pids.current >= 1
            && stats.cpu.per_cpu.len() == std::thread::available_parallelism().unwrap().get()
    );
    assert!(
        stats
            .memory
            .stat
            .iter()
            .any(|(k, v)| k == "total_shmem" && *v >= 4 << 20),
        "{:?}",
        stats.memory.stat
    );
    let of_pid = Cgroup::of_process(&Layout::detect().unwrap(), pid).unwrap();
    assert_eq!(of_pid.processes().unwrap(), cgroup.processes().unwrap());
    wait(runtime.delete(&bundle.id, true)).unwrap();
    wait_for(pid);
}

fn rlimits() {
    let bundle = Bundle::shell("ulimit -n; ulimit -Hn; ulimit -c").with(|s| {
        s["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}
        ]);
    });
    assert_eq!(bundle.run().unwrap().out, "100\n200\n0\n");
    // More than this host allows: as much as it does, and a warning.
    let greedy = Bundle::shell("ulimit -Hn").with(|s| {
        s["process"]["rlimits"] =
            json!([{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 1u64 << 40}]);
    });
    let outcome = greedy.run();
    assert!(
        outcome.as_ref().is_ok_and(|o| o.code == 0)
            || outcome.is_err_and(|e| e.message.contains("rlimit"))
    );
}

fn oom_score() {
    let up = Bundle::shell("cat /proc/self/oom_score_adj")
        .with(|s| s["process"]["oomScoreAdj"] = json!(500));
    assert_eq!(up.run().unwrap().out, "500\n");
    let down = Bundle::shell("cat /proc/self/oom_score_adj")
        .with(|s| s["process"]["oomScoreAdj"] = json!(-999));
    assert_eq!(down.run().unwrap().code, 0);
}

fn nested_cgroups_are_removed() {
    let bundle = Bundle::shell("mkdir -p /sys/fs/cgroup/pids/a/b && echo 1 > /sys/fs/cgroup/pids/a/b/cgroup.procs; sleep 100").with(|s| {
        for mount in s["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["rw"]);
            }
        }
    });
    let (runtime, pid) = running(&bundle);
    crate::bundle::until("it has moved", || {
        value(&bundle, "pids", "a/b/cgroup.procs") == pid.to_string()
    });
    wait(runtime.delete(&bundle.id, true)).unwrap();
    wait_for(pid);
    assert!(!bundle.cgroup("pids").exists());
}

/// The eBPF filter for cgroup v2, on this host's v2 hierarchy, which has no controllers but takes programs.
fn device_program() {
    let name = format!("davit-test-bpf-{}", std::process::id());
    let directory = std::path::Path::new("/sys/fs/cgroup/unified").join(name);
    std::fs::create_dir(&directory).unwrap();
    let layout = Layout {
        v1: Vec::new(),
        v2: Some("/sys/fs/cgroup/unified".into()),
    };
    let cgroup = Cgroup::at(&layout, directory.file_name().unwrap().as_ref()).unwrap();
    let resources =
        |json: &str| serde_json::from_str::<oci_spec::runtime::LinuxResources>(json).unwrap();
    let open_inside = |path: &str| {
        let line = format!(
            "echo 0 > {}/cgroup.procs && exec 3<{path}",
            directory.display()
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &line])
            .output()
            .unwrap();
        output.status.success()
    };
    let first = cgroup.apply_devices(Some(&resources(
        r#"{"devices":[{"allow":false,"access":"rwm"}]}"#,
    )));
    let (null, kmsg) = (open_inside("/dev/null"), open_inside("/dev/kmsg"));
    let second = cgroup.apply_devices(Some(&resources(r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#)));
    let kmsg_after = open_inside("/dev/kmsg");
    cgroup.remove().unwrap();
    first.unwrap();
    second.unwrap();
    assert!(null && !kmsg && kmsg_after, "{null} {kmsg} {kmsg_after}");
}
