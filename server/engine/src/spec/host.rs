//! What this host can do: looked up once, at the daemon's start.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use davit_images::tarball::Inflate;
use davit_store::{Error, Result};

use super::capabilities;

/// How the host's cgroups are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    /// One hierarchy a controller.
    V1,
    /// One hierarchy for all.
    V2,
    /// v1 controllers, and a v2 tree without controllers beside them.
    Hybrid,
}

/// What the host's cgroups offer, controller by controller and file by file:
/// hybrid hosts and small kernels lack some, and a limit that nobody enforces
/// must be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupFacts {
    /// Layout.
    pub mode: CgroupMode,
    /// memory limit.
    pub memory: bool,
    /// memory and swap together.
    pub swap: bool,
    /// soft memory limit.
    pub memory_reservation: bool,
    /// swappiness (v1).
    pub memory_swappiness: bool,
    /// switching the OOM killer off (v1).
    pub oom_kill_disable: bool,
    /// CPU weight.
    pub cpu_shares: bool,
    /// CPU period and quota.
    pub cpu_cfs: bool,
    /// real-time period and run time (v1).
    pub cpu_rt: bool,
    /// CPUs and memory nodes.
    pub cpuset: bool,
    /// number of processes.
    pub pids: bool,
    /// block I/O weight.
    pub blkio_weight: bool,
    /// block I/O weight on single devices.
    pub blkio_weight_device: bool,
    /// block I/O bytes a second.
    pub blkio_bps: bool,
    /// block I/O operations a second.
    pub blkio_iops: bool,
    /// freezing.
    pub freezer: bool,
    /// CPUs that containers may be given, "0-3".
    pub cpus: String,
    /// Memory nodes likewise.
    pub mems: String,
    /// Where each v1 controller is mounted; on v2 the one mount, as "".
    pub mounts: Vec<(String, PathBuf)>,
}

/// What this host can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// cgroups.
    pub cgroup: CgroupFacts,
    /// CPUs that the daemon may use.
    pub cpu_count: u32,
    /// Capabilities that the daemon can give away.
    pub capabilities: BTreeSet<String>,
    /// seccomp filters work.
    pub seccomp: bool,
    /// AppArmor is on.
    pub apparmor: bool,
    /// SELinux is on.
    pub selinux: bool,
    /// Kernel version, major and minor.
    pub kernel: (u32, u32),
    /// Host name.
    pub hostname: String,
    /// Architecture in Go's names.
    pub architecture: &'static str,
    /// Whether the kernel may run programs of the x32 ABI (only ever on amd64).
    pub x32: bool,
    /// The daemon's own oom_score_adj: without CAP_SYS_RESOURCE nothing may go
    /// below it.
    pub oom_score_adj: i32,
}

impl HostFacts {
    /// Looks at this host. Reads a few dozen small files of /proc and /sys.
    ///
    /// # Errors
    /// When /proc can't be read or no cgroup is mounted.
    pub fn detect() -> Result<Self> {
        let release = nix::sys::utsname::uname()
            .map_err(|error| Error::io("asking for the kernel's version", error))?;
        let affinity = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))
            .map_err(|error| Error::io("asking for the daemon's CPUs", error))?;
        let cpus = (0..nix::sched::CpuSet::count())
            .filter(|&cpu| affinity.is_set(cpu).unwrap_or(false))
            .count();
        Ok(Self {
            cgroup: CgroupFacts::detect()?,
            cpu_count: u32::try_from(cpus).unwrap_or(u32::MAX).max(1),
            capabilities: capabilities::of_daemon()?,
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            apparmor: first_char("/sys/module/apparmor/parameters/enabled") == Some('Y'),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            kernel: kernel_version(&release.release().to_string_lossy()),
            hostname: release.nodename().to_string_lossy().into_owned(),
            architecture: go_architecture(),
            x32: kernel_runs_x32(&release.release().to_string_lossy()),
            oom_score_adj: text("/proc/self/oom_score_adj").parse().unwrap_or(0),
        })
    }

    /// Whether the kernel is at least `major.minor`.
    pub fn kernel_at_least(&self, major: u32, minor: u32) -> bool {
        self.kernel >= (major, minor)
    }

    /// Whether the daemon may raise hard limits and lower oom_score_adj.
    pub fn may_raise_limits(&self) -> bool {
        self.capabilities.contains("CAP_SYS_RESOURCE")
    }
}

