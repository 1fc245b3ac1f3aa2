//! Which namespaces a container gets of its own, shares with the host, or
//! takes from another container.

use std::{collections::BTreeMap, path::PathBuf};

use davit_store::{Error, Result, options::ContainerOptions};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType};

use super::host::CgroupMode;

/// A namespace that can come from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceKind {
    /// Processes.
    Pid,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Network.
    Network,
    /// Host name.
    Uts,
    /// The view of cgroups.
    Cgroup,
}

impl NamespaceKind {
    /// Name of the file below `/proc/<pid>/ns`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Network => "net",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
        }
    }
}

/// How a container is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// A namespace with nothing but a loopback interface.
    None,
    /// The host's namespace.
    Host,
    /// That of another container.
    Container(String),
    /// A network, by name; "" is the default one.
    Named(String),
}

impl NetworkMode {
    /// Reads `network_mode`.
    ///
    /// # Errors
    /// `InvalidArgument` for "container:" without a container.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "host" => Self::Host,
            "none" => Self::None,
            "" | "default" => Self::Named(String::new()),
            _ => match text.strip_prefix("container:") {
                Some("") => {
                    return Err(Error::invalid(
                        "invalid container format container:<name|id>",
                    ));
                }
                Some(container) => Self::Container(container.to_owned()),
                None => Self::Named(text.to_owned()),
            },
        })
    }

    /// The namespace is the container's own (so its sysctls may be set).
    pub fn is_own(&self) -> bool {
        match self {
            Self::None | Self::Named(_) => true,
            Self::Host | Self::Container(_) => false,
        }
    }
}

/// Namespaces that are not the container's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Namespaces of the host.
    pub host: Vec<NamespaceKind>,
    /// Namespaces of other containers, by whatever names them. They must run
    /// when this one starts; an IPC namespace's owner must be "shareable".
    pub containers: BTreeMap<NamespaceKind, String>,
    /// How it is connected.
    pub network: NetworkMode,
    /// Others may join its IPC namespace (`ipc_mode` "shareable").
    pub shareable_ipc: bool,
    /// It has no /dev/shm at all (`ipc_mode` "none").
    pub no_shm: bool,
}

impl Shared {
    /// Reads the modes.
    ///
    /// # Errors
    /// `InvalidArgument` in docker's words for modes that do not exist.
    pub fn parse(options: &ContainerOptions, cgroup: CgroupMode) -> Result<Self> {
        let mut shared = Self {
            host: Vec::new(),
            containers: BTreeMap::new(),
            network: NetworkMode::parse(&options.network_mode)?,
            shareable_ipc: options.ipc_mode == "shareable",
            no_shm: options.ipc_mode == "none",
        };
        match shared.network.clone() {
            NetworkMode::Host => shared.host.push(NamespaceKind::Network),
            NetworkMode::Container(of) => {
                shared.containers.insert(NamespaceKind::Network, of);
            }
            NetworkMode::None | NetworkMode::Named(_) => {}
        }
        shared.add(
            NamespaceKind::Pid,
            "PID",
            &options.pid_mode,
            &["", "private"],
        )?;
        shared.add(
            NamespaceKind::Ipc,
            "IPC",
            &options.ipc_mode,
            &["", "private", "shareable", "none"],
        )?;
        if options.uts_mode.starts_with("container:") {
            return Err(Error::invalid(format!(
                "invalid UTS mode: {}",
                options.uts_mode
            )));
        }
        shared.add(NamespaceKind::Uts, "UTS", &options.uts_mode, &[""])?;
        if !matches!(options.userns_mode.as_str(), "" | "host") {
            return Err(Error::invalid(format!(
                "invalid userns mode: {}",
                options.userns_mode
            )));
        }
        shared.add_cgroup(options, cgroup)?;
        Ok(shared)
    }

    /// Whether the container has a namespace of `kind` to itself.
    pub fn is_own(&self, kind: NamespaceKind) -> bool {
        !self.host.contains(&kind) && !self.containers.contains_key(&kind)
    }

    fn add(&mut self, kind: NamespaceKind, word: &str, mode: &str, own: &[&str]) -> Result<()> {
        if mode == "host" {
            self.host.push(kind);
        } else if let Some(container) = mode
            .strip_prefix("container:")
            .filter(|name| !name.is_empty())
        {
            self.containers.insert(kind, container.to_owned());
        } else if !own.contains(&mode) {
            return Err(Error::invalid(format!("invalid {word} mode: {mode}")));
        }
        Ok(())
    }

    /// On cgroup v2 a container sees its own tree only; on v1, where old
    /// programs expect the host's paths, only when asked for. A privileged
    /// container manages the host's tree.
    fn add_cgroup(&mut self, options: &ContainerOptions, cgroup: CgroupMode) -> Result<()> {
        let own = match options.cgroupns_mode.as_str() {
            "host" => false,
            "private" => true,
            "" => cgroup == CgroupMode::V2 && !options.privileged,
            other => {
                return Err(Error::invalid(format!(
                    "invalid cgroup namespace mode: {other}"
                )));
            }
        };
        if !own {
            self.host.push(NamespaceKind::Cgroup);
        }
        Ok(())
    }

