//! The lifecycle of containers, the same for every runtime.

use davit_tests::{Daemon, ImageSpec, Registry, eventually, until};

/// A daemon with a busybox image, on `runtime`.
fn prepared(runtime: &str) -> (Daemon, String) {
    let registry = Registry::start();
    let daemon = Daemon::builder().runtime(runtime).start();
    let image = daemon.pull_busybox(&registry, "busybox:latest", &ImageSpec::default());
    (daemon, image)
}

fn state(daemon: &Daemon, name: &str, field: &str) -> String {
    daemon
        .davit(&["inspect", "-f", &format!("{{{{.State.{field}}}}}"), name])
        .ok()
}

fn run_gives_output_and_exit_code(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    assert_eq!(
        daemon.davit(&["run", "--rm", &image, "echo", "hello"]).ok(),
        "hello"
    );
    let output = daemon.davit(&[
        "run",
        "--rm",
        &image,
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (7, "out\n", "err\n")
    );
    // A first process can't kill itself with KILL, but its child can be.
    let output = daemon.davit(&["run", "--rm", "--init", &image, "sh", "-c", "kill -9 $$"]);
    assert_eq!(output.code, 137);
    eventually("everything to be removed", || {
        daemon.davit(&["ps", "-aq"]).ok().is_empty()
    });
}

fn what_cannot_start_is_told_apart(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    let missing = daemon.davit(&["run", "--rm", &image, "no-such-program"]);
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    assert!(
        missing
            .stderr
            .contains("executable file not found in $PATH"),
        "{}",
        missing.stderr
    );
    let directory = daemon.davit(&["run", "--rm", &image, "/etc"]);
    assert_eq!(directory.code, 126, "{}", directory.stderr);
    let denied = daemon.davit(&["run", "--rm", &image, "/etc/passwd"]);
    assert_eq!(denied.code, 126, "{}", denied.stderr);
    assert!(
        denied.stderr.contains("permission denied"),
        "{}",
        denied.stderr
    );
    let no_image = daemon.davit(&["run", "--rm", "--pull", "never", "not-here", "true"]);
    assert_eq!(no_image.code, 125, "{}", no_image.stderr);
    eventually("nothing to be left of failed starts", || {
        daemon.davit(&["ps", "-aq"]).ok().is_empty()
    });
}

fn stop_keeps_the_writable_layer(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "trap 'exit 3' TERM; while :; do sleep 0.1; done",
        ])
        .ok();
    daemon
        .davit(&["exec", "c", "sh", "-c", "echo kept > /file"])
        .ok();
    daemon.davit(&["stop", "-t", "20", "c"]).ok();
    assert_eq!(state(&daemon, "c", "Status"), "exited");
    assert_eq!(state(&daemon, "c", "ExitCode"), "3");
    daemon.davit(&["start", "c"]).ok();
    assert_eq!(daemon.davit(&["exec", "c", "cat", "/file"]).ok(), "kept");
    let before = state(&daemon, "c", "Pid");
    daemon.davit(&["restart", "-t", "20", "c"]).ok();
    assert_ne!(state(&daemon, "c", "Pid"), before);
    assert_eq!(daemon.davit(&["exec", "c", "cat", "/file"]).ok(), "kept");
    assert_eq!(daemon.davit(&["rm", "c"]).code, 1);
    daemon.davit(&["rm", "-f", "c"]).ok();
    assert_eq!(daemon.davit(&["ps", "-aq"]).ok(), "");
}

fn a_process_that_ignores_the_signal_is_killed(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        ])
        .ok();
    eventually("the trap to be set", || {
        daemon.davit(&["logs", "c"]).ok().contains("ready")
    });
    daemon.davit(&["stop", "-t", "0", "c"]).ok();
    assert_eq!(state(&daemon, "c", "ExitCode"), "137");
}

fn pause_freezes_and_resume_thaws(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "i=0; while :; do i=$((i+1)); echo $i; usleep 10000; done",
        ])
        .ok();
    eventually("output", || !daemon.davit(&["logs", "c"]).ok().is_empty());
    daemon.davit(&["pause", "c"]).ok();
    assert_eq!(state(&daemon, "c", "Status"), "paused");
    assert_ne!(daemon.davit(&["exec", "c", "true"]).code, 0);
    let frozen = daemon.davit(&["logs", "c"]).ok();
    daemon.davit(&["unpause", "c"]).ok();
    eventually("output to go on", || {
        daemon.davit(&["logs", "c"]).ok().len() > frozen.len()
    });
    assert_eq!(state(&daemon, "c", "Status"), "running");
}

