//! Security options: seccomp, AppArmor, SELinux, no-new-privileges, and the
//! paths of /proc and /sys that are hidden or read-only.

use davit_store::{Error, Result, options::ContainerOptions};

use super::HostFacts;

/// What a container must not see; docker's list.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What a container must not write; docker's list.
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Which seccomp filter a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Seccomp {
    /// davit's own.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in docker's JSON.
    Profile(String),
}

/// The security options, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) seccomp: Seccomp,
    pub(super) no_new_privileges: bool,
    /// AppArmor profile; empty for none.
    pub(super) apparmor: String,
    /// SELinux label of the process; empty for none.
    pub(super) selinux_process: String,
    /// SELinux label of its files; empty for none.
    pub(super) selinux_mount: String,
    pub(super) masked: Vec<String>,
    pub(super) read_only: Vec<String>,
}

impl Security {
    /// Reads `security_opt` and what goes with it.
    ///
    /// # Errors
    /// `InvalidArgument` in docker's words.
    pub(super) fn parse(
        options: &ContainerOptions,
        host: &HostFacts,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let mut security = Self::default();
        let mut labels = Vec::new();
        let mut system_paths_unconfined = options.privileged;
        if options.privileged {
            security.seccomp = Seccomp::Unconfined;
        }
        for option in &options.security_opt {
            match split(option)? {
                ("no-new-privileges", value) => {
                    security.no_new_privileges = boolean(option, value)?
                }
                ("label", value) => labels.push(value.to_owned()),
                ("apparmor", value) => security.set_apparmor(value, host, warnings),
                ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
                ("seccomp", "" | "builtin" | "default") => security.seccomp = Seccomp::Default,
                ("seccomp", profile) => security.seccomp = Seccomp::Profile(profile.to_owned()),
                ("systempaths", "unconfined") => system_paths_unconfined = true,
                _ => {
                    return Err(Error::invalid(format!(
                        "invalid --security-opt 2: {option:?}"
                    )));
                }
            }
        }
        security.check_seccomp(host, warnings)?;
        security.set_labels(&labels, host, warnings)?;
        let default = |list: &[&str]| {
            if system_paths_unconfined {
                Vec::new()
            } else {
                list.iter().map(|&path| path.to_owned()).collect()
            }
        };
        security.masked = options
            .masked_paths
            .clone()
            .unwrap_or_else(|| default(MASKED));
        security.read_only = options
            .readonly_paths
            .clone()
            .unwrap_or_else(|| default(READ_ONLY));
        Ok(security)
    }

    fn set_apparmor(&mut self, profile: &str, host: &HostFacts, warnings: &mut Vec<String>) {
        match profile {
            "unconfined" => self.apparmor.clear(),
            _ if host.apparmor => self.apparmor = profile.to_owned(),
            _ => warnings.push(format!(
                "AppArmor is not enabled on this host. Profile {profile} discarded."
            )),
        }
    }

    fn check_seccomp(&mut self, host: &HostFacts, warnings: &mut Vec<String>) -> Result<()> {
        match self.seccomp {
            Seccomp::Profile(_) if !host.seccomp => Err(Error::invalid(
                "seccomp is not enabled in your kernel, cannot run a custom seccomp profile",
            )),
            Seccomp::Default if !host.seccomp => {
                warnings.push("Seccomp is not enabled in your kernel. The container runs without a default seccomp profile.".to_owned());
                self.seccomp = Seccomp::Unconfined;
                Ok(())
            }
            Seccomp::Profile(_) | Seccomp::Default | Seccomp::Unconfined => Ok(()),
        }
    }

