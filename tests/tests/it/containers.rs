//! Containers: what the options mean, names, copies, refusals.

use std::fs;

use davit_tests::{Daemon, ImageSpec, Registry};
use serde_json::json;

fn with(config: serde_json::Value) -> (Daemon, String) {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(
        &registry,
        "busybox:latest",
        &ImageSpec {
            config,
            ..Default::default()
        },
    );
    (daemon, image)
}

fn busybox() -> (Daemon, String) {
    with(json!({"Cmd": ["sh"]}))
}

#[test]
fn command_and_entrypoint_follow_the_table() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = |tag: &str, config: serde_json::Value| {
        daemon.pull_busybox(
            &registry,
            &format!("table:{tag}"),
            &ImageSpec {
                config,
                ..Default::default()
            },
        )
    };
    let cmd = image("cmd", json!({"Cmd": ["echo", "c"]}));
    let both = image("both", json!({"Entrypoint": ["echo", "e"], "Cmd": ["c"]}));
    let shell = image(
        "shell",
        json!({"Cmd": ["/bin/sh", "-c", "echo shell form"]}),
    );
    let none = image("none", json!({}));
    let run = |args: &[&str]| {
        let mut all = vec!["run", "--rm"];
        all.extend(args);
        daemon.davit(&all)
    };
    assert_eq!(run(&[&cmd]).ok(), "c");
    assert_eq!(run(&[&cmd, "echo", "a"]).ok(), "a");
    assert_eq!(run(&[&both]).ok(), "e c");
    assert_eq!(run(&[&both, "a"]).ok(), "e a");
    assert_eq!(run(&["--entrypoint", "echo", &both]).ok(), "");
    assert_eq!(run(&["--entrypoint", "echo", &both, "a"]).ok(), "a");
    assert_eq!(
        run(&["--entrypoint", "", &both, "echo", "cleared"]).ok(),
        "cleared"
    );
    assert_eq!(run(&[&shell]).ok(), "shell form");
    let refused = run(&[&none]);
    assert_eq!(refused.code, 125);
    assert!(
        refused
            .stderr
            .to_lowercase()
            .contains("no command specified"),
        "{}",
        refused.stderr
    );
}

#[test]
fn options_reach_the_process() {
    let (daemon, image) = with(
        json!({"Cmd": ["sh"], "Env": ["FROM=image", "GONE=1"], "WorkingDir": "/tmp", "User": "app"}),
    );
    let run = |flags: &[&str], script: &str| {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend([image.as_str(), "sh", "-c", script]);
        daemon.davit(&args).ok()
    };
    assert_eq!(run(&[], "id -u; pwd; echo $FROM"), "1000\n/tmp\nimage");
    assert_eq!(
        run(
            &["-u", "0", "-w", "/etc", "-e", "FROM=flag"],
            "id -u; pwd; echo $FROM"
        ),
        "0\n/etc\nflag"
    );
    assert_eq!(run(&["-u", "nobody:extra"], "id -u; id -g"), "65534\n2000");
    assert_eq!(run(&["-u", "app"], "id -G"), "1000 2000");
    assert_eq!(run(&["-h", "box"], "hostname"), "box");
    assert_eq!(
        run(
            &["-u", "0", "--read-only"],
            "touch /x 2>/dev/null || echo refused"
        ),
        "refused"
    );
    assert_eq!(
        run(
            &["-u", "0", "--tmpfs", "/scratch:size=1m"],
            "touch /scratch/x && echo fine"
        ),
        "fine"
    );
    assert_eq!(run(&["--ulimit", "nofile=64:64"], "ulimit -n"), "64");
    assert_eq!(
        run(
            &[
                "-u",
                "0",
                "--sysctl",
                "net.ipv4.ip_forward=1",
                "--network",
                "none"
            ],
            "cat /proc/sys/net/ipv4/ip_forward"
        ),
        "1"
    );
    assert_eq!(
        run(
            &["--init", "-u", "0"],
            "cat /proc/1/comm | head -c 3; echo; ps | grep -c sh"
        )
        .lines()
        .count(),
        2
    );
    assert_eq!(
        run(
            &["--pid", "host"],
            "test $(ls -d /proc/[0-9]* | wc -l) -gt 5 && echo host"
        ),
        "host"
    );
    assert_eq!(run(&["--network", "none"], "ls /sys/class/net"), "lo");
    assert_eq!(
        run(
            &["--shm-size", "1m"],
            "df -k /dev/shm | tail -1 | awk '{print $2}'"
        ),
        "1024"
    );
    assert_eq!(
        run(
            &["--add-host", "somewhere:10.1.2.3"],
            "grep somewhere /etc/hosts | tr '\\t' ' '"
        ),
        "10.1.2.3 somewhere"
    );
}

