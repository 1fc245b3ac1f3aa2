//! What the content store does when it opens: records and files are made to
//! agree again after a crash.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
};

use davit_store::{
    Result,
    table::{Blobs, Ingests},
};

use super::{Content, ensure_namespace};
use crate::Digest;

impl Content {
    /// Drops records of blobs whose files are gone or have another size (they
    /// were removed, or lost with a disk), and removes ingests that no record
    /// knows. Files that no record knows are left to
    /// [`Content::sweep_orphans`], since a lost store is rebuilt from them.
    pub(super) fn recover(&self) -> Result<()> {
        self.drop_lost_blobs()?;
        let known: HashSet<String> = self
            .store()
            .scan::<Ingests>(())?
            .into_iter()
            .map(|(_, record)| record.dir)
            .collect();
        for name in self.files().all_ingests()? {
            if !known.contains(&name) {
                self.files().remove_ingest(&name)?;
            }
        }
        Ok(())
    }

    fn drop_lost_blobs(&self) -> Result<()> {
        let mut sizes: BTreeMap<Digest, u64> = BTreeMap::new();
        for digest in self.files().all_blobs()? {
            if let Some(size) = self.files().size(&digest)? {
                sizes.insert(digest, size);
            }
        }
        for (key, record) in self.store().scan::<Blobs>(())? {
            let size = Digest::parse(&record.digest)
                .ok()
                .and_then(|digest| sizes.get(&digest).copied());
            if size == Some(record.size) {
                self.store()
                    .transaction(|tx| ensure_namespace(tx, &key.0))?;
                continue;
            }
            tracing::warn!(
                namespace = key.0,
                digest = key.1,
                expected = record.size,
                found = size,
                "the file of a blob is gone or was cut off: forgetting it"
            );
            self.store().transaction(|tx| tx.delete::<Blobs>(&key))?;
            if let (Some(_), Ok(digest)) = (size, Digest::parse(&record.digest)) {
                self.files().remove(&digest)?;
            }
        }
        Ok(())
    }

    /// Removes blob files that no namespace knows; gives their number and
    /// bytes.
    pub(crate) async fn sweep_orphans(&self) -> Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        let known: HashSet<String> = self
            .store()
            .scan::<Blobs>(())?
            .into_iter()
            .map(|((_, digest), _)| digest)
            .collect();
        for digest in self.files().all_blobs()? {
            if known.contains(digest.as_str()) {
                continue;
            }
            let freed = self.sweep(&digest).await?;
            if freed > 0 {
                (count, bytes) = (count + 1, bytes + freed);
            }
        }
        Ok((count, bytes))
    }

    /// Bytes of all blob files, and of all partial downloads.
    pub fn disk_usage(&self) -> Result<(u64, u64)> {
        let mut blobs = 0;
        for digest in self.files().all_blobs()? {
            blobs += self.files().size(&digest)?.unwrap_or(0);
        }
        let mut partial = 0;
        for (_, record) in self.store().scan::<Ingests>(())? {
            partial +=
                fs::metadata(self.files().ingest_data(&record.dir)).map_or(0, |meta| meta.len());
        }
        Ok((blobs, partial))
    }
}
