//! From what was asked for to what an OCI runtime reads.
//!
//! Two steps. [`plan`] looks at options, image and host only: at Create it
//! refuses what can never run, says what the host can't do, and gives what
//! inspect shows. [`build`] makes the runtime spec at each start, when the
//! root file system can be looked into (users, groups) and namespaces of
//! others are known. Whatever docker also refuses is refused in its words,
//! since people and programs search for them.
//!
//! Nothing here mounts or starts anything; [`etc::write`] and the source
//! directories that `build` makes for old-style binds are the only effects.

mod args;
mod build;
mod capabilities;
mod checks;
mod devices;
mod env;
pub mod etc;
mod exec;
mod host;
mod mounts;
mod namespaces;
mod plan;
pub mod resources;
mod rlimits;
mod rootfs;
#[cfg(test)]
mod runtime_tests;
mod seccomp;
mod security;
pub mod signal;
mod sysctl;
mod user;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use davit_store::{
    image_config::ImageConfig,
    options::{ContainerOptions, Resources, Ulimit},
};
use oci_spec::runtime::Spec;

pub use build::build;
pub use exec::{ExecInputs, exec_process};
pub use host::{CgroupFacts, CgroupMode, HostFacts};
pub use mounts::{PlannedMount, PlannedSource};
pub(crate) use mounts::{sorted, unescape, volume_name};
pub use namespaces::{NamespaceKind, NetworkMode, Shared};
pub use plan::plan;
pub use rootfs::{LayersView, RootfsView, TreeView};
pub use user::{Identity, resolve_user};

/// What a container is made from; the same at Create and at each start.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Id of the container.
    pub id: &'a str,
    /// What was asked for.
    pub options: &'a ContainerOptions,
    /// The image's config.
    pub image: &'a ImageConfig,
    /// What this host can do; detected once, at the daemon's start.
    pub host: &'a HostFacts,
    /// What the daemon's configuration says about all containers.
    pub defaults: &'a Defaults,
}

/// Settings of the daemon for all containers.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// Parent of the containers' cgroups, below each hierarchy's root
    /// ("davit"); a container's own `cgroup_parent` goes before it.
    pub cgroup_parent: String,
    /// Ulimits of containers that set none of the same name.
    pub ulimits: Vec<Ulimit>,
    /// Static binary that `init` runs as PID 1; [`init::install`] puts one
    /// there. `None` refuses the option.
    ///
    /// [`init::install`]: crate::init::install
    pub init: Option<PathBuf>,
    /// Read-only binds read-only all the way down ("rro"), where the runtime
    /// can do it.
    pub recursive_read_only: bool,
}

/// What [`plan`] finds out at Create.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The image's config with the options on top, as inspect shows it. `env`
    /// has neither PATH nor HOSTNAME unless image or caller set them.
    pub config: ImageConfig,
    /// What runs.
    pub path: String,
    /// Its arguments, without argv\[0\].
    pub args: Vec<String>,
    /// Host name that the container gets (its own, the host's name when it
    /// shares the host's UTS or network namespace, empty when it takes that of
    /// another container).
    pub hostname: String,
    /// The limits as they are applied: what the host can't do is taken out,
    /// what docker fills in is filled in.
    pub resources: Resources,
    /// Namespaces that come from elsewhere.
    pub shared: Shared,
    /// What the caller mounts, in the order in which it is mounted; volumes
    /// and image mounts among them, to be settled before a start.
    pub mounts: Vec<PlannedMount>,
    /// Path of the cgroup below each hierarchy's root, "/davit/<id>".
    pub cgroup_path: String,
    /// Signal that stops it.
    pub stop_signal: i32,
    /// What the host can't do or is done differently from what was asked.
    pub warnings: Vec<String>,
}

/// What is known only when a container starts.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The container's files.
    pub rootfs: &'a dyn RootfsView,
    /// `root.path` of the spec: absolute, or relative to the bundle.
    pub root_path: &'a Path,
    /// Generated /etc/hostname, /etc/hosts and /etc/resolv.conf, from
    /// [`etc::write`].
    pub etc: &'a etc::EtcFiles,
    /// Namespaces to join instead of new ones: those of
    /// [`Shared::containers`], and the network namespace when the engine has
    /// made one.
    pub namespaces: &'a BTreeMap<NamespaceKind, PathBuf>,
    /// Directory that is bound on /dev/shm: the donor's for `ipc_mode`
    /// "container:…", a tmpfs of the engine's for "shareable". `None` gives a
    /// tmpfs of its own.
    pub shm: Option<&'a Path>,
    /// The caller's mounts as they were settled at Create.
    pub mounts: &'a [PlannedMount],
    /// Directories of volumes and image mounts, by index in `mounts`.
    pub sources: &'a BTreeMap<usize, PathBuf>,
}

/// What [`build`] makes.
#[derive(Debug, Clone)]
pub struct Built {
    /// The runtime spec, for `config.json`.
    pub spec: Spec,
    /// The plan that it was made from.
    pub plan: Plan,
    /// Whom the first process runs as.
    pub user: Identity,
    /// What is different from the plan; the engine logs it.
    pub warnings: Vec<String>,
}
