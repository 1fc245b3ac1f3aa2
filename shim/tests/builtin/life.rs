//! Create, start, exec, signals, pause, delete; and nothing is left.

use serde_json::json;

use crate::bundle::{Bundle, process, read, until, wait, wait_for};
use crate::error::Kind;
use crate::runtime::{CreateRequest, ExecRequest, ProcessIo, RuntimeState};

crate::tests!(
    exit_codes,
    output_and_environment,
    nothing_is_left,
    states,
    exec_joins,
    exec_exit_codes,
    terminal,
    exec_terminal,
    kill_and_all,
    pause,
    delete_refuses_running,
    delete_by_another_process,
    dead_shim_ends_waiting_init,
    ids_are_unique,
    many_threads,
    preserved_descriptors,
    fork_bomb_is_removed,
);

fn exit_codes() {
    for (args, code) in [
        (vec!["true"], 0),
        (vec!["/bin/false"], 1),
        (vec!["sh", "-c", "exit 42"], 42),
        (vec!["sh", "-c", "kill -TERM $$; sleep 0.1; exit 3"], 3),
        (vec!["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
    ] {
        assert_eq!(Bundle::new(&args).run().unwrap().code, code, "{args:?}");
    }
}

fn output_and_environment() {
    let line = "echo out; env | sort; pwd; hostname; umask";
    let bundle = Bundle::shell(line).with(|s| {
        s["process"]["env"] = json!(["PATH=/bin", "A=1", "A=2"]);
        s["process"]["cwd"] = json!("/made/here");
    });
    let outcome = bundle.run().unwrap();
    assert_eq!(outcome, bundle.run_by_runc());
    assert!(
        outcome.out.contains("HOME=/root") && outcome.out.contains("/made/here"),
        "{}",
        outcome.out
    );
}

fn nothing_is_left() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (mounts_before, descriptors_before) = (mounts(), descriptors());
    let bundle = Bundle::new(&["true"]);
    bundle.run().unwrap();
    let missing = Bundle::new(&["/missing"]);
    missing.run().unwrap_err();
    for bundle in [bundle, missing] {
        for controller in ["memory", "cpu", "pids", "devices", "unified", "systemd"] {
            assert!(!bundle.cgroup(controller).exists(), "{controller}");
        }
        assert!(!bundle.path().join("state").join(&bundle.id).exists());
    }
    assert_eq!(mounts(), mounts_before);
    assert_eq!(descriptors(), descriptors_before);
}

fn states() {
    let bundle = Bundle::new(&["sleep", "100"]);
    let runtime = bundle.runtime();
    assert_eq!(
        wait(runtime.state(&bundle.id)).unwrap_err().kind,
        Kind::NotFound
    );
    let (created, _out) = bundle.create(&runtime).unwrap();
    let pid = created.pid;
    assert_eq!(
        wait(runtime.state(&bundle.id)).unwrap(),
        RuntimeState::Created { pid }
    );
    // Not the user's program yet.
    assert_eq!(
        std::fs::read_link(format!("/proc/{pid}/exe")).unwrap(),
        std::env::current_exe().unwrap()
    );
    wait(runtime.start(&bundle.id)).unwrap();
    assert_eq!(
        std::fs::read_link(format!("/proc/{pid}/exe")).unwrap(),
        std::path::Path::new("/bin/busybox")
    );
    assert_eq!(
        wait(runtime.state(&bundle.id)).unwrap(),
        RuntimeState::Running { pid }
    );
    assert_eq!(
        wait(runtime.start(&bundle.id)).unwrap_err().kind,
        Kind::FailedPrecondition
    );
    assert_eq!(wait(runtime.ps(&bundle.id)).unwrap(), [pid]);
    wait(runtime.kill(&bundle.id, 9, false)).unwrap();
    assert_eq!(wait_for(pid), 137);
    assert_eq!(
        wait(runtime.state(&bundle.id)).unwrap(),
        RuntimeState::Stopped
    );
    assert_eq!(
        wait(runtime.kill(&bundle.id, 9, false)).unwrap_err().kind,
        Kind::NotFound
    );
    wait(runtime.delete(&bundle.id, false)).unwrap();
    assert_eq!(
        wait(runtime.delete(&bundle.id, false)).unwrap_err().kind,
        Kind::NotFound
    );
    wait(runtime.delete(&bundle.id, true)).unwrap();
}

/// Starts `sleep 100`, gives the runtime and init's pid.
fn sleeping(bundle: &Bundle) -> (crate::runtime::builtin::Builtin, i32, std::os::fd::OwnedFd) {
    let runtime = bundle.runtime();
    let (created, out) = bundle.create(&runtime).unwrap();
    wait(runtime.start(&bundle.id)).unwrap();
    (runtime, created.pid, out)
}

fn exec_joins() {
    let bundle = Bundle::new(&["sleep", "100"]);
    let (runtime, pid, _out) = sleeping(&bundle);
    let line = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; ps; cat /proc/self/cgroup | head -3";
    let outcome = bundle
        .exec(&runtime, &process(&["sh", "-c", line]))
        .unwrap();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let of_init = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert!(
            outcome.out.contains(of_init.to_str().unwrap()),
            "{name} {}",
            outcome.out
        );
    }
    assert!(outcome.out.contains("sleep 100"), "{}", outcome.out);
    // In the container's own cgroup, which its cgroup namespace shows as the root.
    assert!(
        outcome.out.lines().rev().take(3).all(|l| l.ends_with(":/")),
        "{}",
        outcome.out
    );
    wait(runtime.kill(&bundle.id, 9, false)).unwrap();
    wait_for(pid);
}

