//! Built specs, run by real runtimes: what a container sees is what was asked
//! for.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use davit_store::options::{Device, Mount, Resources, Ulimit};

use super::*;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A bundle with busybox as root file system.
struct Bundle {
    dir: tempfile::TempDir,
    id: String,
    host: HostFacts,
    defaults: Defaults,
}

impl Bundle {
    fn new() -> Self {
        let id = format!(
            "davit-spec-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for sub in ["bin", "etc", "tmp", "sbin", "root"] {
            fs::create_dir_all(rootfs.join(sub)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for name in [
            "sh", "cat", "id", "hostname", "mount", "grep", "touch", "ls", "pwd", "ulimit",
            "unshare", "stat", "ps",
        ] {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n",
        )
        .unwrap();
        fs::write(
            rootfs.join("etc/group"),
            "root:x:0:\nbobs:x:1001:\naudio:x:29:bob\n",
        )
        .unwrap();
        let host = HostFacts::detect().unwrap();
        let defaults = Defaults {
            cgroup_parent: id.clone(),
            ..Default::default()
        };
        Self {
            dir,
            id,
            host,
            defaults,
        }
    }

    /// Builds the spec of a container that runs `script`, and runs it.
    fn run(
        &self,
        runtime: &str,
        script: &str,
        change: impl FnOnce(&mut ContainerOptions),
    ) -> (String, Built) {
        let mut options = ContainerOptions {
            args: Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec()),
            network_mode: "none".to_owned(),
            ..Default::default()
        };
        change(&mut options);
        let built = self.build(&options);
        let output = self.execute(runtime, &built);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(
            output.status.success(),
            "{runtime}: {}\n{}",
            text(&output.stderr),
            text(&output.stdout)
        );
        (text(&output.stdout), built)
    }

    fn build(&self, options: &ContainerOptions) -> Built {
        let image = ImageConfig {
            env: vec!["FROM=image".to_owned()],
            ..Default::default()
        };
        let inputs = Inputs {
            id: &self.id,
            options,
            image: &image,
            host: &self.host,
            defaults: &self.defaults,
        };
        let network = NetworkMode::parse(&options.network_mode).unwrap();
        let Plan {
            hostname, mounts, ..
        } = plan(&inputs).unwrap();
        let etc = etc::write(
            self.dir.path(),
            &hostname,
            options,
            &network,
            &etc::Connection::default(),
        )
        .unwrap();
        let start = Start {
            rootfs: &TreeView(File::open(self.dir.path().join("rootfs")).unwrap()),
            root_path: Path::new("rootfs"),
            etc: &etc,
            namespaces: &BTreeMap::new(),
            shm: None,
            mounts: &mounts,
            sources: &BTreeMap::new(),
        };
        build(&inputs, &start).unwrap()
    }

    fn execute(&self, runtime: &str, built: &Built) -> Output {
        fs::write(
            self.dir.path().join("config.json"),
            serde_json::to_vec(&built.spec).unwrap(),
        )
        .unwrap();
        // crun 1.8 refuses hybrid hosts whose v2 tree has controllers: here it
        // runs in a mount namespace of its own, which lacks that tree.
        let script = match (runtime, self.host.cgroup.mode) {
            ("crun", CgroupMode::Hybrid) => "umount /sys/fs/cgroup/unified; exec \"$@\"",
            _ => "exec \"$@\"",
        };
        Command::new("unshare")
            .args([
                "-m",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
                runtime,
            ])
            .arg("--root")
            .arg(self.dir.path().join("state"))
            .args(["run", "--bundle"])
            .arg(self.dir.path())
            .arg(&self.id)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // Runtimes remove the container's cgroup, but not our parent of it.
        for (_, mount) in &self.host.cgroup.mounts {
            let _ = fs::remove_dir(mount.join(&self.id));
        }
        for mount in ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"] {
            let _ = fs::remove_dir(Path::new(mount).join(&self.id));
        }
    }
}

const RUNTIMES: [&str; 2] = ["runc", "crun"];

