//! The content store: blobs by digest, and the writers that bring them in.
//!
//! On disk: `<root>/content/blobs/<algorithm>/<hex>` (shared by all
//! namespaces, never changed) and `<root>/content/ingest/<id>/data` (partial
//! downloads). A blob is written aside, checked, fsynced, renamed, its folder
//! fsynced, and only then recorded in a namespace.

mod files;
mod ingest;
pub mod labels;
mod recovery;
mod writer;

use std::{fmt, fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use davit_store::{
    Error, Kind, Result, Store, Tx,
    table::{BlobRecord, Blobs, NamespaceRecord, Namespaces},
};
use futures::Stream;
use jiff::Timestamp;

pub(crate) use files::{Files, make_dir};
pub use ingest::IngestInfo;
pub(crate) use ingest::Reserved;
pub use labels::Labels;
pub(crate) use writer::Tee;
pub use writer::Writer;

use crate::{
    Digest,
    lease::{Operation, Resource},
    single_flight::{Flight, SingleFlight},
};

/// What is known about a blob in one namespace.
#[derive(Debug, Clone, PartialEq)]
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

impl BlobInfo {
    fn of(record: BlobRecord) -> Result<Self> {
        Ok(Self {
            digest: Digest::parse(&record.digest)?,
            size: record.size,
            labels: record.labels,
            created_at: record.created_at,
            updated_at: record.updated_at,
        })
    }
}

/// What a writer's bytes must come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
#[derive(Clone)]
pub struct Content(Arc<Inner>);

struct Inner {
    files: Files,
    store: Store,
    /// One writer, or remover, of a blob's file at a time.
    digests: SingleFlight<Digest>,
    /// One writer of an ingest at a time.
    references: SingleFlight<(String, String)>,
    /// How long an ingest without a lease is kept.
    partial_ttl: Duration,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Content").field(&self.0.files).finish()
    }
}

/// Blocks that [`Content::stream`] gives.
const BLOCK: usize = 1 << 20;

impl Content {
    /// Opens the content store below `root`, and throws away what is half
    /// made or recorded nowhere. Blocks.
    pub(crate) fn at(root: PathBuf, store: Store, partial_ttl: Duration) -> Result<Self> {
        let content = Self(Arc::new(Inner {
            files: Files::open(root)?,
            store,
            digests: SingleFlight::default(),
            references: SingleFlight::default(),
            partial_ttl,
        }));
        content.recover()?;
        Ok(content)
    }

    /// What is known about a blob. `NotFound` when the namespace has none.
    pub fn info(&self, namespace: &str, digest: &Digest) -> Result<BlobInfo> {
        let found = self.0.store.get::<Blobs>((namespace, digest))?;
        BlobInfo::of(found.ok_or_else(|| missing(namespace, digest))?)
    }

    /// Whether the namespace has the blob.
    pub fn contains(&self, namespace: &str, digest: &Digest) -> Result<bool> {
        self.0.store.contains::<Blobs>((namespace, digest))
    }

    /// All blobs of a namespace, in order of their digests.
    pub fn list(&self, namespace: &str) -> Result<Vec<BlobInfo>> {
        let found = self.0.store.scan::<Blobs>(namespace)?;
        found
            .into_iter()
            .map(|(_, record)| BlobInfo::of(record))
            .collect()
    }

    /// Sets labels (empty value: removes). `NotFound` when there is no blob.
    pub fn label(&self, namespace: &str, digest: &Digest, changes: &Labels) -> Result<BlobInfo> {
        labels::check(changes)?;
        let record = self.0.store.transaction(|tx| {
            let Some(mut record) = tx.get::<Blobs>((namespace, digest))? else {
                return Err(missing(namespace, digest));
            };
            labels::merge(&mut record.labels, changes);
            record.updated_at = Timestamp::now();
            tx.put::<Blobs>((namespace, digest), &record)?;
            Ok(record)
        })?;
        BlobInfo::of(record)
    }

    /// Takes the blob from the namespace; its file goes with the last one.
    /// `NotFound` when the namespace has none.
    pub async fn remove(&self, namespace: &str, digest: &Digest) -> Result<()> {
        let deleted = self
            .0
            .store
            .transaction(|tx| tx.delete::<Blobs>((namespace, digest)))?;
        if !deleted {
            return Err(missing(namespace, digest));
        }
        self.sweep(digest).await.map(drop)
    }