#[test]
fn confinement_is_dockers_default() {
    let (daemon, image) = busybox();
    let run = |flags: &[&str], script: &str| {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend([image.as_str(), "sh", "-c", script]);
        daemon.davit(&args).ok()
    };
    let field = |flags: &[&str], name: &str| {
        run(
            flags,
            &format!("grep {name} /proc/self/status | tr -d '\\t' | cut -d: -f2"),
        )
    };
    assert_eq!(field(&[], "CapEff"), "00000000a80425fb");
    assert_eq!(field(&["--cap-drop", "ALL"], "CapEff"), "0000000000000000");
    assert_eq!(
        field(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "CapEff"),
        "0000000000001000"
    );
    assert_eq!(field(&[], "Seccomp:"), "2");
    assert_eq!(
        field(&["--security-opt", "seccomp=unconfined"], "Seccomp:"),
        "0"
    );
    assert_eq!(
        field(&["--security-opt", "no-new-privileges"], "NoNewPrivs"),
        "1"
    );
    assert_eq!(
        run(&[], "mount -t tmpfs x /tmp 2>/dev/null || echo refused"),
        "refused"
    );
    assert_eq!(
        run(&["--privileged"], "mount -t tmpfs x /tmp && echo done"),
        "done"
    );
    assert_eq!(
        run(&[], "cat /proc/kcore 2>/dev/null | head -c 1 | wc -c"),
        "0"
    );
    assert_eq!(
        run(
            &[],
            "echo 1 > /proc/sys/kernel/panic 2>/dev/null || echo refused"
        ),
        "refused"
    );
}

#[test]
fn binds_read_write_and_are_refused_clearly() {
    let (daemon, image) = busybox();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in"), "outside").unwrap();
    let source = dir.path().to_str().unwrap();
    let bind = format!("{source}:/data");
    assert_eq!(
        daemon
            .davit(&[
                "run",
                "--rm",
                "-v",
                &bind,
                &image,
                "sh",
                "-c",
                "cat /data/in; echo inside > /data/out"
            ])
            .ok(),
        "outside"
    );
    assert_eq!(
        fs::read_to_string(dir.path().join("out")).unwrap(),
        "inside\n"
    );
    let read_only = format!("type=bind,source={source},target=/data,readonly");
    assert_eq!(
        daemon
            .davit(&[
                "run",
                "--rm",
                "--mount",
                &read_only,
                &image,
                "sh",
                "-c",
                "touch /data/x 2>/dev/null || echo refused"
            ])
            .ok(),
        "refused"
    );
    let missing = daemon.davit(&[
        "run",
        "--rm",
        "--mount",
        "type=bind,source=/nonexistent/x,target=/data",
        &image,
        "true",
    ]);
    assert_eq!(missing.code, 125);
    assert!(
        missing
            .stderr
            .contains("bind source path does not exist: /nonexistent/x"),
        "{}",
        missing.stderr
    );
    let relative = daemon.davit(&[
        "run",
        "--rm",
        "--mount",
        &format!("type=bind,source={source},target=data"),
        &image,
        "true",
    ]);
    assert_eq!(relative.code, 125);
    davit_tests::eventually("everything to be removed", || {
        daemon.davit(&["ps", "-aq"]).ok().is_empty()
    });
}

#[test]
fn names_are_unique_and_ids_have_prefixes() {
    let (daemon, image) = busybox();
    let id = daemon
        .davit(&["create", "--name", "one", &image, "true"])
        .ok();
    assert_eq!(id.len(), 64);
    let conflict = daemon.davit(&["create", "--name", "one", &image, "true"]);
    assert_eq!(conflict.code, 125);
    assert!(
        conflict
            .stderr
            .contains("Conflict. The container name \"/one\" is already in use by container"),
        "{}",
        conflict.stderr
    );
    let get = |name: &str| daemon.davit(&["inspect", "-f", "{{.Id}}", name]);
    assert_eq!(get(&id[..6]).ok(), id);
    assert_eq!(get("/one").ok(), id);
    daemon.davit(&["rename", "one", "two"]).ok();
    assert_eq!(get("two").ok(), id);
    assert_eq!(get("one").code, 1);
    daemon
        .davit(&["create", "--name", "one", &image, "true"])
        .ok();
    let invalid = daemon.davit(&["create", "--name", "a b", &image, "true"]);
    assert!(
        invalid.stderr.contains("Invalid container name"),
        "{}",
        invalid.stderr
    );
    let missing = daemon.davit(&["start", "nobody"]);
    assert!(
        missing.stderr.contains("No such container: nobody"),
        "{}",
        missing.stderr
    );
}

