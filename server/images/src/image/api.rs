//! The operations, for those who call them before they are all written.

use bytes::Bytes;
use davit_store::{Result, descriptor::Platform};
use tokio::io::AsyncRead;

use super::types::*;
use crate::{
    Content, Images, Leases, Operation, Progress, Snapshots, Unpacker, gc::Collector,
    lease::pending,
};

fn pending_stream<T: Send + 'static>() -> Progress<T> {
    Box::pin(futures::stream::once(async { Err(pending()) }))
}

#[allow(unused_variables)]
impl Images {
    /// Pulls an image and unpacks it; the last message has the image.
    /// `NotFound` when the registry has none, `Unauthenticated` when it wants
    /// other credentials.
    pub fn pull(&self, namespace: &str, request: PullRequest) -> Progress<PullProgress> {
        pending_stream()
    }

    /// Sends images to their registry, byte for byte.
    pub fn push(&self, namespace: &str, request: PushRequest) -> Progress<PushProgress> {
        pending_stream()
    }

    /// Reads images from a tar (OCI layout or docker-archive; plain, gzip or
    /// zstd).
    pub fn import(
        &self,
        namespace: &str,
        options: ImportOptions,
        data: impl AsyncRead + Send + 'static,
    ) -> Progress<ImportProgress> {
        drop(data);
        pending_stream()
    }

    /// Writes images as a tar that is an OCI layout and a docker-archive.
    pub fn export(&self, namespace: &str, request: ExportRequest) -> Progress<Bytes> {
        pending_stream()
    }

    /// Finds one image by name, id, id prefix or digest.
    pub async fn get(
        &self,
        namespace: &str,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<Image> {
        Err(pending())
    }

    /// All images that pass the filters, newest first.
    pub async fn list(&self, namespace: &str, filters: &[Filter]) -> Result<Vec<Image>> {
        Err(pending())
    }

    /// Gives an image one more name.
    pub async fn tag(&self, namespace: &str, source: &str, target: &str) -> Result<Image> {
        Err(pending())
    }

    /// Takes a name away and, with the last name, the image.
    pub async fn remove(&self, namespace: &str, image: &str, force: bool) -> Result<Removed> {
        Err(pending())
    }

    /// Everything known about an image.
    pub async fn inspect(
        &self,
        namespace: &str,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<ImageDetails> {
        Err(pending())
    }

    /// The steps that made an image, newest first.
    pub async fn history(
        &self,
        namespace: &str,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<HistoryEntry>> {
        Err(pending())
    }

    /// Removes dangling images, or all that no container uses.
    pub async fn prune(&self, namespace: &str, request: PruneRequest) -> Result<Pruned> {
        Err(pending())
    }

    /// Asks the registry about an image without pulling it.
    pub async fn remote_manifest(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<RemoteManifest> {
        Err(pending())
    }

    /// What the images of a namespace cost on disk.
    pub async fn disk_usage(&self, namespace: &str) -> Result<DiskUsage> {
        Err(pending())
    }

    /// Makes an image of one layer out of a root file system tar.
    pub async fn create_from_tar(
        &self,
        namespace: &str,
        options: CreateFromTarOptions,
        data: impl AsyncRead + Send + 'static,
    ) -> Result<Image> {
        drop(data);
        Err(pending())
    }

    /// Makes an image out of a config and, it may be, a new layer on top of
    /// another image's. Call it under the operation that made the layer.
    pub async fn create_image(&self, op: &Operation, new: NewImage) -> Result<Image> {
        Err(pending())
    }

    /// Resolves a name, id, id prefix or digest for a platform (the host's
    /// when `None`). `NotFound` in docker's words, "No such image: …".
    /// Open an [`Operation`] first when something is going to refer to it.
    pub async fn resolve(
        &self,
        namespace: &str,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<Resolved> {
        Err(pending())
    }

    /// Sees to it that the image's layers are unpacked; gives the key of the
    /// topmost snapshot, which `op` holds then.
    pub async fn unpack(&self, op: &Operation, image: &Resolved) -> Result<String> {
        Err(pending())
    }

    /// Opens the images under `config.root`, finishing or undoing what a crash
    /// left half-made.
    pub async fn open(config: crate::ImagesConfig, store: davit_store::Store) -> Result<Self> {
        Err(pending())
    }

    /// Records again what lies on disk, after the store was lost.
    pub async fn rebuild(&self) -> Result<super::Rebuilt> {
        Err(pending())
    }

    /// Compares records with blobs, names and snapshots on disk: one sentence
    /// for each thing that is wrong. With `repair` it is mended too.
    pub async fn check(&self, repair: bool) -> Result<Vec<String>> {
        Err(pending())
    }

    /// Tries credentials at a registry ("" is docker.io).
    /// `Unauthenticated` when it does not take them.
    pub async fn login(&self, server: &str, auth: RegistryAuth) -> Result<()> {
        Err(pending())
    }

    /// Blobs and ingests.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Leases and operations.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The garbage collector.
    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    /// The unpacker.
    pub fn unpacker(&self) -> &Unpacker {
        &self.unpacker
    }

    /// The snapshotter `name`; the default one for "". `NotFound` for others
    /// than "overlayfs" and "native".
    pub fn snapshots(&self, name: &str) -> Result<&Snapshots> {
        Err(pending())
    }
}
