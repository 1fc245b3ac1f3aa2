//! What an attacker inside would try.

use serde_json::json;

use crate::bundle::{Bundle, process, wait, wait_for};

crate::tests!(
    no_descriptors_leak,
    the_host_is_out_of_reach,
    exec_cannot_be_looked_into,
    keyring,
    fake_terminals
);

fn no_descriptors_leak() {
    let bundle = Bundle::new(&["sleep", "100"]);
    let secret = std::fs::File::open("/etc/shadow").unwrap();
    let inherited = rustix::io::dup(&secret).unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    let runtime = bundle.runtime();
    let (created, _out) = bundle.create(&runtime).unwrap();
    wait(runtime.start(&bundle.id)).unwrap();
    let open = |pid: i32| {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    };
    assert_eq!(open(created.pid), 3);
    let out = bundle
        .exec(&runtime, &process(&["sh", "-c", "ls /proc/$$/fd; true"]))
        .unwrap()
        .out;
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
    wait(runtime.delete(&bundle.id, true)).unwrap();
    wait_for(created.pid);
}

fn the_host_is_out_of_reach() {
    // The old root is gone, not only covered; and init's own root is the container's.
    let line = "ls /proc/1/root/; cat /proc/1/mountinfo | wc -l; ls /../../../../..";
    let out = Bundle::shell(line).run().unwrap().out;
    assert!(!out.contains("boot") && !out.contains("home"), "{out}");
    for path in [
        "/proc/self/fd/5",
        "/proc/self/cwd/../../../../etc/shadow",
        "/proc/1/exe",
    ] {
        let bundle = Bundle::new(&[path, "x"]);
        let outcome = bundle.run();
        assert!(
            outcome.is_err() || outcome.is_ok_and(|o| o.code != 0),
            "{path}"
        );
    }
}

/// A process on its way in is visible inside, and whoever was given CAP_SYS_PTRACE there may look into it, as into
/// all others. All it holds by then besides its stdio is its end of the channel to the shim, a socket, which /proc
/// cannot open: no file, directory or cgroup of the host.
fn exec_cannot_be_looked_into() {
    let watcher = "while true; do for p in /proc/[0-9]*; do test -r $p/fd/3 && ls -l $p/fd /proc/1/exe 2>/dev/null | grep -v -E '/(dev|proc)/|pipe:|busybox|total'; done; done";
    let bundle = Bundle::shell(watcher).with(|s| {
        s["process"]["capabilities"]["bounding"]
            .as_array_mut()
            .unwrap()
            .push(json!("CAP_SYS_PTRACE"));
    });
    let runtime = bundle.runtime();
    let (created, out) = bundle.create(&runtime).unwrap();
    wait(runtime.start(&bundle.id)).unwrap();
    for _ in 0..30 {
        assert_eq!(bundle.exec(&runtime, &process(&["true"])).unwrap().code, 0);
    }
    wait(runtime.delete(&bundle.id, true)).unwrap();
    wait_for(created.pid);
    let seen = crate::bundle::read(out);
    let of_the_host: Vec<&str> = seen
        .lines()
        .filter(|line| line.contains(" -> ") && !line.contains(" -> socket:["))
        .collect();
    assert!(of_the_host.is_empty(), "{of_the_host:#?}");
}

fn keyring() {
    // A container does not possess the keys of the session it was started from.
    let own = std::fs::read_to_string("/proc/keys").unwrap_or_default();
    let bundle = Bundle::shell("cat /proc/keys").with(|s| s["linux"]["maskedPaths"] = json!([]));
    let inside = bundle.run().unwrap().out;
    assert!(inside.is_empty() || inside != own, "{inside}");
}

/// Something that only looks like a terminal multiplexer must not get the shim's trust.
fn fake_terminals() {
    let bundle = Bundle::shell("sleep 100");
    let runtime = bundle.runtime();
    let (created, _out) = bundle.create(&runtime).unwrap();
    wait(runtime.start(&bundle.id)).unwrap();
    let swap = "mkdir /fake && touch /fake/ptmx; rm -f /dev/ptmx";
    bundle
        .exec(&runtime, &process(&["sh", "-c", swap]))
        .unwrap();
    // By the host, for the container may not mount.
    let pid = created.pid.to_string();
    let inside = [
        "-m",
        "-t",
        &pid,
        "/bin/busybox",
        "mount",
        "--bind",
        "/fake",
        "/dev/pts",
    ];
    assert!(
        std::process::Command::new("nsenter")
            .args(inside)
            .status()
            .unwrap()
            .success()
    );
    let mut process = process(&["true"]);
    process["terminal"] = json!(true);
    let json = process.to_string();
    let request = crate::runtime::ExecRequest {
        id: &bundle.id,
        exec_id: "e",
        bundle: bundle.path(),
        process: json.as_bytes(),
        io: crate::runtime::ProcessIo::Console,
    };
    let error = wait(runtime.exec(request)).unwrap_err();
    assert!(error.message.contains("terminal"), "{error}");
    wait(runtime.delete(&bundle.id, true)).unwrap();
    wait_for(created.pid);
}