#[test]
fn defaults() {
    for runtime in RUNTIMES {
        let bundle = Bundle::new();
        let script = "id; hostname; echo $FROM:$HOME:$PATH:$HOSTNAME; pwd; cat /etc/hostname; grep -c . /etc/hosts; \
            grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; \
            stat -f -c %s:%b /dev/shm; ls -A /proc/acpi; cat /proc/kcore | ls; touch /proc/sys/x; mount -t tmpfs x /tmp; unshare -m true; ls /dev";
        let (out, built) = bundle.run(runtime, &format!("({script}) 2>&1; true"), |_| {});
        let short = &bundle.id[..12];
        for line in [
            "uid=0(root) gid=0(root) groups=0(root)",
            short,
            &format!(
                "image:/root:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{short}"
            ),
            "CapBnd:\t00000000a80425fb",
            "NoNewPrivs:\t0",
            "Seccomp:\t2",
            "4096:16384",
            "mount: permission denied (are you root?)",
            "unshare: unshare(0x20000): Operation not permitted",
        ] {
            assert!(
                out.lines().any(|have| have == line),
                "{runtime}: no {line:?} in\n{out}"
            );
        }
        assert!(out.contains("touch: /proc/sys/x"), "{runtime}: {out}");
        assert!(built.warnings.is_empty());
    }
}

#[test]
fn users_and_directories() {
    for runtime in RUNTIMES {
        let bundle = Bundle::new();
        let (out, _) = bundle.run(
            runtime,
            "id; echo $HOME; pwd; grep CapEff /proc/self/status",
            |o| {
                o.user = "bob".to_owned();
                o.group_add = vec!["4711".to_owned()];
                o.working_dir = "/tmp/../tmp".to_owned();
                o.tmpfs = [("/tmp".to_owned(), "mode=1777".to_owned())].into();
            },
        );
        let expected = "uid=1000(bob) gid=1001(bobs) groups=29(audio),1001(bobs),4711\n/home/bob\n/tmp\nCapEff:\t0000000000000000";
        let sorted = out.replace(
            "groups=1001(bobs),29(audio),4711",
            "groups=29(audio),1001(bobs),4711",
        );
        assert_eq!(sorted, expected, "{runtime}");
    }
}

#[test]
fn mounts_and_devices() {
    for runtime in RUNTIMES {
        let bundle = Bundle::new();
        let source = bundle.dir.path().join("made/on/the/way");
        let script = "grep -E ' /(rw|ro|mem) ' /proc/mounts; touch /rw/file; touch /ro/file 2>&1; touch /file 2>&1; \
            ls -l /dev/xnull; echo x > /dev/xnull; stat -c %a /mem; cat /etc/hosts";
        let (out, _) = bundle.run(runtime, script, |o| {
            o.read_only = true;
            o.binds = vec![format!("{}:/rw", source.display())];
            o.mounts = vec![
                Mount {
                    kind: "bind".into(),
                    source: "/usr".into(),
                    target: "/ro".into(),
                    read_only: true,
                    ..Default::default()
                },
                Mount {
                    kind: "tmpfs".into(),
                    target: "/mem".into(),
                    tmpfs_size: 1 << 20,
                    tmpfs_mode: 0o750,
                    ..Default::default()
                },
            ];
            o.devices = vec![Device {
                host_path: "/dev/null".into(),
                container_path: "/dev/xnull".into(),
                permissions: "rw".into(),
            }];
            o.extra_hosts = vec!["db:10.0.0.7".to_owned()];
        });
        assert!(source.join("file").exists(), "{runtime}");
        for part in [
            "touch: /ro/file: Read-only file system",
            "touch: /file: Read-only file system",
            "size=1024k",
            "\n750\n",
            "10.0.0.7\tdb",
            "1,   3",
        ] {
            assert!(out.contains(part), "{runtime}: no {part:?} in\n{out}");
        }
    }
}

