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

use std::sync::Arc;

use bytes::Bytes;
use davit_store::Result;

use crate::{
    Digest, Snapshots,
    content::Labels,
    lease::{Operation, pending},
};

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
    /// Bytes of the uncompressed tar stream.
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
#[allow(dead_code)]
#[derive(Debug, Clone)]
pub struct Unpacker(Arc<()>);

#[allow(unused_variables)]
impl Unpacker {
    /// Plans the unpacking of `layers`, lowest first, into `snapshots`. The
    /// snapshots' keys are the chain ids.
    pub async fn chain(
        &self,
        op: &Operation,
        snapshots: &Snapshots,
        layers: Vec<Layer>,
    ) -> Result<Chain> {
        Err(pending())
    }
}

/// A stack of layers being unpacked. Dropping it leaves nothing half-made
/// (partial blobs stay for the next try).
#[derive(Debug)]
pub struct Chain(());

/// What is to be done for a layer.
#[derive(Debug)]
pub enum LayerWork {
    /// Nothing: blob and snapshot are here.
    Ready,
    /// The blob is here and has to be unpacked: run it.
    Unpack(LayerUnpack),
    /// The blob's bytes are wanted.
    Fetch(LayerFetch),
}

#[allow(unused_variables)]
impl Chain {
    /// Finds out what is to be done for the layer `index`. Waits while another
    /// chain unpacks the same layer stack or brings the same blob; take a
    /// place among the permitted downloads only after it has answered.
    pub async fn start(&self, index: usize) -> Result<LayerWork> {
        Err(pending())
    }

    /// Puts all layers on top of one another and gives the key of the topmost
    /// snapshot (empty when there are no layers). Every layer must be done.
    pub async fn finish(self) -> Result<String> {
        Err(pending())
    }
}

/// A layer whose blob is here.
#[derive(Debug)]
pub struct LayerUnpack(());

impl LayerUnpack {
    /// Unpacks it; `progress` is told the bytes of the blob that are done.
    pub async fn run(self, progress: impl Fn(u64) + Send + Sync + 'static) -> Result<()> {
        let _ = progress;
        Err(pending())
    }
}

/// A layer whose bytes are wanted; it is unpacked while they come.
#[derive(Debug)]
pub struct LayerFetch(());

#[allow(unused_variables)]
impl LayerFetch {
    /// Bytes that are here from an earlier try: the next byte to bring.
    pub fn offset(&self) -> u64 {
        0
    }

    /// Bytes of the blob that have been unpacked so far.
    pub fn unpacked(&self) -> u64 {
        0
    }

    /// Takes the next bytes; waits while disk or inflate are behind.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        Err(pending())
    }

    /// Starts again from byte 0: the source can't continue at
    /// [`LayerFetch::offset`].
    pub async fn restart(&mut self) -> Result<()> {
        Err(pending())
    }

    /// All bytes were written: checks digests and size, records the blob.
    /// The snapshot follows in [`Chain::finish`].
    pub async fn finish(self) -> Result<()> {
        Err(pending())
    }
}
