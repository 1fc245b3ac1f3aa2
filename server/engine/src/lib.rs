//! The engine: containers and what they run.
//!
//! It owns each container's life: one task (actor) a container, its state an
//! enum whose variants carry their data. It knows no wire format; doors convert
//! to and from [`model`].

mod actor;
mod attach;
mod cgroup_parent;
mod config;
mod containers;
mod create;
mod detach;
mod events;
mod exec;
pub mod files;
mod filter;
mod health;
mod host_info;
mod index;
pub mod init;
mod inspect;
mod launch;
mod log_options;
mod logs;
pub mod model;
mod names;
mod networks;
mod policy;
pub mod processes;
mod prune;
mod recovery;
mod session;
mod shared;
mod shim;
pub mod spec;
mod tasks;
pub mod usage;
mod view;
mod volumes;
mod wait;
mod work;

use std::sync::Arc;

use davit_images::Images;
use davit_store::Store;

pub use config::{EngineConfig, NetworkConfig, VolumesConfig};
pub use containers::Containers;
pub use davit_store::{Error, Kind, Result};
pub use networks::Networks;
pub use recovery::check;
pub use tasks::Tasks;
pub use volumes::Volumes;
pub use wait::Waiter;

use shared::Shared;

/// A handle on the engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

impl Engine {
    /// Opens the engine and brings everything into a known state: what ran is
    /// taken up again, what was half done is finished or undone, and what the
    /// restart policies want is started. Needs a tokio runtime.
    pub async fn open(config: EngineConfig, store: Store, images: Images) -> Result<Self> {
        let host = spec::HostFacts::detect()?;
        let defaults = spec::Defaults {
            cgroup_parent: config.cgroup_parent.clone(),
            init: init_binary(&config.root),
            ..Default::default()
        };
        let shared = Arc::new(Shared::new(config, store, images, host, defaults)?);
        recovery::recover(&shared).await?;
        Ok(Self { shared })
    }

    /// Containers: what is to run, and the files it has.
    pub fn containers(&self) -> Containers {
        Containers::new(self.clone())
    }

    /// Tasks: what containers run.
    pub fn tasks(&self) -> Tasks {
        Tasks::new(self.clone())
    }

    /// Networks: who reaches whom.
    pub fn networks(&self) -> Networks {
        Networks::new(self.clone())
    }

    /// Volumes: data that outlives containers.
    pub fn volumes(&self) -> Volumes {
        Volumes::new(self.clone())
    }

    /// What this host can do.
    pub fn host(&self) -> &spec::HostFacts {
        &self.shared.host
    }

    /// Namespaces that have containers, in order.
    pub fn namespaces(&self) -> Vec<String> {
        self.shared.index.namespaces()
    }

    /// Lets go of everything; what runs runs on. No call is answered after
    /// this, and nothing is written to the store.
    pub async fn close(&self) {
        self.shared.close().await;
        self.shared.net.close().await;
        cgroup_parent::remove_if_empty(&self.shared.config.cgroup_parent);
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// The init that containers may ask for. In the root, since /run is often
/// mounted noexec, which a bind mount of a file there would inherit.
fn init_binary(root: &std::path::Path) -> Option<std::path::PathBuf> {
    let installed = std::fs::create_dir_all(root)
        .map_err(|error| Error::io(format!("making {}", root.display()), error))
        .and_then(|()| init::install(&root.join("init")));
    installed
        .inspect_err(
            |error| tracing::warn!(error = %error.chain(), "containers cannot have an init"),
        )
        .ok()
}
