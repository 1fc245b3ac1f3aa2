//! Linux capabilities: docker's default set, what is added and dropped, and
//! what the daemon has to give.

use std::{collections::BTreeSet, fs, str::FromStr};

use davit_store::{Error, Result, options::ContainerOptions};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

/// All capabilities, in the order of their numbers (capabilities(7)).
pub(super) const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has when nobody says otherwise; docker's fourteen.
pub(super) const DEFAULT: &[&str] = &[
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
    "CAP_AUDIT_WRITE",
];

/// A container's capabilities: additions and removals applied, and cut down
/// to `available` (with a warning for what was asked for by name).
pub(super) fn of_container(
    options: &ContainerOptions,
    available: &BTreeSet<String>,
    warnings: &mut Vec<String>,
) -> Result<BTreeSet<String>> {
    let add = normalize("CapAdd", &options.cap_add)?;
    let drop = normalize("CapDrop", &options.cap_drop)?;
    if options.privileged {
        return Ok(available.clone());
    }
    for name in add
        .iter()
        .filter(|name| *name != "ALL" && !available.contains(*name))
    {
        warnings.push(format!(
            "The daemon does not have {name} itself. {name} discarded."
        ));
    }
    let mut set: BTreeSet<String> = if add.contains("ALL") {
        ALL.iter().map(|&name| name.to_owned()).collect()
    } else if drop.contains("ALL") {
        BTreeSet::new()
    } else {
        DEFAULT.iter().map(|&name| name.to_owned()).collect()
    };
    set.retain(|name| !drop.contains(name));
    set.extend(add.into_iter().filter(|name| name != "ALL"));
    set.retain(|name| available.contains(name));
    Ok(set)
}

/// The sets of a process. A user other than root starts without effective
/// ones, as execve(2) would leave it; file capabilities can still raise them
/// within the bounding set.
pub(super) fn of_process(set: &BTreeSet<String>, uid: u32) -> Result<LinuxCapabilities> {
    let names: Capabilities = set
        .iter()
        .map(|name| capability(name))
        .collect::<Result<_>>()?;
    let effective = if uid == 0 {
        names.clone()
    } else {
        Capabilities::new()
    };
    LinuxCapabilitiesBuilder::default()
        .bounding(names)
        .permitted(effective.clone())
        .effective(effective)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .map_err(|error| Error::internal("making the capability sets").with_source(error))
}

/// The capabilities that this process can give to a child.
pub(super) fn of_daemon() -> Result<BTreeSet<String>> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| Error::io("reading /proc/self/status", error))?;
    let bits = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0)
    };
    let mask = bits("CapBnd:") & bits("CapPrm:");
    Ok(ALL
        .iter()
        .enumerate()
        .filter(|(number, _)| mask >> number & 1 == 1)
        .map(|(_, &name)| name.to_owned())
        .collect())
}

fn capability(name: &str) -> Result<Capability> {
    let short = name.strip_prefix("CAP_").unwrap_or(name);
    Capability::from_str(short).map_err(|error| {
        Error::internal(format!("capability {name} is not known")).with_source(error)
    })
}

/// Upper case, with "CAP_", and known.
fn normalize(field: &str, names: &[String]) -> Result<BTreeSet<String>> {
    let mut set = BTreeSet::new();
    for name in names {
        let upper = name.trim().to_ascii_uppercase();
        let full = match upper.as_str() {
            "ALL" | "CAP_ALL" => "ALL".to_owned(),
            _ if upper.starts_with("CAP_") => upper,
            _ => format!("CAP_{upper}"),
        };
        if full != "ALL" && !ALL.contains(&full.as_str()) {
            return Err(Error::invalid(format!(
                "invalid {field}: unknown capability: \"{full}\""
            )));
        }
        set.insert(full);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(add: &[&str], drop: &[&str], privileged: bool) -> Result<BTreeSet<String>> {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let options = ContainerOptions {
            cap_add: list(add),
            cap_drop: list(drop),
            privileged,
            ..Default::default()
        };
        of_container(
            &options,
            &ALL.iter().map(|&name| name.to_owned()).collect(),
            &mut Vec::new(),
        )
    }

    #[test]
    fn additions_and_removals() {
        assert_eq!(get(&[], &[], false).unwrap().len(), 14);
        assert_eq!(
            get(&["sys_admin", "CAP_NET_ADMIN"], &[], false)
                .unwrap()
                .len(),
            16
        );
        assert_eq!(get(&[], &["ALL"], false).unwrap().len(), 0);
        assert_eq!(
            get(&["chown"], &["all"], false).unwrap(),
            ["CAP_CHOWN".to_owned()].into()
        );
        assert_eq!(
            get(&["ALL"], &["MKNOD"], false).unwrap().len(),
            ALL.len() - 1
        );
        assert_eq!(get(&["MKNOD"], &["MKNOD"], false).unwrap().len(), 14);
        assert_eq!(get(&[], &["ALL"], true).unwrap().len(), ALL.len());
    }

    #[test]
    fn unknown_ones_are_refused_in_dockers_words() {
        let error = get(&["FOO"], &[], false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid CapAdd: unknown capability: \"CAP_FOO\""
        );
        assert_eq!(
            get(&[], &["x"], true).unwrap_err().to_string(),
            "invalid CapDrop: unknown capability: \"CAP_X\""
        );
    }

    #[test]
    fn what_the_daemon_lacks_is_told() {
        let mut warnings = Vec::new();
        let available = ["CAP_CHOWN".to_owned()].into();
        let options = ContainerOptions {
            cap_add: vec!["SYS_RESOURCE".to_owned()],
            ..Default::default()
        };
        let set = of_container(&options, &available, &mut warnings).unwrap();
        assert_eq!(set, available);
        assert_eq!(
            warnings,
            ["The daemon does not have CAP_SYS_RESOURCE itself. CAP_SYS_RESOURCE discarded."]
        );
    }

    #[test]
    fn root_and_others() {
        let set: BTreeSet<String> = ALL.iter().map(|&name| name.to_owned()).collect();
        let root = of_process(&set, 0).unwrap();
        assert_eq!(root.effective().as_ref().unwrap().len(), ALL.len());
        let other = of_process(&set, 1000).unwrap();
        assert!(other.effective().as_ref().unwrap().is_empty());
        assert_eq!(other.bounding().as_ref().unwrap().len(), ALL.len());
    }
}
