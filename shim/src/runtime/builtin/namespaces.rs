//! Which namespaces a container gets: new ones, made by the clone, and ones to join, opened beforehand.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxNamespaceType};

use crate::error::{Error, Kind, Result};

/// A plan made from `linux.namespaces`.
#[derive(Debug)]
pub(super) struct Namespaces {
    new: u64,
    join: Vec<(LinuxNamespaceType, OwnedFd)>,
}

impl Namespaces {
    /// Opens the namespaces that are given by path.
    ///
    /// # Errors
    /// A path that is not there, a kind given twice, or no mount namespace at all.
    pub(super) fn plan(linux: &Linux) -> Result<Namespaces> {
        let mut plan = Namespaces {
            new: 0,
            join: Vec::new(),
        };
        for namespace in linux.namespaces().as_deref().unwrap_or_default() {
            let kind = namespace.typ();
            if plan.has(kind) {
                return Err(invalid(format!("namespace {kind} is given twice")));
            }
            match namespace.path() {
                None => plan.new |= bit(kind),
                Some(path) => {
                    let fd = File::open(path).map_err(|e| {
                        invalid(format!("lstat {}: {}", path.display(), reason(&e)))
                    })?;
                    plan.join.push((kind, fd.into()));
                }
            }
        }
        if !plan.has(LinuxNamespaceType::Mount) {
            return Err(invalid(
                "a container without a mount namespace of its own is not supported",
            ));
        }
        Ok(plan)
    }

    /// New or joined.
    pub(super) fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.is_new(kind) || self.joins(kind)
    }

    pub(super) fn is_new(&self, kind: LinuxNamespaceType) -> bool {
        self.new & bit(kind) != 0
    }

    pub(super) fn joins(&self, kind: LinuxNamespaceType) -> bool {
        self.join.iter().any(|(k, _)| *k == kind)
    }

    /// For `clone`: all new ones but those that the process makes itself later. The cgroup namespace shows the cgroup
    /// that the process is in when it makes it, and the time namespace's clocks are set before anybody is inside.
    pub(super) fn clone_flags(&self) -> u64 {
        self.new & !bit(LinuxNamespaceType::Cgroup) & !bit(LinuxNamespaceType::Time)
    }

    /// Whether some have to be joined before the clone: a pid namespace takes in only children, and a user namespace
    /// has to be there before what it is to own.
    pub(super) fn needs_stage(&self) -> bool {
        self.joins(LinuxNamespaceType::Pid)
            || self.joins(LinuxNamespaceType::User)
            || self.is_new(LinuxNamespaceType::User) && !self.join.is_empty()
    }

    /// Joins those that are given by path. What belongs to the host has to be joined before the user namespace, what
    /// belongs to that one after it.
    pub(super) fn enter(&self) -> std::io::Result<()> {
        let mut postponed = Vec::new();
        let (user, others): (Vec<_>, Vec<_>) = self
            .join
            .iter()
            .partition(|(kind, _)| *kind == LinuxNamespaceType::User);
        for (kind, fd) in others {
            match nix::sched::setns(fd, CloneFlags::from_bits_retain(bit(*kind) as i32)) {
                Err(nix::errno::Errno::EPERM) if !user.is_empty() => postponed.push((kind, fd)),
                other => other?,
            }
        }
        for (_, fd) in user {
            nix::sched::setns(fd, CloneFlags::CLONE_NEWUSER)?;
        }
        for (kind, fd) in postponed {
            nix::sched::setns(fd, CloneFlags::from_bits_retain(bit(*kind) as i32))?;
        }
        Ok(())
    }

    pub(super) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        self.join.iter().map(|(_, fd)| fd.as_raw_fd())
    }
}

/// The namespaces of a running container that a further process joins, as flags for `setns` with a pidfd.
pub(super) fn flags_of(linux: &Linux) -> CloneFlags {
    let kinds = linux
        .namespaces()
        .as_deref()
        .unwrap_or_default()
        .iter()
        .map(|n| n.typ());
    let bits = kinds.map(bit).fold(0, |all, bit| all | bit);
    CloneFlags::from_bits_retain(bits as i32)
}

/// The `CLONE_NEW*` flag, which oci-spec's enum has as its value.
pub(super) fn bit(kind: LinuxNamespaceType) -> u64 {
    kind as u64
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

/// The system's words for an error, as the C library and Go print them: "no such file or directory".
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(json: &str) -> Linux {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn new_and_joined() {
        let plan = Namespaces::plan(&linux(
            r#"{"namespaces":[{"type":"mount"},{"type":"cgroup"},{"type":"network","path":"/proc/self/ns/net"}]}"#,
        ))
        .unwrap();
        assert_eq!(plan.clone_flags(), libc::CLONE_NEWNS as u64);
        assert!(plan.joins(LinuxNamespaceType::Network) && plan.is_new(LinuxNamespaceType::Cgroup));
        assert!(!plan.needs_stage());
    }

    #[test]
    fn refused() {
        for json in [
            r#"{"namespaces":[{"type":"pid"}]}"#,
            r#"{"namespaces":[{"type":"mount"},{"type":"mount"}]}"#,
            r#"{"namespaces":[{"type":"mount"},{"type":"network","path":"/nowhere"}]}"#,
        ] {
            assert!(Namespaces::plan(&linux(json)).is_err(), "{json}");
        }
    }
}
