//! The content store: blobs by digest, and the writers that bring them in.
//!
//! On disk: `<root>/content/blobs/<algorithm>/<hex>` (shared by all
//! namespaces, never changed) and `<root>/content/ingest/<id>/data` (partial
//! downloads). A blob is written aside, checked, fsynced, renamed, its folder
//! fsynced, and only then recorded in a namespace.

use std::{collections::BTreeMap, fs::File, sync::Arc};

use bytes::Bytes;
use davit_store::Result;
use futures::Stream;
use jiff::Timestamp;

use crate::{
    Digest,
    lease::{Operation, pending},
};

/// Labels of a blob, a snapshot or an image.
pub type Labels = BTreeMap<String, String>;

/// What is known about a blob in one namespace.
#[derive(Debug, Clone)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its labels in that namespace.
    pub labels: Labels,
    /// When that namespace got it.
    pub created_at: Timestamp,
    /// When its labels changed last.
    pub updated_at: Timestamp,
}

/// A partial download.
#[derive(Debug, Clone)]
pub struct IngestInfo {
    /// The reference that its writer is opened by.
    pub reference: String,
    /// Bytes on disk so far.
    pub offset: u64,
    /// Bytes expected in all, if known.
    pub total: Option<u64>,
    /// Digest expected, if known.
    pub expected: Option<Digest>,
    /// When it began.
    pub started_at: Timestamp,
    /// When bytes came in last.
    pub updated_at: Timestamp,
}

/// What a writer's bytes must come to.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Digest of all bytes.
    pub digest: Option<Digest>,
    /// Number of all bytes.
    pub size: Option<u64>,
}

/// The answer to the wish to write a blob.
#[derive(Debug)]
pub enum Opened {
    /// The blob is here already (possibly brought by another namespace, and
    /// now recorded in this one).
    Exists(BlobInfo),
    /// Bytes are wanted, from [`Writer::offset`] on.
    Writer(Writer),
}

/// The blobs and ingests of all namespaces. Cheap to clone.
#[allow(dead_code)]
#[derive(Debug, Clone)]
pub struct Content(Arc<()>);

#[allow(unused_variables)]
impl Content {
    /// What is known about a blob. `NotFound` when the namespace has none.
    pub fn info(&self, namespace: &str, digest: &Digest) -> Result<BlobInfo> {
        Err(pending())
    }

    /// Whether the namespace has the blob.
    pub fn contains(&self, namespace: &str, digest: &Digest) -> Result<bool> {
        Err(pending())
    }

    /// All blobs of a namespace, in order of their digests.
    pub fn list(&self, namespace: &str) -> Result<Vec<BlobInfo>> {
        Err(pending())
    }

    /// Sets labels (empty value: removes). `NotFound` when there is no blob.
    pub fn label(&self, namespace: &str, digest: &Digest, changes: &Labels) -> Result<BlobInfo> {
        Err(pending())
    }

    /// Takes the blob from the namespace; its file goes with the last one.
    pub async fn remove(&self, namespace: &str, digest: &Digest) -> Result<()> {
        Err(pending())
    }

    /// Opens the file of a blob for reading (also with `pread` and `sendfile`).
    pub fn open(&self, namespace: &str, digest: &Digest) -> Result<(File, u64)> {
        Err(pending())
    }

    /// The whole of a small blob, a manifest or config. `ResourceExhausted`
    /// when it is larger than `limit` bytes; `DataLoss` when its bytes are not
    /// what its digest says.
    pub async fn read(&self, namespace: &str, digest: &Digest, limit: u64) -> Result<Bytes> {
        Err(pending())
    }

    /// A blob's bytes from `offset` on, in blocks of up to 1 MiB.
    pub fn stream(
        &self,
        namespace: &str,
        digest: &Digest,
        offset: u64,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + 'static + use<>> {
        let r: Result<futures::stream::Empty<Result<Bytes>>> = Err(pending());
        r
    }

    /// Stores a small blob in one go. With `expected`, `DataLoss` when the
    /// bytes hash to something else. An existing blob takes the labels over.
    pub async fn put(
        &self,
        op: &Operation,
        bytes: Bytes,
        expected: Option<&Digest>,
        labels: Labels,
    ) -> Result<BlobInfo> {
        Err(pending())
    }

    /// Opens the ingest `reference` for writing. With an expected digest it
    /// waits while another writer brings the same blob, in whatever namespace,
    /// and then answers [`Opened::Exists`]. `Unavailable` when the reference
    /// itself is open already and has no expected digest.
    pub async fn writer(
        &self,
        op: &Operation,
        reference: &str,
        expected: Expected,
    ) -> Result<Opened> {
        Err(pending())
    }

    /// All partial downloads of a namespace.
    pub fn ingests(&self, namespace: &str) -> Result<Vec<IngestInfo>> {
        Err(pending())
    }

    /// Throws a partial download away. `Unavailable` while it is being written.
    pub async fn abort(&self, namespace: &str, reference: &str) -> Result<()> {
        Err(pending())
    }
}

/// Takes the bytes of one blob. Dropping it keeps what has arrived for a
/// later writer of the same reference; [`Writer::abort`] throws it away.
#[derive(Debug)]
pub struct Writer(());

#[allow(unused_variables)]
impl Writer {
    /// Bytes taken so far, those of earlier tries among them: the next byte to
    /// bring.
    pub fn offset(&self) -> u64 {
        0
    }

    /// Takes the next bytes. Waits while the disk is behind.
    /// `DataLoss` when there are more than expected.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        Err(pending())
    }

    /// Forgets everything taken so far: the source can't continue at
    /// [`Writer::offset`].
    pub async fn restart(&mut self) -> Result<()> {
        Err(pending())
    }

    /// Checks size and digest, makes the blob durable and records it.
    /// `DataLoss` on a mismatch with what was expected when the writer was
    /// opened; the partial data is gone then.
    pub async fn commit(self, labels: Labels) -> Result<BlobInfo> {
        Err(pending())
    }

    /// Throws away what has arrived.
    pub async fn abort(self) -> Result<()> {
        Err(pending())
    }
}