    /// The namespaces for the spec; `joined` are the paths of those that are
    /// entered instead of made.
    pub(super) fn to_spec(
        &self,
        joined: &BTreeMap<NamespaceKind, PathBuf>,
    ) -> Result<Vec<LinuxNamespace>> {
        let kinds = [
            (NamespaceKind::Pid, LinuxNamespaceType::Pid),
            (NamespaceKind::Ipc, LinuxNamespaceType::Ipc),
            (NamespaceKind::Network, LinuxNamespaceType::Network),
            (NamespaceKind::Uts, LinuxNamespaceType::Uts),
            (NamespaceKind::Cgroup, LinuxNamespaceType::Cgroup),
        ];
        let mut list = vec![namespace(LinuxNamespaceType::Mount, None)?];
        for (kind, typ) in kinds {
            if self.host.contains(&kind) {
                continue;
            }
            let path = joined.get(&kind);
            if let (Some(container), None) = (self.containers.get(&kind), path) {
                let text = format!(
                    "the {} namespace of container {container} is not known: is it running?",
                    kind.file_name()
                );
                return Err(Error::precondition(text));
            }
            list.push(namespace(typ, path)?);
        }
        Ok(list)
    }
}

fn namespace(typ: LinuxNamespaceType, path: Option<&PathBuf>) -> Result<LinuxNamespace> {
    let builder = LinuxNamespaceBuilder::default().typ(typ);
    let builder = match path {
        Some(path) => builder.path(path.clone()),
        None => builder,
    };
    builder
        .build()
        .map_err(|error| Error::internal("making a namespace entry").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(change: impl FnOnce(&mut ContainerOptions)) -> Result<Shared> {
        let mut options = ContainerOptions::default();
        change(&mut options);
        Shared::parse(&options, CgroupMode::V2)
    }

    #[test]
    fn all_are_private_unless_asked() {
        let shared = parse(|_| {}).unwrap();
        assert!(shared.host.is_empty() && shared.containers.is_empty());
        assert_eq!(shared.to_spec(&BTreeMap::new()).unwrap().len(), 6);
        assert_eq!(shared.network, NetworkMode::Named(String::new()));
    }

    #[test]
    fn cgroup_namespace_by_host_and_privilege() {
        let mode = |options: &ContainerOptions, cgroup| {
            Shared::parse(options, cgroup)
                .unwrap()
                .is_own(NamespaceKind::Cgroup)
        };
        let privileged = ContainerOptions {
            privileged: true,
            ..Default::default()
        };
        let private = ContainerOptions {
            cgroupns_mode: "private".to_owned(),
            ..Default::default()
        };
        assert!(mode(&ContainerOptions::default(), CgroupMode::V2));
        assert!(!mode(&ContainerOptions::default(), CgroupMode::V1));
        assert!(!mode(&privileged, CgroupMode::V2));
        assert!(mode(&private, CgroupMode::Hybrid));
    }

    #[test]
    fn others_are_joined_by_path() {
        let shared = parse(|options| {
            options.pid_mode = "container:a".to_owned();
            options.ipc_mode = "host".to_owned();
            options.network_mode = "container:b".to_owned();
        })
        .unwrap();
        assert!(!shared.network.is_own());
        assert!(shared.to_spec(&BTreeMap::new()).is_err());
        let paths = [
            (NamespaceKind::Pid, "/proc/1/ns/pid".into()),
            (NamespaceKind::Network, "/run/n".into()),
        ]
        .into();
        let list = shared.to_spec(&paths).unwrap();
        assert_eq!(list.len(), 5);
        let pid = list
            .iter()
            .find(|one| one.typ() == LinuxNamespaceType::Pid)
            .unwrap();
        assert_eq!(
            pid.path().as_deref(),
            Some(std::path::Path::new("/proc/1/ns/pid"))
        );
    }

    #[test]
    fn other_modes_are_refused() {
        let text = |result: Result<Shared>| result.unwrap_err().to_string();
        assert_eq!(
            text(parse(|o| o.pid_mode = "x".into())),
            "invalid PID mode: x"
        );
        assert_eq!(
            text(parse(|o| o.pid_mode = "container:".into())),
            "invalid PID mode: container:"
        );
        assert_eq!(
            text(parse(|o| o.ipc_mode = "x".into())),
            "invalid IPC mode: x"
        );
        assert_eq!(
            text(parse(|o| o.uts_mode = "container:a".into())),
            "invalid UTS mode: container:a"
        );
        assert_eq!(
            text(parse(|o| o.userns_mode = "x".into())),
            "invalid userns mode: x"
        );
        assert_eq!(
            text(parse(|o| o.cgroupns_mode = "x".into())),
            "invalid cgroup namespace mode: x"
        );
        assert_eq!(
            text(parse(|o| o.network_mode = "container:".into())),
            "invalid container format container:<name|id>"
        );
    }
}
