//! The handle to all images of all namespaces, and what it is opened with.

use std::{fmt, path::PathBuf, pin::Pin, sync::Arc};

use davit_store::{Error, Kind, Result, Store};
use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Content, Leases, Snapshots, Unpacker, content::blocking, gc::Collector, image::facts::Cache,
    names::Names, registry::Registry, unpack::Limits,
};

/// What [`Images::open`] needs to know.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// Directory that outlives a reboot: content, snapshots, image names.
    pub root: PathBuf,
    /// Directory that a reboot empties.
    pub state: PathBuf,
    /// Snapshotter that images are unpacked into: "overlayfs" or "native".
    pub snapshotter: String,
    /// Directories with a folder per registry host holding a `hosts.toml`, as
    /// in containerd's `certs.d`. The first that knows a host counts.
    pub certs_d: Vec<PathBuf>,
    /// docker `config.json` with credentials; `None` for anonymous use.
    pub docker_config: Option<PathBuf>,
    /// Registries that may be spoken to over plain HTTP or with certificates
    /// that nobody signed, beside loopback ones ("host" or "host:port").
    pub insecure_registries: Vec<String>,
    /// Bounds on what one layer may unpack to.
    pub limits: Limits,
    /// Layers downloaded at a time; 0 means one for each core, at least 3.
    pub max_concurrent_downloads: usize,
    /// Layers uploaded at a time; 0 means 5.
    pub max_concurrent_uploads: usize,
    /// How long partial downloads are kept for another try.
    pub partial_ttl: std::time::Duration,
}

impl ImagesConfig {
    /// The defaults, in these directories.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            state: state.into(),
            snapshotter: "overlayfs".to_owned(),
            certs_d: Vec::new(),
            docker_config: None,
            insecure_registries: Vec::new(),
            limits: Limits::default(),
            max_concurrent_downloads: 0,
            max_concurrent_uploads: 0,
            partial_ttl: std::time::Duration::from_secs(24 * 3600),
        }
    }
}

/// Progress of long work. Dropping it cancels the work.
pub type Progress<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

/// The images of all namespaces. Cheap to clone.
#[derive(Clone)]
pub struct Images(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: ImagesConfig,
    pub(crate) store: Store,
    pub(crate) content: Content,
    leases: Leases,
    pub(crate) snapshots: Vec<Snapshots>,
    unpacker: Unpacker,
    collector: Collector,
    registry: Registry,
    cache: Cache,
    pub(crate) names: Names,
    downloads: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images")
            .field("root", &self.0.config.root)
            .finish_non_exhaustive()
    }
}

impl Images {
    /// Opens the images under `config.root`, finishing or undoing what a crash
    /// left half-made.
    pub async fn open(config: ImagesConfig, store: Store) -> Result<Self> {
        let images = blocking(move || Self::open_now(config, store)).await?;
        images.start_background();
        Ok(images)
    }

    fn open_now(config: ImagesConfig, store: Store) -> Result<Self> {
        let leases = Leases::new(store.clone());
        let content = Content::at(
            config.root.join("content"),
            store.clone(),
            config.partial_ttl,
        )?;
        let snapshotters = match config.snapshotter.as_str() {
            "native" => ["native", "overlayfs"],
            _ => ["overlayfs", "native"],
        };
        if !snapshotters.contains(&config.snapshotter.as_str()) {
            return Err(unknown_snapshotter(&config.snapshotter));
        }
        let snapshots = snapshotters
            .iter()
            .map(|name| Snapshots::at(&config.root, name, store.clone()))
            .collect::<Result<Vec<_>>>()?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let downloads = match config.max_concurrent_downloads {
            0 => cores.max(3),
            count => count,
        };
        let uploads = match config.max_concurrent_uploads {
            0 => 5,
            count => count,
        };
        let names = Names::at(&config.root, store.clone())?;
        let images = Self(Arc::new(Inner {
            unpacker: Unpacker::new(content.clone(), config.limits),
            collector: Collector::new(
                store.clone(),
                leases.clone(),
                content.clone(),
                snapshots.clone(),
            ),
            names,
            registry: Registry::new(&config),
            cache: Cache::default(),
            downloads: Arc::new(Semaphore::new(downloads)),
            uploads: Arc::new(Semaphore::new(uploads)),
            content,
            leases,
            snapshots,
            store,
            config,
        }));
        if images.looks_lost()? {
            let found = images.rebuild_now()?;
            tracing::warn!(?found, "no image was recorded although there were files; they are recorded again");
        }
        Ok(images)
    }

    /// Starts what goes on beside the calls: collecting garbage, syncing
    /// snapshots to disk, and the copy of the image names. It ends with the
    /// runtime or when the store is closed.
    fn start_background(&self) {
        tokio::spawn(self.0.collector.clone().run_forever());
        tokio::spawn(self.0.names.clone().write_forever());
        for snapshots in &self.0.snapshots {
            tokio::spawn(snapshots.clone().sync_forever());
        }
    }

    /// Brings what is kept beside the store up to date, for a graceful stop.
    pub async fn close(&self) -> Result<()> {
        let this = self.clone();
        blocking(move || this.0.names.write()).await
    }

    /// Blobs and ingests.
    pub fn content(&self) -> &Content {
        &self.0.content
    }

    /// Leases and operations.
    pub fn leases(&self) -> &Leases {
        &self.0.leases
    }

    /// The garbage collector.
    pub fn collector(&self) -> &Collector {
        &self.0.collector
    }

    /// The unpacker.
    pub fn unpacker(&self) -> &Unpacker {
        &self.0.unpacker
    }

    /// The snapshotter `name`; the default one for "". `NotFound` for others
    /// than "overlayfs" and "native".
    pub fn snapshots(&self, name: &str) -> Result<&Snapshots> {
        let mut all = self.0.snapshots.iter();
        all.find(|one| name.is_empty() || one.name() == name)
            .ok_or_else(|| unknown_snapshotter(name))
    }

    pub(crate) fn config(&self) -> &ImagesConfig {
        &self.0.config
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// A place among the downloads of the daemon.
    pub(crate) async fn download_place(&self) -> Result<OwnedSemaphorePermit> {
        place(&self.0.downloads).await
    }

    /// A place among the uploads of the daemon.
    pub(crate) async fn upload_place(&self) -> Result<OwnedSemaphorePermit> {
        place(&self.0.uploads).await
    }
}

async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let place = places.clone().acquire_owned().await;
    place.map_err(|_| Error::new(Kind::Unavailable, "the daemon is stopping"))
}

fn unknown_snapshotter(name: &str) -> Error {
    Error::not_found(format!(
        "there is no snapshotter {name:?}; use \"overlayfs\" or \"native\""
    ))
}
