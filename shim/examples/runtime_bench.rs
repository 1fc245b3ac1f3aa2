//! How long create, start, exit and delete of `true` take with the built-in runtime and with a runc-compatible binary,
//! on a bundle with Docker's usual mounts, namespaces and limits:
//!
//! ```text
//! cargo run --release -p davit-shim --example runtime_bench -- [rounds] [pause in ms] [runtime binary or none]
//! ```
//!
//! A pause between rounds matters: what waits for an RCU grace period is cheap in a tight loop and dear in real life.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used
)]

#[path = "../src/cgroup/mod.rs"]
mod cgroup;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/reaper.rs"]
mod reaper;
#[path = "../src/runtime/mod.rs"]
mod runtime;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use runtime::builtin::Builtin;
use runtime::{CreateRequest, ProcessIo, RuntimeOptions};

const PHASES: [&str; 5] = ["create", "start", "exit", "delete", "total"];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let rounds = args.next().and_then(|n| n.parse().ok()).unwrap_or(50usize);
    let pause = Duration::from_millis(args.next().and_then(|n| n.parse().ok()).unwrap_or(30));
    let other = args.next().unwrap_or_else(|| "runc".to_owned());
    let dir = tempfile::tempdir().unwrap();
    make_bundle(dir.path());

    let options = RuntimeOptions {
        runtime: String::new(),
        root: dir.path().join("state"),
        systemd_cgroup: false,
        no_pivot_root: false,
        no_new_keyring: false,
        criu_work_path: None,
    };
    let builtin = Builtin::new(options, reaper::Reaper::default());
    let mut times = Vec::new();
    for round in 0..rounds {
        std::thread::sleep(pause);
        times.push(once(&builtin, dir.path(), &format!("bench-{round}")).await);
    }
    report("built in", &times);

    if other == "none" {
        return remove_parents();
    }
    let mut times = Vec::new();
    for round in 0..rounds {
        std::thread::sleep(pause);
        times.push(by_binary(&other, dir.path(), &format!("bench-{round}")));
    }
    report(&other, &times);
    remove_parents();
}

/// The cgroups above those of the bench.
fn remove_parents() {
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(entry.path().join("davit-bench"));
    }
}

async fn once(runtime: &Builtin, bundle: &Path, id: &str) -> [Duration; 5] {
    let null = || std::fs::File::open("/dev/null").unwrap().into();
    let io = ProcessIo::Fds {
        stdin: null(),
        stdout: null(),
        stderr: null(),
    };
    let begin = Instant::now();
    let request = CreateRequest {
        id,
        bundle,
        io,
        checkpoint: None,
        preserved: Vec::new(),
    };
    let created = runtime.create(request).await.unwrap();
    let create = Instant::now();
    runtime.start(id).await.unwrap();
    let start = Instant::now();
    let pid = rustix::process::Pid::from_raw(created.pid);
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
    let exit = Instant::now();
    runtime.delete(id, false).await.unwrap();
    let end = Instant::now();
    [
        create - begin,
        start - create,
        exit - start,
        end - exit,
        end - begin,
    ]
}

fn by_binary(binary: &str, bundle: &Path, id: &str) -> [Duration; 5] {
    let call = |args: &[&str]| {
        let root = bundle.join("binary-state");
        let mut command = Command::new(binary);
        command
            .arg("--root")
            .arg(root)
            .args(args)
            .current_dir(bundle);
        assert!(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success(),
            "{args:?}"
        );
    };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let pid_file = bundle.join("pid");
    let begin = Instant::now();
    call(&["create", "--pid-file", pid_file.to_str().unwrap(), id]);
    let create = Instant::now();
    call(&["start", id]);
    let start = Instant::now();
    let pid = std::fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    rustix::process::waitpid(
        rustix::process::Pid::from_raw(pid),
        rustix::process::WaitOptions::empty(),
    )
    .unwrap();
    let exit = Instant::now();
    call(&["delete", id]);
    let end = Instant::now();
    [
        create - begin,
        start - create,
        exit - start,
        end - exit,
        end - begin,
    ]
}

fn report(name: &str, times: &[[Duration; 5]]) {
    print!("{name:>10}:");
    for (at, phase) in PHASES.iter().enumerate() {
        let mut one: Vec<Duration> = times.iter().map(|t| t[at]).collect();
        one.sort();
        print!(
            "  {phase} {:.2} ms",
            one[one.len() / 2].as_secs_f64() * 1000.0
        );
    }
    println!("  (medians of {})", times.len());
}

fn make_bundle(bundle: &Path) {
    let root = bundle.join("rootfs");
    for directory in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/true")).unwrap();
    std::fs::write(bundle.join("config.json"), include_str!("docker.json")).unwrap();
}
