//! Ingests: blobs that are still coming in, which another try continues.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, sync::Arc};

use davit_store::{
    Error, Kind, Result,
    table::{IngestRecord, Ingests},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    BlobInfo, Content, Expected, Files, Labels, Opened, Tee, blocking, ensure_namespace,
    files::make_dir,
    writer::{Locks, Place, Writer},
};
use crate::{
    Digest,
    lease::{Operation, Resource},
};

/// A partial download.
#[derive(Debug, Clone, PartialEq)]
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
    /// When it was opened last.
    pub updated_at: Timestamp,
}

/// What [`Content::reserve`] gives.
pub(crate) enum Reserved {
    /// The blob is here.
    Exists(BlobInfo),
    /// Bytes are wanted.
    Place(Reservation),
}

/// The right to write an ingest.
pub(crate) struct Reservation {
    place: Place,
    file: std::fs::File,
    offset: u64,
}

impl Reservation {
    /// Starts the writer; all bytes, those of earlier tries first, go on to
    /// `tee` as well.
    pub(crate) fn start(self, tee: Option<Tee>) -> Result<Writer> {
        Writer::start(self.place, self.file, self.offset, tee)
    }
}

impl Content {
    /// Opens the ingest `reference` for writing. With an expected digest it
    /// waits while another writer brings the same blob, in whatever namespace,
    /// and then answers [`Opened::Exists`]. `Unavailable` when the reference
    /// is open already for something else.
    pub async fn writer(
        &self,
        op: &Operation,
        reference: &str,
        expected: Expected,
    ) -> Result<Opened> {
        match self.reserve(op, reference, expected).await? {
            Reserved::Exists(info) => Ok(Opened::Exists(info)),
            Reserved::Place(place) => place.start(None).map(Opened::Writer),
        }
    }

    /// As [`Self::writer`], without starting it.
    pub(crate) async fn reserve(
        &self,
        op: &Operation,
        reference: &str,
        expected: Expected,
    ) -> Result<Reserved> {
        op.hold(Resource::Ingest(reference.to_owned()));
        let key = (op.namespace().to_owned(), reference.to_owned());
        let digest = match &expected.digest {
            Some(digest) => {
                op.hold(Resource::Blob(digest.clone()));
                Some(self.0.digests.enter(digest.clone()).await)
            }
            None => None,
        };
        if let (Some(wanted), Some(flight)) = (&expected.digest, &digest)
            && let Some(size) = self.0.files.size(wanted)?
        {
            let info = self.record(op, wanted, size, &Labels::new(), flight, |_| Ok(()))?;
            return Ok(Reserved::Exists(info));
        }
        let reference_lock = self.0.references.try_enter(key).ok_or_else(|| {
            Error::new(
                Kind::Unavailable,
                format!("ingest {reference:?} is being written already"),
            )
        })?;
        let locks = Arc::new(Locks {
            _reference: reference_lock,
            digest,
        });
        let (place, file, offset) = self.open_ingest(op, reference, expected, locks).await?;
        Ok(Reserved::Place(Reservation {
            place,
            file,
            offset,
        }))
    }

    async fn open_ingest(
        &self,
        op: &Operation,
        reference: &str,
        expected: Expected,
        locks: Arc<Locks>,
    ) -> Result<(Place, std::fs::File, u64)> {
        let dir = Files::ingest_name(op.namespace(), reference);
        let path = self.0.files.ingest_data(&dir);
        let continues = self.record_ingest(op, reference, &dir, &expected)?;
        fail::fail_point!("images.content.after-ingest-record");
        let limit = expected.size.unwrap_or(u64::MAX);
        let (data, what) = (path.clone(), reference.to_owned());
        let (file, offset) = blocking(move || {
            if let Some(parent) = data.parent() {
                make_dir(parent)?;
            }
            let fail = |error| Error::io(format!("opening the ingest {what:?}"), error);
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(!continues)
                .mode(0o600)
                .open(&data)
                .map_err(fail)?;
            let mut offset = file.metadata().map_err(fail)?.len();
            if offset > limit {
                file.set_len(0).map_err(fail)?;
                offset = 0;
            }
            Ok((file, offset))
        })
        .await?;
        let place = Place {
            content: self.clone(),
            op: op.clone(),
            reference: reference.to_owned(),
            dir,
            path,
            expected,
            locks,
        };
        Ok((place, file, offset))
    }

