//! Nothing is lost when the daemon dies, and nothing of a dead shim is left.

use std::{collections::BTreeSet, fs, time::Instant};

use davit_tests::{Daemon, ImageSpec, Registry, eventually, until};
use nix::{sys::signal::Signal, unistd::Pid};

fn prepared() -> (Daemon, String) {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:latest", &ImageSpec::default());
    (daemon, image)
}

fn inspect(daemon: &Daemon, name: &str, field: &str) -> String {
    daemon
        .davit(&["inspect", "-f", &format!("{{{{{field}}}}}"), name])
        .ok()
}

#[test]
fn output_goes_on_and_no_line_is_lost() {
    let (mut daemon, image) = prepared();
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "i=0; while :; do i=$((i+1)); echo $i; usleep 5000; done",
        ])
        .ok();
    let pid = inspect(&daemon, "c", ".State.Pid");
    let lines = |daemon: &Daemon| daemon.davit(&["logs", "c"]).ok().lines().count();
    eventually("some output", || lines(&daemon) > 10);
    let before = lines(&daemon);
    daemon.crash_and_restart();
    assert_eq!(inspect(&daemon, "c", ".State.Pid"), pid);
    eventually("more output", || lines(&daemon) > before + 100);
    let log = daemon.davit(&["logs", "c"]).ok();
    for (index, line) in log.lines().enumerate() {
        assert_eq!(line, (index + 1).to_string());
    }
}

#[test]
fn an_exit_while_no_daemon_runs_is_reported_with_its_time_and_code() {
    let (mut daemon, image) = prepared();
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "while [ ! -e /go ]; do usleep 10000; done; exit 42",
        ])
        .ok();
    let pid: i32 = inspect(&daemon, "c", ".State.Pid").parse().unwrap();
    daemon.kill9();
    let before = jiff_now();
    fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
    eventually("the process to end", || {
        !fs::exists(format!("/proc/{pid}")).unwrap_or(false)
    });
    let after = jiff_now();
    daemon.start_again();
    eventually("the exit to be known", || {
        inspect(&daemon, "c", ".State.Status") == "exited"
    });
    assert_eq!(inspect(&daemon, "c", ".State.ExitCode"), "42");
    let finished = inspect(&daemon, "c", ".State.FinishedAt");
    assert!(
        before <= finished && finished <= after,
        "{before} <= {finished} <= {after}"
    );
    let events = daemon
        .davit(&[
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "-f",
            "event=die",
            "--format",
            "{{.Actor.Attributes.exitCode}}",
        ])
        .ok();
    assert_eq!(events, "42");
}

fn jiff_now() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    davit_client::docker::time(Some(&prost_types::Timestamp {
        seconds: now.as_secs().cast_signed(),
        nanos: now.subsec_nanos().cast_signed(),
    }))
}

