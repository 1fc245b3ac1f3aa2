//! A procfs of our own, attached nowhere: what is written to its files goes to the kernel, whatever the image or
//! another container has put on `/proc`.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Process};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::namespaces::{Namespaces, reason};
use crate::error::{Error, Kind, Result};

/// A detached procfs of the calling process's pid namespace.
#[derive(Debug)]
pub(super) struct Procfs(OwnedFd);

impl Procfs {
    pub(super) fn open() -> Result<Procfs> {
        let made = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
            fsconfig_create(&context)?;
            fsmount(
                &context,
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::empty(),
            )
        });
        made.map(Procfs)
            .map_err(|e| Error::because("a private procfs", reason(&e.into())))
    }

    pub(super) fn write(&self, path: &str, value: &str) -> rustix::io::Result<()> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat2(&self.0, path, flags, Mode::empty(), resolve)?;
        let written = rustix::io::write(file, value.as_bytes())?;
        if written == value.len() {
            Ok(())
        } else {
            Err(Errno::IO)
        }
    }
}

/// The paths below `sys/` and their values that `linux` asks for.
///
/// # Errors
/// A sysctl that is not namespaced, or whose namespace the container shares: it would change the host.
pub(super) fn sysctls(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(String, String)>> {
    let mut paths = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let name = normal(key);
        if name.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(invalid(format!("{key:?} is not the name of a sysctl")));
        }
        if let Some(missing) = needed(&name).filter(|kind| !namespaces.has(*kind)) {
            return Err(invalid(format!(
                "sysctl {key:?} is not allowed in the hosts {missing} namespace"
            )));
        }
        if needed(&name).is_none() {
            return Err(invalid(format!(
                "sysctl {key:?} is not in a separate kernel namespace"
            )));
        }
        paths.push((format!("sys/{name}"), value.clone()));
    }
    Ok(paths)
}

/// Which namespace a sysctl belongs to; `None` for the host as a whole.
fn needed(name: &str) -> Option<LinuxNamespaceType> {
    const IPC: [&str; 8] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    match name {
        name if IPC.contains(&name) || name.starts_with("fs/mqueue/") => {
            Some(LinuxNamespaceType::Ipc)
        }
        name if name.starts_with("net/") => Some(LinuxNamespaceType::Network),
        "kernel/domainname" | "kernel/hostname" => Some(LinuxNamespaceType::Uts),
        name if name.starts_with("user/") => Some(LinuxNamespaceType::User),
        _ => None,
    }
}

/// `a.b/c.d` and `a/b.c/d` are the two ways to write a name with a dot in it: the first separator tells.
fn normal(key: &str) -> String {
    let first = key.find(['.', '/']);
    if first.is_some_and(|at| key.as_bytes()[at] == b'/') {
        return key.to_owned();
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    key.chars().map(swap).collect()
}

/// Sets the labels that the process takes on when it executes its program.
///
/// # Errors
/// A profile that is not loaded.
pub(super) fn set_labels(process: &Process, host: &HostSecurity) -> Result<()> {
    let apparmor = process
        .apparmor_profile()
        .as_deref()
        .filter(|p| !p.is_empty() && host.apparmor);
    let selinux = process
        .selinux_label()
        .as_deref()
        .filter(|l| !l.is_empty() && host.selinux);
    if apparmor.is_none() && selinux.is_none() {
        return Ok(());
    }
    let procfs = Procfs::open()?;
    if let Some(profile) = apparmor {
        let value = format!("exec {profile}");
        let set = match procfs.write("thread-self/attr/apparmor/exec", &value) {
            Err(Errno::NOENT) => procfs.write("thread-self/attr/exec", &value),
            other => other,
        };
        set.map_err(|e| {
            Error::because(
                format!("unable to apply apparmor profile {profile:?}"),
                reason(&e.into()),
            )
        })?;
    }
    if let Some(label) = selinux {
        procfs.write("thread-self/attr/exec", label).map_err(|e| {
            Error::because(
                format!("unable to set SELinux label {label:?}"),
                reason(&e.into()),
            )
        })?;
    }
    Ok(())
}

/// Which security modules the host has.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostSecurity {
    pub(super) apparmor: bool,
    pub(super) selinux: bool,
}

impl HostSecurity {
    pub(super) fn detect() -> HostSecurity {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        HostSecurity {
            apparmor: enabled.is_ok_and(|text| text.starts_with('Y')),
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }

    /// What `process` wants and this host has not.
    pub(super) fn missing(&self, process: &Process) -> Vec<String> {
        let mut missing = Vec::new();
        let named = |name: &Option<String>| {
            name.as_deref()
                .is_some_and(|n| !matches!(n, "" | "unconfined"))
        };
        if named(process.apparmor_profile()) && !self.apparmor {
            missing
                .push("the AppArmor profile is not applied: this host has no AppArmor".to_owned());
        }
        if named(process.selinux_label()) && !self.selinux {
            missing.push("the SELinux label is not applied: this host has no SELinux".to_owned());
        }
        missing
    }
}

fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings() {
        assert_eq!(
            normal("net.ipv4.conf.eno2/100.forwarding"),
            "net/ipv4/conf/eno2.100/forwarding"
        );
        assert_eq!(
            normal("net/ipv4/conf/eno2.100/forwarding"),
            "net/ipv4/conf/eno2.100/forwarding"
        );
    }

    #[test]
    fn what_would_change_the_host_is_refused() {
        let plan = |names: &str| {
            let linux: Linux = serde_json::from_str(&format!(
                r#"{{"namespaces":[{{"type":"mount"}},{{"type":"network"}}],"sysctl":{{{names}}}}}"#
            ))
            .unwrap();
            sysctls(&linux, &Namespaces::plan(&linux).unwrap())
        };
        assert_eq!(
            plan(r#""net.core.somaxconn":"5""#).unwrap()[0].0,
            "sys/net/core/somaxconn"
        );
        for bad in [
            "kernel.core_pattern",
            "kernel.shmmax",
            "net.x../../..",
            "kernel.hostname",
            "vm.swappiness",
        ] {
            assert!(plan(&format!(r#""{bad}":"1""#)).is_err(), "{bad}");
        }
    }
}
