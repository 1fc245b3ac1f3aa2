//! seccomp filters: davit's default, and profiles in docker's JSON form.

mod default_profile;
mod profile;

use std::collections::BTreeSet;

use davit_store::{Error, Result};
use oci_spec::runtime::LinuxSeccomp;

use super::{HostFacts, security::Seccomp};
use profile::Profile;

/// The filter of a container with these capabilities; `None` for none.
///
/// # Errors
/// `InvalidArgument` for a profile that is no profile.
pub(super) fn of_container(
    seccomp: &Seccomp,
    capabilities: &BTreeSet<String>,
    host: &HostFacts,
) -> Result<Option<LinuxSeccomp>> {
    match seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => default_profile::profile()
            .resolve(capabilities, host)
            .map(Some),
        Seccomp::Profile(json) => parse(json)?.resolve(capabilities, host).map(Some),
    }
}

/// Checks a caller's profile at Create, before anything is made.
pub(super) fn check(seccomp: &Seccomp, host: &HostFacts) -> Result<()> {
    match seccomp {
        Seccomp::Unconfined | Seccomp::Default => Ok(()),
        Seccomp::Profile(_) => of_container(seccomp, &BTreeSet::new(), host).map(drop),
    }
}

fn parse(json: &str) -> Result<Profile> {
    serde_json::from_str(json)
        .map_err(|error| Error::invalid(format!("Decoding seccomp profile failed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{capabilities, host::tests::able};
    use oci_spec::runtime::{LinuxSeccompAction, LinuxSyscall};

    fn default_for(caps: &[&str], change: impl FnOnce(&mut HostFacts)) -> LinuxSeccomp {
        let mut host = able();
        change(&mut host);
        let set = caps.iter().map(|&name| name.to_owned()).collect();
        of_container(&Seccomp::Default, &set, &host)
            .unwrap()
            .unwrap()
    }

    fn rules<'a>(filter: &'a LinuxSeccomp, name: &str) -> Vec<&'a LinuxSyscall> {
        let all = filter.syscalls().as_ref().unwrap();
        all.iter()
            .filter(|rule| rule.names().iter().any(|known| known == name))
            .collect()
    }

    #[test]
    fn the_default_allows_by_capability() {
        let plain = default_for(capabilities::DEFAULT, |_| {});
        assert_eq!(plain.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert_eq!(plain.default_errno_ret(), Some(1));
        for name in [
            "read",
            "openat",
            "execve",
            "chroot",
            "ptrace",
            "arch_prctl",
            "modify_ldt",
        ] {
            assert!(!rules(&plain, name).is_empty(), "{name}");
        }
        for name in [
            "mount",
            "setns",
            "bpf",
            "keexec_load",
            "io_uring_setup",
            "reboot",
            "s390_runtime_instr",
            "init_module",
        ] {
            assert!(rules(&plain, name).is_empty(), "{name}");
        }
        let clone = rules(&plain, "clone");
        assert_eq!(clone.len(), 1);
        assert_eq!(clone[0].args().as_ref().unwrap()[0].value(), 0x7E02_0000);
        assert_eq!(rules(&plain, "clone3")[0].errno_ret(), Some(38));

        let admin = default_for(&["CAP_SYS_ADMIN", "CAP_BPF"], |_| {});
        assert!(!rules(&admin, "mount").is_empty());
        assert!(rules(&admin, "chroot").is_empty());
        assert!(
            rules(&admin, "clone")
                .iter()
                .all(|rule| rule.args().is_none())
        );
        assert_eq!(
            rules(&admin, "clone3")[0].action(),
            LinuxSeccompAction::ScmpActAllow
        );
    }

    #[test]
    fn the_default_knows_architectures_and_kernels() {
        let arm = default_for(&[], |host| host.architecture = "arm64");
        assert!(rules(&arm, "arch_prctl").is_empty());
        assert!(!rules(&arm, "set_tls").is_empty());
        assert_eq!(arm.architectures().as_ref().unwrap().len(), 2);
        let old = default_for(&[], |host| host.kernel = (4, 7));
        assert!(rules(&old, "ptrace").is_empty());
    }

    #[test]
    fn dockers_json_is_read() {
        let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO","errnoRet":13,"args":null},
              {"names":["chmod","fchmod"],"action":"SCMP_ACT_KILL","args":[{"index":1,"value":7,"valueTwo":0,"op":"SCMP_CMP_EQ"}],
               "comment":"","includes":{},"excludes":{"caps":["CAP_FOWNER"]}}]}"#;
        let seccomp = Seccomp::Profile(json.to_owned());
        let filter = of_container(&seccomp, &BTreeSet::new(), &able())
            .unwrap()
            .unwrap();
        assert_eq!(rules(&filter, "mkdir")[0].errno_ret(), Some(13));
        assert_eq!(rules(&filter, "fchmod").len(), 1);
        let filter = of_container(&seccomp, &["CAP_FOWNER".to_owned()].into(), &able())
            .unwrap()
            .unwrap();
        assert!(rules(&filter, "fchmod").is_empty());
    }

    #[test]
    fn rubbish_is_refused() {
        let text = |json: &str| {
            check(&Seccomp::Profile(json.to_owned()), &able())
                .unwrap_err()
                .to_string()
        };
        assert!(text("/etc/passwd").starts_with("Decoding seccomp profile failed:"));
        assert!(
            text(r#"{"defaultAction":"SCMP_ACT_WHAT"}"#)
                .starts_with("Decoding seccomp profile failed:")
        );
        assert!(text(r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#)
            .contains("'architectures' and 'archMap' were specified"));
        assert!(text(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#)
            .contains("'name' and 'names' were specified"));
    }
}