#[test]
fn copies_go_both_ways_running_or_not() {
    let (daemon, image) = busybox();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(dir.path().join("tree/a"), "A").unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    daemon
        .davit(&["create", "--name", "c", &image, "sleep", "1000"])
        .ok();
    for running in [false, true] {
        if running {
            daemon.davit(&["start", "c"]).ok();
        }
        let tag = if running { "r" } else { "s" };
        daemon
            .davit(&["cp", &path("tree"), &format!("c:/{tag}")])
            .ok();
        daemon
            .davit(&["cp", &format!("c:/{tag}/a"), &path(&format!("out-{tag}"))])
            .ok();
        assert_eq!(
            fs::read_to_string(path(&format!("out-{tag}"))).unwrap(),
            "A"
        );
        daemon
            .davit(&["cp", "c:/etc", &path(&format!("etc-{tag}"))])
            .ok();
        assert!(fs::exists(path(&format!("etc-{tag}/passwd"))).unwrap());
    }
    assert_eq!(
        daemon.davit(&["exec", "c", "cat", "/s/a", "/r/a"]).ok(),
        "AA"
    );
    let missing = daemon.davit(&["cp", "c:/not/there", &path("x")]);
    assert!(
        missing
            .stderr
            .contains("Could not find the file /not/there in container"),
        "{}",
        missing.stderr
    );
    // A link that points out of the container stays in it.
    daemon
        .davit(&[
            "exec",
            "c",
            "ln",
            "-s",
            "/../../../../etc/hostname",
            "/trick",
        ])
        .ok();
    let trick = daemon.davit(&["cp", "-L", "c:/trick", &path("trick")]);
    if trick.code == 0 {
        let host = fs::read_to_string("/etc/hostname").unwrap_or_default();
        assert_ne!(fs::read_to_string(path("trick")).unwrap(), host);
    }
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let (daemon, image) = busybox();
    let refused = |flags: &[&str], text: &str| {
        let mut args = vec!["create"];
        args.extend(flags);
        args.extend([image.as_str(), "true"]);
        let output = daemon.davit(&args);
        assert_eq!(output.code, 125, "{flags:?}");
        assert!(output.stderr.contains(text), "{flags:?}: {}", output.stderr);
    };
    refused(&["--memory", "1m"], "Minimum memory limit allowed is 6MB");
    refused(&["--cpus", "1000"], "Range of CPUs is from 0.01 to");
    refused(&["--cap-add", "NOT_A_CAP"], "NOT_A_CAP");
    refused(&["--stop-signal", "SIGNOPE"], "SIGNOPE");
    refused(&["--restart", "sometimes"], "sometimes");
    refused(&["--runtime", "nope"], "nope");
    assert_eq!(daemon.davit(&["ps", "-aq"]).ok(), "");
}

#[test]
fn filters_and_formats_of_ps() {
    let (daemon, image) = busybox();
    daemon
        .davit(&[
            "run", "-d", "--name", "up", "-l", "tier=web", &image, "sleep", "1000",
        ])
        .ok();
    daemon.davit(&["run", "--name", "down", &image, "sh", "-c", "exit 4"]);
    let names = |args: &[&str]| {
        let mut all = vec!["ps", "--format", "{{.Names}}"];
        all.extend(args);
        daemon.davit(&all).ok()
    };
    assert_eq!(names(&[]), "up");
    assert_eq!(names(&["-a"]), "down\nup");
    assert_eq!(names(&["-a", "-f", "status=exited"]), "down");
    assert_eq!(names(&["-a", "-f", "exited=4"]), "down");
    assert_eq!(names(&["-f", "label=tier=web"]), "up");
    assert_eq!(names(&["-a", "-f", "name=do"]), "down");
    assert_eq!(daemon.davit(&["ps", "-a", "-f", "bogus=1"]).code, 1);
    let table = daemon
        .davit(&["ps", "--format", "table {{.Names}}\t{{.Image}}"])
        .ok();
    assert!(table.starts_with("NAMES   IMAGE"), "{table}");
    daemon.davit(&["container", "prune", "-f"]).ok();
    assert_eq!(names(&["-a"]), "up");
}

#[test]
fn many_clients_at_once_leave_nothing() {
    let (daemon, image) = busybox();
    std::thread::scope(|scope| {
        for client in 0..20 {
            let (daemon, image) = (&daemon, &image);
            scope.spawn(move || {
                for round in 0..5 {
                    let name = format!("c{client}-{round}");
                    daemon
                        .davit(&["create", "--name", &name, image, "sleep", "1000"])
                        .ok();
                    daemon.davit(&["start", &name]).ok();
                    daemon.davit(&["stop", "-t", "0", &name]).ok();
                    daemon.davit(&["rm", &name]).ok();
                }
            });
        }
    });
    assert_eq!(daemon.davit(&["ps", "-aq"]).ok(), "");
    let shims = || {
        daemon
            .residue()
            .processes
            .iter()
            .filter(|line| line.contains("shim"))
            .count()
    };
    davit_tests::eventually("all shims to be gone", || shims() == 0);
    let residue = daemon.residue();
    assert!(residue.mounts.is_empty(), "{:?}", residue.mounts);
    let fds = || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .unwrap()
            .count()
    };
    davit_tests::eventually("file descriptors to be closed", || fds() < 100);
}
