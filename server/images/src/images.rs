//! The handle to all images of all namespaces, and what it is opened with.

use std::{path::PathBuf, pin::Pin};

use davit_store::Result;
use futures::Stream;

use crate::{Content, Leases, Unpacker, gc::Collector, unpack::Limits};

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
#[derive(Debug, Clone)]
pub struct Images {
    pub(crate) content: Content,
    pub(crate) leases: Leases,
    pub(crate) unpacker: Unpacker,
    pub(crate) collector: Collector,
}
