//! Under a real containerd, with its own directories, beside any other on the machine.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rig::{busybox, shim, until};
use tempfile::TempDir;

/// The daemon to test with; another version may be named.
fn program() -> String {
    std::env::var("DAVIT_TEST_CONTAINERD").unwrap_or_else(|_| "containerd".to_owned())
}

/// A private containerd, started and stopped by the test.
struct Containerd {
    directory: TempDir,
    process: Option<Child>,
}

impl Containerd {
    async fn start() -> Option<Containerd> {
        if Command::new(program()).arg("--version").output().is_err() {
            eprintln!("skipped: there is no containerd here");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("dctrd").tempdir().unwrap();
        busybox(&directory.path().join("image"));
        let bin = directory.path().join("bin");
        fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(shim(), bin.join("containerd-shim-davit-v2")).unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \
             \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.devmapper\", \
             \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("c.sock"),
            path("c.sock.ttrpc")
        );
        fs::write(directory.path().join("config.toml"), config).unwrap();
        let mut containerd = Containerd {
            directory,
            process: None,
        };
        containerd.run().await;
        Some(containerd)
    }

    async fn run(&mut self) {
        let path = format!(
            "{}:{}",
            self.file("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.file("log"))
            .unwrap();
        let process = Command::new(program())
            .arg("--config")
            .arg(self.file("config.toml"))
            .env("PATH", path)
            .env(
                "DAVIT_RUNTIME",
                std::env::var("DAVIT_TEST_RUNTIME").unwrap_or_else(|_| "runc".into()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        until("containerd answers", || {
            self.ctr(&["version"]).status.success()
        })
        .await;
    }

    /// kill -9.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn ctr(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// A command to be run by somebody who wants more than its output.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        // Runtimes' state and cgroups are shared by all containerds of a machine: a namespace keeps them apart.
        let namespace = self.directory.path().file_name().unwrap();
        command
            .arg("-a")
            .arg(self.file("c.sock"))
            .arg("-n")
            .arg(namespace)
            .args(args);
        command
    }

    fn run_args<'a>(
        &'a self,
        image: &'a str,
        flags: &[&'a str],
        id: &'a str,
        args: &[&'a str],
    ) -> Vec<&'a str> {
        let mut all = vec![
            "run",
            "--runtime",
            "io.containerd.davit.v2",
            "--env",
            "PATH=/bin",
        ];
        all.extend(flags);
        all.extend(["--rootfs", image, id]);
        all.extend(args);
        all
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "containerd: {}",
                fs::read_to_string(self.file("log")).unwrap_or_default()
            );
        }
        let list = self.ctr(&["tasks", "ls", "-q"]);
        for id in String::from_utf8_lossy(&list.stdout).lines() {
            self.ctr(&["tasks", "rm", "-f", id]);
        }
        self.kill();
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The shims of this containerd, by their command lines.
fn shims(directory: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("serve") && line.contains(directory.to_str().unwrap()) {
            found.push(pid);
        }
    }
    found
}

#[tokio::test]
async fn run_and_remove() {
    let Some(containerd) = Containerd::start().await else {
        return;
    };
    let image = containerd.file("image").to_str().unwrap().to_owned();
    let mut events = containerd
        .command(&["events"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The subscription is there when an event of our own comes through.
    let output = containerd.ctr(&containerd.run_args(
        &image,
        &["--rm"],
        "one",
        &["sh", "-c", "echo hello; exit 3"],
    ));
    assert!(text(&output).contains("hello"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(3));
    let output =
        containerd.ctr(&containerd.run_args(&image, &["--rm"], "two", &["no-such-program"]));
    assert!(
        text(&output).contains("executable file not found in $PATH"),
        "{}",
        text(&output)
    );
    assert!(!output.status.success());
    let output = containerd.ctr(&containerd.run_args(&image, &["--rm"], "two", &["true"]));
    assert!(output.status.success(), "{}", text(&output));
    until("all shims have gone", || {
        shims(containerd.directory.path()).is_empty()
    })
    .await;
    events.kill().unwrap();
    let heard = events.wait_with_output().unwrap();
    let heard = String::from_utf8_lossy(&heard.stdout).into_owned();
    let topics: Vec<_> = heard
        .lines()
        .filter(|line| line.contains("\"two\""))
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with("/tasks/"))
        })
        .collect();
    assert_eq!(
        topics,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exit",
            "/tasks/delete"
        ],
        "{heard}"
    );
}

#[tokio::test]
async fn exec_kill_pause_and_metrics() {
    let Some(containerd) = Containerd::start().await else {
        return;
    };
    let image = containerd.file("image").to_str().unwrap().to_owned();
    let output = containerd.ctr(&containerd.run_args(&image, &["-d"], "web", &["sleep", "1000"]));
    assert!(output.status.success(), "{}", text(&output));
    let output = containerd.ctr(&["tasks", "exec", "--exec-id", "e1", "web", "echo", "inside"]);
    assert_eq!(text(&output).trim(), "inside");
    let output = containerd.ctr(&["tasks", "ps", "web"]);
    assert!(text(&output).lines().count() >= 2, "{}", text(&output));
    let output = containerd.ctr(&["tasks", "metrics", "web"]);
    assert!(
        text(&output).contains("memory.usage_in_bytes"),
        "{}",
        text(&output)
    );
    for verb in ["pause", "resume"] {
        let output = containerd.ctr(&["tasks", verb, "web"]);
        assert!(output.status.success(), "{}", text(&output));
    }
    assert!(
        containerd
            .ctr(&["tasks", "kill", "-s", "SIGKILL", "web"])
            .status
            .success()
    );
    until("it has stopped", || {
        text(&containerd.ctr(&["tasks", "ls"])).contains("STOPPED")
    })
    .await;
    let output = containerd.ctr(&["tasks", "rm", "web"]);
    assert!(text(&output).contains("137"), "{}", text(&output));
    until("the shim has gone", || {
        shims(containerd.directory.path()).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_restarted_containerd_finds_its_container() {
    let Some(mut containerd) = Containerd::start().await else {
        return;
    };
    let image = containerd.file("image").to_str().unwrap().to_owned();
    let output = containerd.ctr(&containerd.run_args(&image, &["-d"], "web", &["sleep", "1000"]));
    assert!(output.status.success(), "{}", text(&output));
    let before = text(&containerd.ctr(&["tasks", "ls"]));
    containerd.kill();
    tokio::time::sleep(Duration::from_millis(50)).await;
    containerd.run().await;
    assert_eq!(text(&containerd.ctr(&["tasks", "ls"])), before);
    let output = containerd.ctr(&[
        "tasks",
        "exec",
        "--exec-id",
        "e1",
        "web",
        "echo",
        "still here",
    ]);
    assert_eq!(text(&output).trim(), "still here");
    // One that ends while containerd is away is found stopped, with its code.
    let line = before.lines().find(|line| line.starts_with("web")).unwrap();
    let pid = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    containerd.kill();
    davit_sys::process::kill(pid, 9).unwrap();
    containerd.run().await;
    let after = text(&containerd.ctr(&["tasks", "ls"]));
    assert!(after.contains("STOPPED"), "{after}");
    let output = containerd.ctr(&["tasks", "rm", "web"]);
    assert!(text(&output).contains("137"), "{}", text(&output));
    until("the shim has gone", || {
        shims(containerd.directory.path()).is_empty()
    })
    .await;
}