fn exec_has_its_own_code_user_and_place(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    daemon
        .davit(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .ok();
    assert_eq!(daemon.davit(&["exec", "c", "sh", "-c", "exit 5"]).code, 5);
    assert_eq!(
        daemon.davit(&["exec", "-u", "app", "c", "id", "-u"]).ok(),
        "1000"
    );
    assert_eq!(
        daemon.davit(&["exec", "-w", "/tmp", "c", "pwd"]).ok(),
        "/tmp"
    );
    assert_eq!(
        daemon
            .davit(&["exec", "-e", "A=b", "c", "sh", "-c", "echo $A"])
            .ok(),
        "b"
    );
    let missing = daemon.davit(&["exec", "c", "nothing-here"]);
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    let stopped = daemon.davit(&["create", "--name", "s", &image, "true"]);
    stopped.clone().ok();
    let refused = daemon.davit(&["exec", "s", "true"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("is not running"),
        "{}",
        refused.stderr
    );
}

fn restart_policies_are_followed(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "f",
            "--restart",
            "on-failure:2",
            &image,
            "false",
        ])
        .ok();
    until("the policy to give up", || {
        (state(&daemon, "f", "Status") == "exited").then_some(())
    });
    assert_eq!(
        daemon
            .davit(&["inspect", "-f", "{{.RestartCount}}", "f"])
            .ok(),
        "2"
    );
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "a",
            "--restart",
            "always",
            &image,
            "sh",
            "-c",
            "sleep 0.1; exit 1",
        ])
        .ok();
    until("two restarts", || {
        let count: u32 = daemon
            .davit(&["inspect", "-f", "{{.RestartCount}}", "a"])
            .ok()
            .parse()
            .unwrap();
        (count >= 2).then_some(())
    });
    daemon.davit(&["stop", "a"]).ok();
    assert_eq!(state(&daemon, "a", "Status"), "exited");
    let count = daemon
        .davit(&["inspect", "-f", "{{.RestartCount}}", "a"])
        .ok();
    assert_eq!(
        daemon
            .davit(&["inspect", "-f", "{{.RestartCount}}", "a"])
            .ok(),
        count
    );
}

fn limits_reach_the_kernel(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            "--memory",
            "32m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "17",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    let read = |controller: &str, file: &str| {
        let pid = state(&daemon, "c", "Pid");
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let line = cgroups
            .lines()
            .find(|line| line.split(':').nth(1) == Some(controller));
        let path = line.map_or_else(
            || {
                format!(
                    "/sys/fs/cgroup{}",
                    cgroups.lines().last().unwrap().rsplit(':').next().unwrap()
                )
            },
            |line| {
                format!(
                    "/sys/fs/cgroup/{controller}{}",
                    line.rsplit(':').next().unwrap()
                )
            },
        );
        std::fs::read_to_string(format!("{path}/{file}"))
            .unwrap()
            .trim()
            .to_owned()
    };
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(read("", "memory.max"), (32 << 20).to_string());
        assert_eq!(read("", "pids.max"), "17");
    } else {
        assert_eq!(
            read("memory", "memory.limit_in_bytes"),
            (32 << 20).to_string()
        );
        assert_eq!(read("pids", "pids.max"), "17");
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
    }
    daemon
        .davit(&["update", "--memory", "48m", "--memory-swap", "96m", "c"])
        .ok();
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(
            read("memory", "memory.limit_in_bytes"),
            (48 << 20).to_string()
        );
    }
}

fn out_of_memory_is_told(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    let eat = "head -c 100000000 /dev/zero | tail";
    let output = daemon.davit(&[
        "run",
        "--name",
        "c",
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        &image,
        "sh",
        "-c",
        &format!("exec {eat}"),
    ]);
    assert_ne!(output.code, 0);
    eventually("the kill to be recorded", || {
        state(&daemon, "c", "OOMKilled") == "true"
    });
}

fn wait_logs_and_top_and_stats(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "echo one; echo two >&2; sleep 1000",
        ])
        .ok();
    eventually("both lines", || {
        let output = daemon.davit(&["logs", "c"]);
        output.stdout == "one\n" && output.stderr == "two\n"
    });
    let top = daemon.davit(&["top", "c"]).ok();
    assert!(top.contains("PID") && top.contains("sleep 1000"), "{top}");
    let stats = daemon
        .davit(&[
            "stats",
            "--no-stream",
            "--format",
            "{{.Name}} {{.PIDs}}",
            "c",
        ])
        .ok();
    assert!(stats.starts_with("c "), "{stats}");
    daemon.davit(&["kill", "-s", "TERM", "c"]).ok();
    daemon.davit(&["kill", "c"]);
    assert_eq!(daemon.davit(&["wait", "c"]).ok(), "137");
}

fn health_checks_run(runtime: &str) {
    let (daemon, image) = prepared(runtime);
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            "--health-cmd",
            "test -e /ok",
            "--health-interval",
            "100ms",
            "--health-retries",
            "2",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    let health = || {
        daemon
            .davit(&["inspect", "-f", "{{.State.Health.Status}}", "c"])
            .ok()
    };
    eventually("it to be unhealthy", || health() == "unhealthy");
    daemon.davit(&["exec", "c", "touch", "/ok"]).ok();
    eventually("it to be healthy", || health() == "healthy");
}

macro_rules! for_each_runtime {
    ($($test:ident),* $(,)?) => {
        mod builtin { $( #[test] fn $test() { super::$test("builtin"); } )* }
        mod runc { $( #[test] fn $test() { super::$test("runc"); } )* }
    };
}

for_each_runtime!(
    run_gives_output_and_exit_code,
    what_cannot_start_is_told_apart,
    stop_keeps_the_writable_layer,
    a_process_that_ignores_the_signal_is_killed,
    pause_freezes_and_resume_thaws,
    exec_has_its_own_code_user_and_place,
    restart_policies_are_followed,
    limits_reach_the_kernel,
    out_of_memory_is_told,
    wait_logs_and_top_and_stats,
    health_checks_run,
);