impl CgroupFacts {
    fn detect() -> Result<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| Error::io("reading /proc/self/mountinfo", error))?;
        let found = Mounts::parse(&mountinfo);
        match (found.v1.is_empty(), found.v2) {
            (true, Some(root)) => Ok(Self::of_v2(root)),
            (false, v2) => {
                let mode = if v2.is_some() {
                    CgroupMode::Hybrid
                } else {
                    CgroupMode::V1
                };
                Ok(Self::of_v1(mode, found.v1))
            }
            (true, None) => Err(Error::precondition(
                "no cgroup file system is mounted: mount one on /sys/fs/cgroup",
            )),
        }
    }

    fn of_v1(mode: CgroupMode, mounts: Vec<(String, PathBuf)>) -> Self {
        let dir = |controller: &str| {
            mounts
                .iter()
                .find(|(name, _)| name == controller)
                .map(|(_, path)| path)
        };
        let has = |controller: &str, file: &str| {
            dir(controller).is_some_and(|dir| dir.join(file).exists())
        };
        let read = |controller: &str, file: &str| {
            dir(controller)
                .map(|dir| text(dir.join(file)))
                .unwrap_or_default()
        };
        Self {
            mode,
            memory: has("memory", "memory.limit_in_bytes"),
            swap: has("memory", "memory.memsw.limit_in_bytes"),
            memory_reservation: has("memory", "memory.soft_limit_in_bytes"),
            memory_swappiness: has("memory", "memory.swappiness"),
            oom_kill_disable: has("memory", "memory.oom_control"),
            cpu_shares: has("cpu", "cpu.shares"),
            cpu_cfs: has("cpu", "cpu.cfs_quota_us"),
            cpu_rt: has("cpu", "cpu.rt_runtime_us"),
            cpuset: has("cpuset", "cpuset.cpus"),
            pids: dir("pids").is_some(),
            blkio_weight: has("blkio", "blkio.weight") || has("blkio", "blkio.bfq.weight"),
            blkio_weight_device: has("blkio", "blkio.weight_device")
                || has("blkio", "blkio.bfq.weight_device"),
            blkio_bps: has("blkio", "blkio.throttle.read_bps_device"),
            blkio_iops: has("blkio", "blkio.throttle.read_iops_device"),
            freezer: dir("freezer").is_some(),
            cpus: read("cpuset", "cpuset.cpus"),
            mems: read("cpuset", "cpuset.mems"),
            mounts,
        }
    }

    fn of_v2(root: PathBuf) -> Self {
        let controllers = text(root.join("cgroup.controllers"));
        let has = |name: &str| {
            controllers
                .split_whitespace()
                .any(|controller| controller == name)
        };
        // The root cgroup has no memory.swap.max; whether the kernel counts
        // swap shows in any cgroup below, and without one in /proc/swaps' file.
        let swap = has("memory")
            && (own_v2_file(&root, "memory.swap.max") || Path::new("/proc/swaps").exists());
        Self {
            mode: CgroupMode::V2,
            memory: has("memory"),
            swap,
            memory_reservation: has("memory"),
            memory_swappiness: false,
            oom_kill_disable: false,
            cpu_shares: has("cpu"),
            cpu_cfs: has("cpu"),
            cpu_rt: false,
            cpuset: has("cpuset"),
            pids: has("pids"),
            blkio_weight: has("io"),
            blkio_weight_device: has("io"),
            blkio_bps: has("io"),
            blkio_iops: has("io"),
            freezer: true,
            cpus: text(root.join("cpuset.cpus.effective")),
            mems: text(root.join("cpuset.mems.effective")),
            mounts: vec![(String::new(), root)],
        }
    }
}

fn own_v2_file(root: &Path, name: &str) -> bool {
    let own = text("/proc/self/cgroup");
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    root.join(path).join(name).exists()
}

/// The cgroup mounts in a mountinfo file (proc(5)).
#[derive(Default)]
struct Mounts {
    v1: Vec<(String, PathBuf)>,
    v2: Option<PathBuf>,
}

