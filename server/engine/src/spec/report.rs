//! What a host can do, said for people and for `info`.

use super::{CgroupMode, HostFacts};

impl HostFacts {
    /// "1", "2" or "hybrid".
    pub fn cgroup_version(&self) -> &'static str {
        match self.cgroup.mode {
            CgroupMode::V1 => "1",
            CgroupMode::V2 => "2",
            CgroupMode::Hybrid => "hybrid",
        }
    }

    /// docker's names of the confinements that containers get.
    pub fn security_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.apparmor {
            options.push("name=apparmor".to_owned());
        }
        if self.seccomp {
            options.push("name=seccomp,profile=builtin".to_owned());
        }
        if self.selinux {
            options.push("name=selinux".to_owned());
        }
        if self.cgroup.mode == CgroupMode::V2 {
            options.push("name=cgroupns".to_owned());
        }
        options
    }

    /// Each kind of limit by davit's name, and whether it is enforced here.
    fn limit_kinds(&self) -> [(&'static str, bool); 10] {
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
            ("blkio-bps", cgroup.blkio_bps),
        ]
    }

    /// The limits that this host enforces.
    pub fn limits(&self) -> Vec<String> {
        let kinds = self.limit_kinds();
        kinds.iter().filter(|(_, there)| *there).map(|(name, _)| (*name).to_owned()).collect()
    }

    /// What containers may ask for and this host can't do.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self
            .limit_kinds()
            .iter()
            // Only v1 ever had it, and nobody misses it on v2.
            .filter(|(name, there)| !there && *name != "oom-kill-disable")
            .map(|(name, _)| format!("No {name} limit support"))
            .collect();
        if !self.seccomp {
            warnings.push("No seccomp support: containers run without a filter".to_owned());
        }
        if !self.may_raise_limits() {
            warnings.push(
                "davitd lacks CAP_SYS_RESOURCE: hard limits above its own and a lower oom_score_adj are ignored".to_owned(),
            );
        }
        warnings
    }
}
