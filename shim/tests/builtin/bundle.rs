//! A bundle with busybox in it, run by the built-in runtime or by runc.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::error::Result;
use crate::reaper::Reaper;
use crate::runtime::builtin::Builtin;
use crate::runtime::{CreateRequest, Created, ExecRequest, ProcessIo, RuntimeOptions};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A container that goes away with the value.
pub(crate) struct Bundle {
    pub(crate) id: String,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: Value,
}

/// How a process ended and what it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
}

impl Bundle {
    pub(crate) fn new(args: &[&str]) -> Bundle {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("davit-test-{}-{number}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        make_rootfs(&dir.path().join("rootfs"));
        let mut spec = default_spec(&id);
        spec["process"]["args"] = json!(args);
        Bundle { id, dir, spec }
    }

    /// Runs a line of shell.
    pub(crate) fn shell(line: &str) -> Bundle {
        Bundle::new(&["/bin/sh", "-c", line])
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Value)) -> Bundle {
        change(&mut self.spec);
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    pub(crate) fn write(&self) {
        std::fs::write(self.path().join("config.json"), self.spec.to_string()).unwrap();
    }

    pub(crate) fn runtime(&self) -> Builtin {
        let options = RuntimeOptions {
            runtime: String::new(),
            root: self.path().join("state"),
            systemd_cgroup: false,
            no_pivot_root: false,
            no_new_keyring: false,
            criu_work_path: None,
        };
        Builtin::new(options, Reaper::default())
    }

    pub(crate) fn cgroup(&self, controller: &str) -> PathBuf {
        let path = self.spec["linux"]["cgroupsPath"].as_str().unwrap();
        Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(path.trim_start_matches('/'))
    }

    /// Creates it with its output going to a pipe.
    pub(crate) fn create(&self, runtime: &Builtin) -> Result<(Created, OwnedFd)> {
        self.write();
        let (io, out) = piped();
        let request = CreateRequest {
            id: &self.id,
            bundle: self.path(),
            io,
            checkpoint: None,
            preserved: Vec::new(),
        };
        wait(runtime.create(request)).map(|created| (created, out))
    }

    /// Creates, starts, waits, reads, deletes.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let runtime = self.runtime();
        let (created, out) = self.create(&runtime)?;
        let started = wait(runtime.start(&self.id));
        let code = wait_for(created.pid);
        let out = read(out);
        wait(runtime.delete(&self.id, true)).unwrap();
        started.map(|()| Outcome { code, out })
    }

    pub(crate) fn exec(&self, runtime: &Builtin, process: &Value) -> Result<Outcome> {
        let (io, out) = piped();
        let json = process.to_string();
        let created = wait(runtime.exec(ExecRequest {
            id: &self.id,
            exec_id: "e",
            bundle: self.path(),
            process: json.as_bytes(),
            io,
        }))?;
        let code = wait_for(created.pid);
        Ok(Outcome {
            code,
            out: read(out),
        })
    }

    /// The same bundle by runc.
    pub(crate) fn run_by_runc(&self) -> Outcome {
        self.write();
        let output = Command::new("runc")
            .args([
                "--root",
                self.path().join("runc").to_str().unwrap(),
                "run",
                "--bundle",
            ])
            .arg(self.path())
            .arg(&self.id)
            .output()
            .unwrap();
        let mut out = String::from_utf8_lossy(&output.stdout).into_owned();
        out.push_str(&String::from_utf8_lossy(&output.stderr));
        Outcome {
            code: output.status.code().unwrap(),
            out,
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = wait(self.runtime().delete(&self.id, true));
    }
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// No input, and one pipe for both outputs.
pub(crate) fn piped() -> (ProcessIo, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdin = std::fs::File::open("/dev/null").unwrap().into();
    (
        ProcessIo::Fds {
            stdin,
            stdout: write.try_clone().unwrap(),
            stderr: write,
        },
        read,
    )
}

pub(crate) fn read(fd: OwnedFd) -> String {
    let mut text = Vec::new();
    // A terminal whose other end is closed answers EIO.
    let _ = std::fs::File::from(fd).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

pub(crate) fn wait_for(pid: i32) -> i32 {
    let pid = rustix::process::Pid::from_raw(pid);
    let (_, status) = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())
        .unwrap()
        .unwrap();
    status
        .exit_status()
        .unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
}

fn make_rootfs(root: &Path) {
    for directory in ["bin", "proc", "sys", "dev", "etc", "tmp", "root"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let applets = [
        "sh", "cat", "echo", "true", "false", "id", "ls", "sleep", "mount", "touch", "stat", "tty",
        "kill", "ps",
    ];
    for applet in applets.iter().chain(&[
        "hostname", "pwd", "env", "readlink", "grep", "mkdir", "rm", "ip", "dd", "wc", "chmod",
        "mknod", "umask", "head", "test", "nproc", "stty", "sort", "tr",
    ]) {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
}

/// What docker gives a container, in essence.
pub(crate) fn default_spec(id: &str) -> Value {
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": false
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}
        ],
        "linux": {
            "cgroupsPath": format!("/davit-test/{id}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/acpi", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// A further process, with what [`default_spec`] gives to the first.
pub(crate) fn process(args: &[&str]) -> Value {
    let mut process = default_spec("x")["process"].take();
    process["args"] = json!(args);
    process
}

/// Waits for a condition that takes a moment.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The cgroups above those of the tests.
pub(crate) fn remove_parents() {
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(entry.path().join("davit-test"));
    }
}