impl Mounts {
    fn parse(mountinfo: &str) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.lines() {
            let Some((mount, source)) = line.split_once(" - ") else {
                continue;
            };
            let Some(place) = mount.split(' ').nth(4) else {
                continue;
            };
            let place = PathBuf::from(super::mounts::unescape(place));
            let mut source = source.split(' ');
            match source.next() {
                Some("cgroup2") if mounts.v2.is_none() => mounts.v2 = Some(place),
                Some("cgroup") => {
                    let options = source.nth(1).unwrap_or_default().split(',');
                    for name in options.filter(|name| {
                        !name.contains('=') && !matches!(*name, "rw" | "ro" | "xattr" | "noprefix")
                    }) {
                        if !mounts.v1.iter().any(|(known, _)| known == name) {
                            mounts.v1.push((name.to_owned(), place.clone()));
                        }
                    }
                }
                _ => {}
            }
        }
        mounts
    }
}

fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether the kernel may run programs of the x32 ABI: not when its configuration, where it can be read, says that
/// they were left out, as most distributions do.
fn kernel_runs_x32(release: &str) -> bool {
    let read = |path: &str| -> std::io::Result<String> {
        let file = std::io::BufReader::new(fs::File::open(path)?);
        std::io::read_to_string(Inflate::new(file)?)
    };
    read("/proc/config.gz")
        .or_else(|_| read(&format!("/boot/config-{release}")))
        .map_or(true, |config| {
            config.lines().any(|line| line == "CONFIG_X86_X32_ABI=y")
        })
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn first_char(path: &str) -> Option<char> {
    text(path).chars().next()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A host that can do everything, with two CPUs.
    pub(in super::super) fn able() -> HostFacts {
        HostFacts {
            cgroup: CgroupFacts {
                mode: CgroupMode::V1,
                memory: true,
                swap: true,
                memory_reservation: true,
                memory_swappiness: true,
                oom_kill_disable: true,
                cpu_shares: true,
                cpu_cfs: true,
                cpu_rt: true,
                cpuset: true,
                pids: true,
                blkio_weight: true,
                blkio_weight_device: true,
                blkio_bps: true,
                blkio_iops: true,
                freezer: true,
                cpus: "0-1".to_owned(),
                mems: "0".to_owned(),
                mounts: Vec::new(),
            },
            cpu_count: 2,
            capabilities: capabilities::ALL
                .iter()
                .map(|&name| name.to_owned())
                .collect(),
            seccomp: true,
            apparmor: false,
            selinux: false,
            kernel: (6, 1),
            hostname: "host".to_owned(),
            architecture: "amd64",
            x32: true,
            oom_score_adj: 0,
        }
    }

    /// A host that can limit nothing.
    pub(in super::super) fn unable() -> HostFacts {
        let mut facts = able();
        facts.cgroup = CgroupFacts {
            memory: false,
            swap: false,
            memory_reservation: false,
            memory_swappiness: false,
            oom_kill_disable: false,
            cpu_shares: false,
            cpu_cfs: false,
            cpu_rt: false,
            cpuset: false,
            pids: false,
            blkio_weight: false,
            blkio_weight_device: false,
            blkio_bps: false,
            blkio_iops: false,
            ..facts.cgroup
        };
        facts
    }

    #[test]
    fn this_host_is_understood() {
        let facts = HostFacts::detect().unwrap();
        assert!(facts.cpu_count >= 1);
        assert!(facts.kernel_at_least(3, 10));
        assert!(!facts.cgroup.mounts.is_empty());
        assert!(
            facts.capabilities.contains("CAP_SYS_ADMIN"),
            "tests run as root"
        );
    }

    #[test]
    fn layouts_are_told_apart() {
        let v1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        let v2 = "41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\n";
        let mounts = Mounts::parse(v1);
        let names: Vec<&str> = mounts.v1.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["memory", "cpu", "cpuacct"]);
        assert!(mounts.v2.is_none());
        assert_eq!(
            Mounts::parse(v2).v2.unwrap(),
            Path::new("/sys/fs/cgroup/uni fied")
        );
    }

    #[test]
    fn versions() {
        assert_eq!(kernel_version("6.18.44-fc-v669"), (6, 18));
        assert_eq!(kernel_version("5.10"), (5, 10));
        assert_eq!(kernel_version("odd"), (0, 0));
    }
}
