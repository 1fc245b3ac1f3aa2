//! Bringing committed snapshots to disk in the background: one syncfs for all
//! that were committed since the last, instead of an fsync for each file.

use std::{collections::HashSet, os::fd::AsFd, time::Duration};

use davit_store::{Error, Result, Table, table};

use super::{Snapshots, sidecar::Sidecar};
use crate::{content::blocking, unpack::walk::open_root};

/// How long to wait for more snapshots before syncing them all.
const GATHER: Duration = Duration::from_secs(2);

impl Snapshots {
    /// Syncs whenever there is something to sync; runs until it is dropped.
    pub(crate) async fn sync_forever(self) {
        loop {
            self.0.unsynced.notified().await;
            tokio::time::sleep(GATHER).await;
            if let Err(error) = self.sync().await {
                tracing::warn!(
                    error = error.chain(),
                    "syncing snapshots to disk; trying again"
                );
                tokio::time::sleep(GATHER).await;
                self.0.unsynced.notify_one();
            }
        }
    }

    /// Brings all committed snapshots to disk and notes it.
    pub async fn sync(&self) -> Result<()> {
        let pending = self.unsynced()?;
        if pending.is_empty() {
            return Ok(());
        }
        let (this, dirs) = (
            self.clone(),
            pending.iter().map(|(_, dir)| *dir).collect::<HashSet<_>>(),
        );
        blocking(move || {
            let fail = |error| Error::io(format!("syncing {}", this.0.dir.display()), error);
            let root = open_root(&this.0.dir).map_err(fail)?;
            rustix::fs::syncfs(root.as_fd()).map_err(|error| fail(error.into()))?;
            dirs.iter()
                .try_for_each(|dir| Sidecar::mark_synced(&this.dir(*dir)))
        })
        .await?;
        self.0.store.transaction(|tx| {
            for (key, dir) in &pending {
                // It may have been removed, or removed and made again, meanwhile.
                if let Some(mut record) = tx.get::<table::Snapshots>(key)?
                    && record.dir == *dir
                {
                    record.unsynced_boot.clear();
                    tx.put::<table::Snapshots>(key, &record)?;
                }
            }
            Ok(())
        })
    }

    /// Keys and directories of committed snapshots that are not synced.
    fn unsynced(&self) -> Result<Vec<(<table::Snapshots as Table>::Key, u64)>> {
        let all = self.0.store.scan::<table::Snapshots>(())?;
        let mine = all
            .into_iter()
            .filter(|(key, record)| key.1 == self.name() && !record.unsynced_boot.is_empty());
        Ok(mine.map(|(key, record)| (key, record.dir)).collect())
    }
}
