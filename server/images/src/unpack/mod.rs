//! Unpacking: layers become snapshots, in one stream from the bytes that come
//! in to the files on disk.
//!
//! ```text
//! bytes ─► hash, blob file ─► inflate ─► hash diff id ─► tar ─► directory
//! ```
//!
//! A caller plans a [`Chain`], starts every layer (in any order, all at once
//! if it likes), feeds those that are [`LayerWork::Fetch`], and finishes the
//! chain, which puts the layers on top of one another.

mod chain;
pub(crate) mod chunks;
mod extract;
mod fixup;
pub(crate) mod inflate;
mod layer;
pub(crate) mod pax;
mod pipeline;
pub(crate) mod remove;
pub(crate) mod tar;
#[cfg(test)]
mod tests;
pub(crate) mod walk;

use std::{fmt, sync::Arc};

use davit_store::Result;
use tokio::sync::Semaphore;

pub use chain::{Chain, LayerWork};
pub use layer::{LayerFetch, LayerUnpack};

use crate::{
    Content, Digest, Snapshots, content::Labels, lease::Operation, single_flight::SingleFlight,
};

/// Label of a snapshot that a layer is being unpacked into: its chain id
/// (containerd's name for it).
pub(crate) const UNPACKS: &str = "containerd.io/snapshot.ref";

/// One layer of an image, as manifest and config describe it.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Media type; compression is recognised by the bytes, not by this.
    pub media_type: String,
    /// Digest of the uncompressed tar, from the config.
    pub diff_id: Digest,
    /// Labels for the blob's record (`containerd.io/uncompressed` is added).
    pub labels: Labels,
}

/// Bounds on what a layer may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the uncompressed tar stream, and of its files with all holes.
    pub bytes: u64,
    /// Entries in the tar.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 256 << 30,
            entries: 16 << 20,
        }
    }
}

/// Makes snapshots out of layers. Cheap to clone.
#[derive(Clone)]
pub struct Unpacker(Arc<Inner>);

struct Inner {
    content: Content,
    limits: Limits,
    /// One unpacking of a layer stack at a time: (namespace, snapshotter, chain id).
    chains: SingleFlight<(String, &'static str, Digest)>,
    /// Layers unpacked from blobs that are here: one for each core.
    places: Arc<Semaphore>,
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unpacker").field(&self.0.limits).finish()
    }
}

impl Unpacker {
    pub(crate) fn new(content: Content, limits: Limits) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self(Arc::new(Inner {
            content,
            limits,
            chains: SingleFlight::default(),
            places: Arc::new(Semaphore::new(cores)),
        }))
    }

    /// Plans the unpacking of `layers`, lowest first, into `snapshots`. The
    /// snapshots' keys are the chain ids.
    pub async fn chain(
        &self,
        op: &Operation,
        snapshots: &Snapshots,
        layers: Vec<Layer>,
    ) -> Result<Chain> {
        Ok(Chain::plan(
            self.clone(),
            op.clone(),
            snapshots.clone(),
            layers,
        ))
    }

    /// Unpacks layers whose blobs are all here; gives the key of the topmost
    /// snapshot. `NotFound` when a blob is missing.
    pub async fn unpack(
        &self,
        op: &Operation,
        snapshots: &Snapshots,
        layers: Vec<Layer>,
    ) -> Result<String> {
        let count = layers.len();
        let chain = self.chain(op, snapshots, layers).await?;
        let each = (0..count).map(|index| {
            let chain = &chain;
            async move {
                match chain.start(index).await? {
                    LayerWork::Ready => Ok(()),
                    LayerWork::Unpack(work) => work.run(|_| {}).await,
                    LayerWork::Fetch(fetch) => Err(davit_store::Error::not_found(format!(
                        "the blob of layer {} is missing: pull the image again",
                        fetch.layer().digest
                    ))),
                }
            }
        });
        futures::future::try_join_all(each).await?;
        chain.finish().await
    }
}
