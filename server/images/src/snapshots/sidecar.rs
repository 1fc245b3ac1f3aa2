//! A small file beside each snapshot that says what it is, so that a lost
//! store can be made again from the directories.

use std::{fs, io};

use davit_store::{
    Error, Result,
    table::{SnapshotKind, SnapshotRecord},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SnapshotDir;
use crate::content::Labels;

const NAME: &str = "snapshot.json";

/// What a lost record can be made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sidecar {
    pub(super) namespace: String,
    key: String,
    #[serde(default)]
    parent: String,
    kind: SnapshotKind,
    #[serde(default)]
    labels: Labels,
    created_at: Timestamp,
    #[serde(default)]
    boot: String,
}

impl Sidecar {
    pub(super) fn of(namespace: &str, record: &SnapshotRecord) -> Self {
        Self {
            namespace: namespace.to_owned(),
            key: record.key.clone(),
            parent: record.parent.clone(),
            kind: record.kind,
            labels: record.labels.clone(),
            created_at: record.created_at,
            boot: record.unsynced_boot.clone(),
        }
    }

    /// The record of the directory `number`.
    pub(super) fn record(self, number: u64) -> SnapshotRecord {
        SnapshotRecord {
            key: self.key,
            parent: self.parent,
            kind: self.kind,
            labels: self.labels,
            dir: number,
            created_at: self.created_at,
            updated_at: self.created_at,
            // Whether it was synced is not noted here; with the same boot id
            // it does not matter, and with another the files are checked by
            // unpacking again.
            unsynced_boot: self.boot,
            ..SnapshotRecord::default()
        }
    }

    /// Writes it, replacing an older one in one step. Not synced: it shares
    /// the fate of the snapshot's files.
    pub(super) fn write(&self, dir: &SnapshotDir) -> Result<()> {
        let fail = |error: io::Error| Error::io(format!("describing {}", dir.0.display()), error);
        let text = serde_json::to_vec(self).map_err(|error| fail(error.into()))?;
        let path = dir.0.join(NAME);
        if !path.exists() {
            return fs::write(&path, text).map_err(fail);
        }
        let aside = dir.0.join(format!("{NAME}.new"));
        fs::write(&aside, text)
            .and_then(|()| fs::rename(&aside, &path))
            .map_err(fail)
    }

    /// Reads it; `None` when there is none that makes sense.
    pub(super) fn read(dir: &SnapshotDir) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.0.join(NAME)).ok()?).ok()
    }

    /// Notes that the snapshot's files are on disk.
    pub(super) fn mark_synced(dir: &SnapshotDir) -> Result<()> {
        match Self::read(dir) {
            Some(sidecar) if !sidecar.boot.is_empty() => Self {
                boot: String::new(),
                ..sidecar
            }
            .write(dir),
            _ => Ok(()),
        }
    }
}
