//! What `info` tells of the host: which limits are enforced, and what is not
//! there.

use crate::spec::{CgroupMode, HostFacts};

impl HostFacts {
    /// "1", "2" or "hybrid".
    pub fn cgroup_version(&self) -> &'static str {
        match self.cgroup.mode {
            CgroupMode::V1 => "1",
            CgroupMode::V2 => "2",
            CgroupMode::Hybrid => "hybrid",
        }
    }

    /// Each limit that a container may ask for, and whether it is enforced.
    fn limit_facts(&self) -> [(&'static str, bool); 10] {
        let cgroup = &self.cgroup;
        [
            ("memory", cgroup.memory),
            ("swap", cgroup.swap),
            ("memory-reservation", cgroup.memory_reservation),
            ("oom-kill-disable", cgroup.oom_kill_disable),
            ("cpu-shares", cgroup.cpu_shares),
            ("cpu-quota", cgroup.cpu_cfs),
            ("cpuset", cgroup.cpuset),
            ("pids", cgroup.pids),
            ("blkio-weight", cgroup.blkio_weight),
            ("blkio-throttle", cgroup.blkio_bps && cgroup.blkio_iops),
        ]
    }

    /// Limits that this host enforces.
    pub fn limits(&self) -> Vec<String> {
        self.limit_facts()
            .into_iter()
            .filter(|(_, here)| *here)
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// What this host can't do and a container may ask for.
    pub fn warnings(&self) -> Vec<String> {
        self.limit_facts()
            .into_iter()
            .filter(|(name, here)| {
                // cgroup v2 has no switch for the OOM killer: not a lack.
                let lacks = *name != "oom-kill-disable" || self.cgroup.mode != CgroupMode::V2;
                !*here && lacks
            })
            .map(|(name, _)| format!("WARNING: No {name} limit support"))
            .collect()
    }

    /// Confinement that containers get, as docker lists it.
    pub fn security_options(&self) -> Vec<String> {
        let options = [
            (self.seccomp, "name=seccomp,profile=builtin"),
            (self.apparmor, "name=apparmor"),
            (self.selinux, "name=selinux"),
            (true, "name=cgroupns"),
        ];
        options
            .into_iter()
            .filter(|(here, _)| *here)
            .map(|(_, name)| name.to_owned())
            .collect()
    }
}