    /// Records that an ingest is being written; whether what lies there is
    /// the beginning of the same thing.
    fn record_ingest(
        &self,
        op: &Operation,
        reference: &str,
        dir: &str,
        expected: &Expected,
    ) -> Result<bool> {
        let now = Timestamp::now();
        let ttl =
            SignedDuration::try_from(self.0.partial_ttl).unwrap_or(SignedDuration::from_hours(24));
        let key = (op.namespace(), reference);
        let wanted = expected
            .digest
            .as_ref()
            .map(Digest::to_string)
            .unwrap_or_default();
        self.0.store.transaction(|tx| {
            ensure_namespace(tx, op.namespace())?;
            let before = tx.get::<Ingests>(key)?;
            let continues = before
                .as_ref()
                .is_some_and(|before| before.expected == wanted);
            let record = IngestRecord {
                reference: reference.to_owned(),
                dir: dir.to_owned(),
                expected: wanted,
                total: expected.size.unwrap_or(0),
                started_at: before
                    .filter(|_| continues)
                    .map_or(now, |before| before.started_at),
                updated_at: now,
                expires_at: now.checked_add(ttl).ok(),
            };
            tx.put::<Ingests>(key, &record)?;
            op.note(tx, &Resource::Ingest(reference.to_owned()))?;
            Ok(continues)
        })
    }

    /// Makes an ingest whose bytes are complete and checked a blob.
    pub(super) async fn adopt(
        &self,
        place: Place,
        (digest, size): (Digest, u64),
        labels: Labels,
    ) -> Result<BlobInfo> {
        place.op.hold(Resource::Blob(digest.clone()));
        let entered;
        let flight = match &place.locks.digest {
            Some(flight) => flight,
            None => {
                entered = self.0.digests.enter(digest.clone()).await;
                &entered
            }
        };
        if self.0.files.size(&digest)?.is_none() {
            let (files, path, digest) = (self.0.files.clone(), place.path.clone(), digest.clone());
            blocking(move || {
                let file = std::fs::File::open(&path)
                    .map_err(|error| Error::io(format!("opening the ingest of {digest}"), error))?;
                files.adopt(&file, &path, &digest)
            })
            .await?;
        }
        let reference = place.reference.as_str();
        let info = self.record(&place.op, &digest, size, &labels, flight, |tx| {
            tx.delete::<Ingests>((place.op.namespace(), reference))
                .map(drop)
        })?;
        self.remove_ingest_dir(&place.dir).await?;
        Ok(info)
    }

    /// Throws an ingest away that its writer has finished with.
    pub(super) async fn drop_ingest(&self, place: &Place) -> Result<()> {
        let key = (place.op.namespace(), place.reference.as_str());
        self.0.store.transaction(|tx| tx.delete::<Ingests>(key))?;
        self.remove_ingest_dir(&place.dir).await
    }

    async fn remove_ingest_dir(&self, dir: &str) -> Result<()> {
        let (files, dir) = (self.0.files.clone(), dir.to_owned());
        blocking(move || files.remove_ingest(&dir)).await
    }

    /// Removes the data of an ingest whose record was deleted, unless somebody
    /// is writing it again.
    pub(crate) async fn free_ingest(&self, namespace: &str, reference: &str) -> Result<()> {
        let key = (namespace.to_owned(), reference.to_owned());
        let Some(_lock) = self.0.references.try_enter(key) else {
            return Ok(());
        };
        if self.0.store.contains::<Ingests>((namespace, reference))? {
            return Ok(());
        }
        self.remove_ingest_dir(&Files::ingest_name(namespace, reference))
            .await
    }

    /// All partial downloads of a namespace.
    pub fn ingests(&self, namespace: &str) -> Result<Vec<IngestInfo>> {
        let found = self.0.store.scan::<Ingests>(namespace)?;
        Ok(found
            .into_iter()
            .map(|(_, record)| self.ingest_info(record))
            .collect())
    }

    /// One partial download. `NotFound` when there is none.
    pub fn ingest(&self, namespace: &str, reference: &str) -> Result<IngestInfo> {
        let found = self.0.store.get::<Ingests>((namespace, reference))?;
        found
            .map(|record| self.ingest_info(record))
            .ok_or_else(|| missing(namespace, reference))
    }

    fn ingest_info(&self, record: IngestRecord) -> IngestInfo {
        let size = std::fs::metadata(self.0.files.ingest_data(&record.dir)).map(|meta| meta.len());
        IngestInfo {
            offset: size.unwrap_or(0),
            total: (record.total > 0).then_some(record.total),
            expected: Digest::parse(&record.expected).ok(),
            reference: record.reference,
            started_at: record.started_at,
            updated_at: record.updated_at,
        }
    }

    /// Throws a partial download away. `Unavailable` while it is being
    /// written, `NotFound` when there is none.
    pub async fn abort(&self, namespace: &str, reference: &str) -> Result<()> {
        let key = (namespace.to_owned(), reference.to_owned());
        let Some(_lock) = self.0.references.try_enter(key) else {
            return Err(Error::new(
                Kind::Unavailable,
                format!("ingest {reference:?} is being written; cancel that first"),
            ));
        };
        let record = self.0.store.get::<Ingests>((namespace, reference))?;
        let record = record.ok_or_else(|| missing(namespace, reference))?;
        self.0
            .store
            .transaction(|tx| tx.delete::<Ingests>((namespace, reference)))?;
        self.remove_ingest_dir(&record.dir).await
    }
}

fn missing(namespace: &str, reference: &str) -> Error {
    Error::not_found(format!(
        "ingest {reference:?} does not exist in namespace {namespace:?}"
    ))
}