    /// Opens the file of a blob for reading (also with `pread` and `sendfile`)
    /// and gives its size in bytes.
    pub fn open(&self, namespace: &str, digest: &Digest) -> Result<(File, u64)> {
        let info = self.info(namespace, digest)?;
        let file = File::open(self.0.files.blob(digest)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(
                Kind::DataLoss,
                format!("the file of blob {digest} is gone; pull it again"),
            ),
            _ => Error::io(format!("opening blob {digest}"), error),
        })?;
        Ok((file, info.size))
    }

    /// The whole of a small blob, a manifest or config. `ResourceExhausted`
    /// when it is larger than `limit` bytes; `DataLoss` when its bytes are not
    /// what its digest says.
    pub async fn read(&self, namespace: &str, digest: &Digest, limit: u64) -> Result<Bytes> {
        let (file, size) = self.open(namespace, digest)?;
        if size > limit {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("blob {digest} has {size} bytes; at most {limit} are read at once"),
            ));
        }
        let digest = digest.clone();
        blocking(move || {
            let mut bytes = vec![0; size as usize];
            let read = file.read_exact_at(&mut bytes, 0);
            let mut hasher = crate::digest::Hasher::new(digest.algorithm());
            hasher.update(&bytes);
            match read {
                Ok(()) if hasher.finish() == digest => Ok(bytes.into()),
                Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                    Err(Error::io(format!("reading blob {digest}"), error))
                }
                _ => Err(Error::new(
                    Kind::DataLoss,
                    format!("blob {digest} is damaged on disk; remove its image and pull it again"),
                )),
            }
        })
        .await
    }

    /// A blob's bytes from `offset` on, in blocks of up to 1 MiB.
    /// `OutOfRange` when it is shorter.
    pub fn stream(
        &self,
        namespace: &str,
        digest: &Digest,
        offset: u64,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + 'static + use<>> {
        let (file, size) = self.open(namespace, digest)?;
        if offset > size {
            return Err(Error::new(
                Kind::OutOfRange,
                format!("blob {digest} has {size} bytes, fewer than {offset}"),
            ));
        }
        let (file, digest) = (Arc::new(file), digest.clone());
        Ok(async_stream::try_stream! {
            let mut at = offset;
            while at < size {
                let (file, digest) = (file.clone(), digest.clone());
                let length = BLOCK.min((size - at) as usize);
                let block = blocking(move || {
                    let mut block = vec![0; length];
                    file.read_exact_at(&mut block, at)
                        .map_err(|error| Error::io(format!("reading blob {digest}"), error))?;
                    Ok(Bytes::from(block))
                })
                .await?;
                at += block.len() as u64;
                yield block;
            }
        })
    }

    /// Stores a small blob in one go. With `expected`, `FailedPrecondition`
    /// when the bytes hash to something else. An existing blob takes the
    /// labels over.
    pub async fn put(
        &self,
        op: &Operation,
        bytes: Bytes,
        expected: Option<&Digest>,
        labels: Labels,
    ) -> Result<BlobInfo> {
        labels::check(&labels)?;
        let mut hasher = crate::digest::Hasher::new(
            expected.map_or(crate::digest::Algorithm::Sha256, Digest::algorithm),
        );
        hasher.update(&bytes);
        let digest = hasher.finish();
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(Error::precondition(format!(
                "blob {expected} is refused: its bytes have the digest {digest}"
            )));
        }
        op.hold(Resource::Blob(digest.clone()));
        let flight = self.0.digests.enter(digest.clone()).await;
        let size = bytes.len() as u64;
        if self.0.files.size(&digest)? != Some(size) {
            let (files, digest) = (self.0.files.clone(), digest.clone());
            blocking(move || files.write_small(&bytes, &digest)).await?;
        }
        self.record(op, &digest, size, &labels, &flight, |_| Ok(()))
    }

    /// Records a blob whose file is there, in the operation's namespace, while
    /// nobody can remove the file.
    fn record(
        &self,
        op: &Operation,
        digest: &Digest,
        size: u64,
        labels: &Labels,
        _file_stays: &Flight,
        also: impl FnOnce(&Tx<'_>) -> Result<()>,
    ) -> Result<BlobInfo> {
        let key = (op.namespace(), digest);
        let now = Timestamp::now();
        let record = self.0.store.transaction(|tx| {
            ensure_namespace(tx, op.namespace())?;
            let mut record = tx.get::<Blobs>(key)?.unwrap_or_else(|| BlobRecord {
                digest: digest.to_string(),
                size,
                labels: Labels::new(),
                created_at: now,
                updated_at: now,
            });
            labels::merge(&mut record.labels, labels);
            record.updated_at = now;
            tx.put::<Blobs>(key, &record)?;
            op.note(tx, &Resource::Blob(digest.clone()))?;
            also(tx)?;
            Ok(record)
        })?;
        fail::fail_point!("images.content.after-record");
        BlobInfo::of(record)
    }

    /// Removes the file of a blob that no namespace has; gives its size. When
    /// somebody is just writing the blob, it stays.
    pub(crate) async fn sweep(&self, digest: &Digest) -> Result<u64> {
        let Some(_flight) = self.0.digests.try_enter(digest.clone()) else {
            return Ok(0);
        };
        // The file must not be gone while a record comes back after a crash.
        self.0.store.written().await?;
        if self.known_anywhere(digest)? {
            return Ok(0);
        }
        let (files, digest) = (self.0.files.clone(), digest.clone());
        blocking(move || files.remove(&digest)).await
    }

    /// Whether any namespace has the blob.
    fn known_anywhere(&self, digest: &Digest) -> Result<bool> {
        // Every namespace that has a blob is recorded: see `record`.
        for (namespace, _) in self.0.store.scan::<Namespaces>(())? {
            if self.0.store.contains::<Blobs>((&namespace, digest))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn files(&self) -> &Files {
        &self.0.files
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }
}

fn missing(namespace: &str, digest: &Digest) -> Error {
    Error::not_found(format!(
        "blob {digest} does not exist in namespace {namespace:?}"
    ))
}

/// Records a namespace with the first thing that is put into it.
pub(crate) fn ensure_namespace(tx: &Tx<'_>, name: &str) -> Result<()> {
    if tx.contains::<Namespaces>(name)? {
        return Ok(());
    }
    let now = Timestamp::now();
    let record = NamespaceRecord {
        name: name.to_owned(),
        labels: Labels::new(),
        created_at: now,
        updated_at: now,
    };
    tx.put::<Namespaces>(name, &record)
}

/// Runs what may wait for the disk where it holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Error::internal("work on disk was broken off").with_source(error))
        })
}