#[test]
fn fifty_containers_are_found_again() {
    let (mut daemon, image) = prepared();
    for index in 0..50 {
        daemon
            .davit(&[
                "run",
                "-d",
                "--name",
                &format!("c{index}"),
                &image,
                "sleep",
                "1000",
            ])
            .ok();
    }
    let pids = |daemon: &Daemon| -> BTreeSet<String> {
        let ids = daemon.davit(&["ps", "-q"]).ok();
        let ids: Vec<&str> = ids.lines().collect();
        let mut args = vec!["inspect", "-f", "{{.State.Pid}}"];
        args.extend(ids);
        daemon
            .davit(&args)
            .ok()
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let before = pids(&daemon);
    assert_eq!(before.len(), 50);
    daemon.kill9();
    let begin = Instant::now();
    daemon.start_again();
    let took = begin.elapsed();
    assert_eq!(pids(&daemon), before);
    // A measurement for the log; the machine is too noisy for an assertion.
    eprintln!("50 containers were found again {took:?} after the daemon's exec");
}

#[test]
fn a_killed_shim_takes_its_container_along() {
    let (daemon, image) = prepared();
    daemon
        .davit(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .ok();
    let pid: i32 = inspect(&daemon, "c", ".State.Pid").parse().unwrap();
    let shim = parent(pid);
    nix::sys::signal::kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    eventually("the end to be known", || {
        inspect(&daemon, "c", ".State.Status") == "exited"
    });
    assert_eq!(inspect(&daemon, "c", ".State.ExitCode"), "255");
    assert!(!inspect(&daemon, "c", ".State.Error").is_empty());
    eventually("the process to be gone", || {
        !fs::exists(format!("/proc/{pid}")).unwrap_or(false)
    });
    daemon.davit(&["start", "c"]).ok();
    assert_eq!(inspect(&daemon, "c", ".State.Status"), "running");
}

#[test]
fn daemon_and_shim_killed_together() {
    let (mut daemon, image) = prepared();
    daemon
        .davit(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .ok();
    let pid: i32 = inspect(&daemon, "c", ".State.Pid").parse().unwrap();
    let shim = parent(pid);
    daemon.kill9();
    nix::sys::signal::kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    daemon.start_again();
    eventually("the end to be known", || {
        inspect(&daemon, "c", ".State.Status") == "exited"
    });
    assert_eq!(inspect(&daemon, "c", ".State.ExitCode"), "255");
    eventually("the process to be gone", || {
        !fs::exists(format!("/proc/{pid}")).unwrap_or(false)
    });
}

fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap();
    fields.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn after_a_reboot_containers_are_there_and_always_ones_start() {
    let (mut daemon, image) = prepared();
    daemon
        .davit(&["run", "-d", "--name", "plain", &image, "sleep", "1000"])
        .ok();
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "always",
            "--restart",
            "always",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "unless",
            "--restart",
            "unless-stopped",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    daemon
        .davit(&[
            "run",
            "-d",
            "--name",
            "stopped",
            "--restart",
            "unless-stopped",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    daemon.davit(&["stop", "-t", "0", "stopped"]).ok();
    daemon
        .davit(&["exec", "plain", "sh", "-c", "echo kept > /file"])
        .ok();
    let pids: Vec<i32> = ["plain", "always", "unless"]
        .iter()
        .map(|name| inspect(&daemon, name, ".State.Pid").parse().unwrap())
        .collect();
    daemon.kill9();
    // What a reboot does: every process is gone, and the state directory.
    for pid in pids {
        let shim = parent(pid);
        let _ = nix::sys::signal::kill(Pid::from_raw(shim), Signal::SIGKILL);
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    until("all processes to be gone", || {
        daemon.residue().processes.is_empty().then_some(())
    });
    // A reboot takes the mounts, too: the namespaces of the containers that ran, and there must be no others.
    let namespaces = daemon.state().join("netns");
    for mount in daemon.residue().mounts {
        assert!(
            std::path::Path::new(&mount).starts_with(&namespaces),
            "{mount}"
        );
        nix::mount::umount2(mount.as_str(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    fs::remove_dir_all(daemon.state()).unwrap();
    daemon.start_again();
    eventually("always to run", || {
        inspect(&daemon, "always", ".State.Status") == "running"
    });
    eventually("unless-stopped to run", || {
        inspect(&daemon, "unless", ".State.Status") == "running"
    });
    assert_eq!(inspect(&daemon, "stopped", ".State.Status"), "exited");
    assert_eq!(inspect(&daemon, "plain", ".State.Status"), "exited");
    assert_eq!(inspect(&daemon, "plain", ".State.ExitCode"), "255");
    daemon.davit(&["start", "plain"]).ok();
    assert_eq!(
        daemon.davit(&["exec", "plain", "cat", "/file"]).ok(),
        "kept"
    );
}

#[test]
fn a_graceful_stop_leaves_containers_running() {
    let (mut daemon, image) = prepared();
    daemon
        .davit(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .ok();
    let pid = inspect(&daemon, "c", ".State.Pid");
    daemon.stop();
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    daemon.start_again();
    assert_eq!(inspect(&daemon, "c", ".State.Pid"), pid);
}