#[test]
fn limits_and_sysctls() {
    for runtime in RUNTIMES {
        let bundle = Bundle::new();
        let script = "cat /proc/self/cgroup; ulimit -n; ulimit -c; cat /proc/sys/net/core/somaxconn; hostname; cat /proc/sys/kernel/domainname; \
            cat /proc/self/oom_score_adj; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max \
            /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max 2>/dev/null; true";
        let (out, _) = bundle.run(runtime, script, |o| {
            o.resources = Resources {
                memory: 64 << 20,
                memory_swap: -1,
                pids_limit: 77,
                nano_cpus: 500_000_000,
                ..Default::default()
            };
            o.ulimits = vec![
                Ulimit {
                    name: "nofile".into(),
                    soft: 64,
                    hard: 128,
                },
                Ulimit {
                    name: "core".into(),
                    soft: 0,
                    hard: 0,
                },
            ];
            o.sysctls = [("net.core.somaxconn".to_owned(), "99".to_owned())].into();
            o.hostname = "h".to_owned();
            o.domainname = "d.example".to_owned();
            o.oom_score_adj = 500;
        });
        for line in [
            "64",
            "0",
            "99",
            "h",
            "d.example",
            "500",
            "67108864",
            "77",
            "50000",
        ] {
            let found = out
                .lines()
                .any(|have| have == line || have.starts_with(&format!("{line} ")));
            assert!(found, "{runtime}: no {line:?} in\n{out}");
        }
        assert!(
            out.contains(&format!("/{}/{}", bundle.id, bundle.id)),
            "{runtime}: {out}"
        );
    }
}

#[test]
fn privileges() {
    for runtime in RUNTIMES {
        let bundle = Bundle::new();
        let script = "grep -E 'Seccomp:|CapBnd' /proc/self/status; mount -t tmpfs x /tmp && echo mounted; ls /dev/loop-control /dev/kmsg; true";
        let (out, _) = bundle.run(runtime, script, |o| o.privileged = true);
        assert!(
            out.contains("Seccomp:\t0") && out.contains("mounted") && out.contains("/dev/kmsg"),
            "{runtime}: {out}"
        );
        let (out, _) = bundle.run(
            runtime,
            "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status",
            |o| {
                o.cap_drop = vec!["ALL".into()];
                o.cap_add = vec!["CHOWN".into()];
                o.security_opt = vec!["no-new-privileges".into(), "seccomp=unconfined".into()];
            },
        );
        assert_eq!(
            out, "CapBnd:\t0000000000000001\nNoNewPrivs:\t1\nSeccomp:\t0",
            "{runtime}"
        );
    }
}

#[test]
fn an_init_of_its_own() {
    for runtime in RUNTIMES {
        let mut bundle = Bundle::new();
        bundle.defaults.init = Some(crate::init::install(&bundle.dir.path().join("init")).unwrap());
        let (out, _) = bundle.run(runtime, "cat /proc/1/cmdline; echo; echo $$", |o| {
            o.init = true
        });
        assert!(
            out.starts_with("/sbin/docker-init\0--\0/bin/sh\0-c"),
            "{runtime}: {out}"
        );
        assert!(out.lines().last() != Some("1"), "{runtime}: {out}");
    }
}

#[test]
fn namespaces_of_the_host() {
    for runtime in RUNTIMES {
        let bundle = Bundle::new();
        let script = "for n in pid net uts ipc mnt; do readlink /proc/self/ns/$n || busybox readlink /proc/self/ns/$n; done; hostname";
        let (out, _) = bundle.run(runtime, script, |o| {
            o.pid_mode = "host".into();
            o.network_mode = "host".into();
            o.uts_mode = "host".into();
            o.ipc_mode = "host".into();
        });
        for name in ["pid", "net", "uts", "ipc"] {
            let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            assert!(
                out.contains(&own.to_string_lossy().into_owned()),
                "{runtime}: {name} in {out}"
            );
        }
        let mnt = fs::read_link(PathBuf::from("/proc/self/ns/mnt")).unwrap();
        assert!(!out.contains(&mnt.to_string_lossy().into_owned()));
        assert!(out.ends_with(&bundle.host.hostname));
    }
}
