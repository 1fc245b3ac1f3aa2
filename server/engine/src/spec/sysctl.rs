//! Kernel parameters: only those that belong to a namespace of the container.

use std::{collections::HashMap, path::Path};

use davit_store::{Error, Result, options::ContainerOptions};

use super::{NamespaceKind, Shared};

/// Parameters of the IPC namespace; those below `fs.mqueue.` are, too.
const OF_IPC: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// What docker sets in a network namespace of the container's own: ping and
/// low ports for every user.
const OF_OWN_NETWORK: &[(&str, &str)] = &[
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// Refuses parameters that would change the host.
pub(super) fn check(options: &ContainerOptions, shared: &Shared) -> Result<()> {
    for name in options.sysctls.keys() {
        // The kernel takes both separators; one spelling is compared.
        let name = name.replace('/', ".");
        let kind = if name.starts_with("net.") {
            NamespaceKind::Network
        } else if OF_IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
            NamespaceKind::Ipc
        } else if name == "kernel.domainname" {
            NamespaceKind::Uts
        } else {
            return Err(Error::invalid(format!(
                "sysctl '{name}' is not allowed: it does not belong to a namespace"
            )));
        };
        let part_is_odd = |part: &str| {
            part.is_empty()
                || !part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        };
        if name.split('.').any(part_is_odd) {
            return Err(Error::invalid(format!(
                "sysctl '{name}' is not allowed: it is no name of a parameter"
            )));
        }
        if shared.host.contains(&kind) {
            let text = match kind {
                NamespaceKind::Network => {
                    format!("sysctl \"{name}\" not allowed in host network namespace")
                }
                _ => format!(
                    "sysctl \"{name}\" is not allowed in the host's {} namespace",
                    kind.file_name()
                ),
            };
            return Err(Error::invalid(text));
        }
    }
    Ok(())
}

/// All parameters that the runtime sets.
pub(super) fn of_container(options: &ContainerOptions, shared: &Shared) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = options
        .sysctls
        .iter()
        .map(|(name, value)| (name.replace('/', "."), value.clone()))
        .collect();
    if shared.network.is_own() {
        for &(name, value) in OF_OWN_NETWORK {
            let exists = || Path::new("/proc/sys").join(name.replace('.', "/")).exists();
            if !all.contains_key(name) && exists() {
                all.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    if !options.domainname.is_empty() && shared.is_own(NamespaceKind::Uts) {
        all.insert("kernel.domainname".to_owned(), options.domainname.clone());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::CgroupMode;

    fn checked(name: &str, change: impl FnOnce(&mut ContainerOptions)) -> Result<ContainerOptions> {
        let mut options = ContainerOptions {
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        change(&mut options);
        check(&options, &Shared::parse(&options, CgroupMode::V2)?)?;
        Ok(options)
    }

    #[test]
    fn parameters_of_namespaces_pass() {
        for name in [
            "net.core.somaxconn",
            "kernel.shmmax",
            "fs.mqueue.msg_max",
            "net/ipv4/ip_forward",
        ] {
            checked(name, |_| {}).unwrap();
        }
    }

    #[test]
    fn others_do_not() {
        let text = |name: &str, change: fn(&mut ContainerOptions)| {
            checked(name, change).unwrap_err().to_string()
        };
        assert!(text("kernel.panic", |_| {}).starts_with("sysctl 'kernel.panic' is not allowed"));
        assert!(text("net.../../kernel/panic", |_| {}).contains("no name of a parameter"));
        assert_eq!(
            text("net.ipv4.ip_forward", |o| o.network_mode = "host".into()),
            "sysctl \"net.ipv4.ip_forward\" not allowed in host network namespace"
        );
        assert!(
            text("kernel.sem", |o| o.ipc_mode = "host".into()).contains("host's ipc namespace")
        );
    }

    #[test]
    fn own_networks_get_dockers_defaults() {
        let options = ContainerOptions {
            domainname: "d".to_owned(),
            ..Default::default()
        };
        let shared = Shared::parse(&options, CgroupMode::V2).unwrap();
        let all = of_container(&options, &shared);
        assert_eq!(
            all.get("net.ipv4.ip_unprivileged_port_start")
                .map(String::as_str),
            Some("0")
        );
        assert_eq!(all.get("kernel.domainname").map(String::as_str), Some("d"));
        let host = ContainerOptions {
            network_mode: "host".to_owned(),
            ..Default::default()
        };
        assert!(of_container(&host, &Shared::parse(&host, CgroupMode::V2).unwrap()).is_empty());
    }
}