fn exec_exit_codes() {
    let bundle = Bundle::new(&["sleep", "100"]);
    let (runtime, pid, _out) = sleeping(&bundle);
    assert_eq!(
        bundle
            .exec(&runtime, &process(&["sh", "-c", "exit 7"]))
            .unwrap()
            .code,
        7
    );
    let user = bundle.exec(&runtime, &{
        let mut p = process(&["sh", "-c", "id -u; pwd; echo $X"]);
        p["user"] = json!({"uid": 1000, "gid": 1000});
        p["cwd"] = json!("/tmp");
        p["env"] = json!(["PATH=/bin", "X=y"]);
        p
    });
    assert_eq!(user.unwrap().out, "1000\n/tmp\ny\n");
    let missing = bundle.exec(&runtime, &process(&["nonsense"])).unwrap_err();
    assert!(
        missing
            .message
            .contains(r#"exec: "nonsense": executable file not found in $PATH"#),
        "{missing}"
    );
    wait(runtime.kill(&bundle.id, 9, false)).unwrap();
    wait_for(pid);
    let stopped = bundle.exec(&runtime, &process(&["true"])).unwrap_err();
    assert_eq!(stopped.message, "cannot exec in a stopped container");
}

fn terminal() {
    let bundle = Bundle::shell(
        "tty; test -t 0 && test -t 1 && test -t 2 && echo all; stty size; echo x > /dev/tty; echo y > /dev/console; stat -c %F /dev/console",
    );
    let bundle = bundle.with(|s| {
        s["process"]["terminal"] = json!(true);
        s["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    });
    bundle.write();
    let runtime = bundle.runtime();
    let request = CreateRequest {
        id: &bundle.id,
        bundle: bundle.path(),
        io: ProcessIo::Console,
        checkpoint: None,
        preserved: Vec::new(),
    };
    let created = wait(runtime.create(request)).unwrap();
    wait(runtime.start(&bundle.id)).unwrap();
    let out = read(created.console.unwrap());
    assert_eq!(wait_for(created.pid), 0, "{out}");
    assert_eq!(
        out,
        "/dev/pts/0\r\nall\r\n33 99\r\nx\r\ny\r\ncharacter special file\r\n"
    );
}

fn exec_terminal() {
    let bundle = Bundle::new(&["sleep", "100"]);
    let (runtime, pid, _out) = sleeping(&bundle);
    let mut process = process(&["sh", "-c", "tty; id -u; stat -c %u $(tty)"]);
    process["terminal"] = json!(true);
    process["user"] = json!({"uid": 1000, "gid": 1000});
    let json = process.to_string();
    let request = ExecRequest {
        id: &bundle.id,
        exec_id: "e",
        bundle: bundle.path(),
        process: json.as_bytes(),
        io: ProcessIo::Console,
    };
    let created = wait(runtime.exec(request)).unwrap();
    assert_eq!(
        read(created.console.unwrap()),
        "/dev/pts/0\r\n1000\r\n1000\r\n"
    );
    wait_for(created.pid);
    wait(runtime.kill(&bundle.id, 9, false)).unwrap();
    wait_for(pid);
}

fn kill_and_all() {
    let bundle = Bundle::shell("trap 'exit 9' TERM; sleep 100 & wait");
    let (runtime, pid, _out) = sleeping(&bundle);
    until("the shell has its child", || {
        wait(runtime.ps(&bundle.id)).unwrap().len() == 2
    });
    wait(runtime.kill(&bundle.id, 15, false)).unwrap();
    assert_eq!(wait_for(pid), 9);
    until("the kernel killed the rest of the pid namespace", || {
        wait(runtime.ps(&bundle.id)).unwrap().is_empty()
    });

    let shared = Bundle::shell("sleep 100 & sleep 101").with(|s| {
        let namespaces = s["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "pid");
    });
    let (runtime, pid, _out) = sleeping(&shared);
    until("all run", || {
        wait(runtime.ps(&shared.id)).unwrap().len() == 2
    });
    wait(runtime.kill(&shared.id, 9, true)).unwrap();
    assert_eq!(wait_for(pid), 137);
    until("all are gone", || {
        wait(runtime.ps(&shared.id)).unwrap().is_empty()
    });
}

fn pause() {
    let bundle = Bundle::shell("while true; do echo tick; sleep 0.01; done");
    let (runtime, pid, _out) = sleeping(&bundle);
    wait(runtime.pause(&bundle.id)).unwrap();
    assert_eq!(
        wait(runtime.state(&bundle.id)).unwrap(),
        RuntimeState::Paused { pid }
    );
    let error = bundle.exec(&runtime, &process(&["true"])).unwrap_err();
    assert_eq!(error.message, "cannot exec in a paused container");
    wait(runtime.resume(&bundle.id)).unwrap();
    assert_eq!(
        wait(runtime.state(&bundle.id)).unwrap(),
        RuntimeState::Running { pid }
    );
    wait(runtime.pause(&bundle.id)).unwrap();
    // SIGKILL works on the frozen too.
    wait(runtime.kill(&bundle.id, 9, false)).unwrap();
    assert_eq!(wait_for(pid), 137);
}

fn delete_refuses_running() {
    let bundle = Bundle::new(&["sleep", "100"]);
    let (runtime, pid, _out) = sleeping(&bundle);
    assert_eq!(
        wait(runtime.delete(&bundle.id, false)).unwrap_err().kind,
        Kind::FailedPrecondition
    );
    wait(runtime.delete(&bundle.id, true)).unwrap();
    assert_eq!(wait_for(pid), 137);
    assert!(!bundle.cgroup("memory").exists());
}

fn delete_by_another_process() {
    let bundle = Bundle::new(&["sleep", "100"]);
    let (runtime, pid, _out) = sleeping(&bundle);
    std::mem::forget(runtime);
    let other = bundle.runtime();
    assert_eq!(
        wait(other.state(&bundle.id)).unwrap(),
        RuntimeState::Running { pid }
    );
    wait(other.delete(&bundle.id, true)).unwrap();
    assert_eq!(wait_for(pid), 137);
    assert!(!bundle.cgroup("memory").exists() && !bundle.cgroup("unified").exists());
}

fn dead_shim_ends_waiting_init() {
    let bundle = Bundle::new(&["sleep", "100"]);
    let runtime = bundle.runtime();
    let (created, _out) = bundle.create(&runtime).unwrap();
    drop(runtime);
    assert_eq!(wait_for(created.pid), 1);
}

fn ids_are_unique() {
    let bundle = Bundle::new(&["sleep", "100"]);
    let (runtime, pid, _out) = sleeping(&bundle);
    assert_eq!(
        bundle.create(&runtime).unwrap_err().kind,
        Kind::AlreadyExists
    );
    assert_eq!(
        wait(runtime.ps(&bundle.id)).unwrap(),
        [pid],
        "the first one must not notice"
    );
    wait(runtime.delete(&bundle.id, true)).unwrap();
    wait_for(pid);
}

/// With another thread the clone goes by way of `fork`.
fn many_threads() {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    assert_eq!(Bundle::shell("echo $$").run().unwrap().out, "1\n");
    drop(stop);
    thread.join().unwrap().unwrap_err();
}

fn preserved_descriptors() {
    let bundle = Bundle::shell("cat <&3; cat <&4; ls /proc/self/fd | wc -l");
    bundle.write();
    let pipe = |text: &str| {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(&write, text.as_bytes()).unwrap();
        read
    };
    let (io, out) = crate::bundle::piped();
    let preserved = vec![pipe("three "), pipe("four\n")];
    let runtime = bundle.runtime();
    let request = CreateRequest {
        id: &bundle.id,
        bundle: bundle.path(),
        io,
        checkpoint: None,
        preserved,
    };
    let created = wait(runtime.create(request)).unwrap();
    wait(runtime.start(&bundle.id)).unwrap();
    assert_eq!(wait_for(created.pid), 0);
    // 0 to 4, and the directory itself.
    assert_eq!(read(out), "three four\n6\n");
}

fn fork_bomb_is_removed() {
    let bundle = Bundle::shell("f() { f & f & }; f; sleep 100").with(|s| {
        s["linux"]["resources"]["pids"] = json!({"limit": 50});
        let namespaces = s["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "pid");
    });
    let (runtime, pid, _out) = sleeping(&bundle);
    wait(runtime.delete(&bundle.id, true)).unwrap();
    wait_for(pid);
    assert!(!bundle.cgroup("pids").exists());
}