    /// SELinux labels: "disable", "user:U", "role:R", "type:T", "level:L",
    /// "filetype:T".
    fn set_labels(
        &mut self,
        labels: &[String],
        host: &HostFacts,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let mut parts = [
            ("user", "system_u"),
            ("role", "system_r"),
            ("type", "container_t"),
            ("level", "s0"),
            ("filetype", "container_file_t"),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        let mut disabled = labels.is_empty();
        for label in labels {
            if label == "disable" {
                disabled = true;
                continue;
            }
            let (name, value) = label.split_once(':').unwrap_or((label, ""));
            let Some(part) = parts
                .iter_mut()
                .find(|(known, _)| *known == name)
                .filter(|_| !value.is_empty())
            else {
                return Err(Error::invalid(format!(
                    "bad label option {label:?}, valid options 'disable' or \n'user, role, level, type, filetype' followed by ':' and a value"
                )));
            };
            part.1 = value.to_owned();
            disabled = false;
        }
        if disabled {
            return Ok(());
        }
        if !host.selinux {
            warnings.push(format!(
                "SELinux is not enabled on this host. Label {} discarded.",
                labels.join(",")
            ));
            return Ok(());
        }
        let [user, role, typ, level, file] = parts.map(|(_, value)| value);
        self.selinux_process = format!("{user}:{role}:{typ}:{level}");
        self.selinux_mount = format!("{user}:object_r:{file}:{level}");
        Ok(())
    }
}

/// "name=value"; the old "name:value"; or a bare word.
fn split(option: &str) -> Result<(&str, &str)> {
    match option {
        "no-new-privileges" => Ok(("no-new-privileges", "true")),
        "disable" => Ok(("label", "disable")),
        _ => option
            .split_once('=')
            .or_else(|| option.split_once(':'))
            .ok_or_else(|| Error::invalid(format!("invalid --security-opt 1: {option:?}"))),
    }
}

fn boolean(option: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!(
            "invalid --security-opt 2: {option:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::host::tests::able;

    fn parse(list: &[&str], privileged: bool) -> Result<(Security, Vec<String>)> {
        let options = ContainerOptions {
            security_opt: list.iter().map(|&option| option.to_owned()).collect(),
            privileged,
            ..Default::default()
        };
        let mut warnings = Vec::new();
        Ok((Security::parse(&options, &able(), &mut warnings)?, warnings))
    }

    #[test]
    fn defaults_confine() {
        let (security, _) = parse(&[], false).unwrap();
        assert_eq!(security.seccomp, Seccomp::Default);
        assert!(!security.no_new_privileges);
        assert!(security.masked.contains(&"/proc/kcore".to_owned()));
        assert!(security.read_only.contains(&"/proc/sys".to_owned()));
        let (security, _) = parse(&[], true).unwrap();
        assert_eq!(security.seccomp, Seccomp::Unconfined);
        assert!(security.masked.is_empty() && security.read_only.is_empty());
    }

    #[test]
    fn options_in_all_spellings() {
        for option in [
            "no-new-privileges",
            "no-new-privileges=true",
            "no-new-privileges:1",
        ] {
            assert!(parse(&[option], false).unwrap().0.no_new_privileges);
        }
        assert!(
            !parse(&["no-new-privileges=false"], false)
                .unwrap()
                .0
                .no_new_privileges
        );
        assert!(
            parse(&["systempaths=unconfined"], false)
                .unwrap()
                .0
                .masked
                .is_empty()
        );
        assert_eq!(
            parse(&["seccomp=unconfined"], false).unwrap().0.seccomp,
            Seccomp::Unconfined
        );
        let (security, _) = parse(&["seccomp={\"a\":1}"], true).unwrap();
        assert_eq!(security.seccomp, Seccomp::Profile("{\"a\":1}".to_owned()));
        let options = ContainerOptions {
            masked_paths: Some(vec!["/x".to_owned()]),
            ..Default::default()
        };
        assert_eq!(
            Security::parse(&options, &able(), &mut Vec::new())
                .unwrap()
                .masked,
            ["/x"]
        );
    }

    #[test]
    fn what_the_host_lacks_is_told() {
        assert_eq!(
            parse(&["apparmor=x"], false).unwrap().1,
            ["AppArmor is not enabled on this host. Profile x discarded."]
        );
        assert_eq!(parse(&["label=type:x_t"], false).unwrap().1.len(), 1);
        assert!(
            parse(&["apparmor=unconfined", "label=disable"], false)
                .unwrap()
                .1
                .is_empty()
        );
        let mut host = able();
        host.selinux = true;
        host.seccomp = false;
        let options = ContainerOptions {
            security_opt: vec!["label=type:x_t".to_owned(), "label=level:s0:c1".to_owned()],
            ..Default::default()
        };
        let mut warnings = Vec::new();
        let security = Security::parse(&options, &host, &mut warnings).unwrap();
        assert_eq!(security.selinux_process, "system_u:system_r:x_t:s0:c1");
        assert_eq!(security.seccomp, Seccomp::Unconfined);
        assert_eq!(warnings.len(), 1);
        let options = ContainerOptions {
            security_opt: vec!["seccomp={}".to_owned()],
            ..Default::default()
        };
        assert!(Security::parse(&options, &host, &mut warnings).is_err());
    }

    #[test]
    fn refusals_in_dockers_words() {
        let text = |option: &str| parse(&[option], false).unwrap_err().to_string();
        assert_eq!(text("bogus"), "invalid --security-opt 1: \"bogus\"");
        assert_eq!(text("bogus=1"), "invalid --security-opt 2: \"bogus=1\"");
        assert_eq!(
            text("no-new-privileges=maybe"),
            "invalid --security-opt 2: \"no-new-privileges=maybe\""
        );
        assert!(text("label=odd").starts_with("bad label option"));
    }
}
