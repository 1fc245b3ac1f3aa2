//! What a snapshotter does when it opens: records and directories are made to
//! agree, and what another boot did not bring to disk is given up.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    sync::{PoisonError, atomic::Ordering},
};

use davit_store::{Error, Result, table};

use super::{Snapshots, sidecar::Sidecar};
use crate::{
    content::{Content, ensure_namespace},
    repair::keep_for_ever,
    unpack::{UNPACKS, remove::remove_path},
};

impl Snapshots {
    /// Drops records whose directories are gone, and committed snapshots that
    /// were not on disk when the machine went down: they are unpacked again
    /// from their blobs when they are needed. Directories without record are
    /// left to [`Self::sweep_orphans`], since a lost store is rebuilt from
    /// them.
    pub(super) fn recover(&self) -> Result<()> {
        let dirs = self.numbers()?;
        let highest = dirs.iter().max().copied().unwrap_or(0);
        self.0.next.store(highest + 1, Ordering::Relaxed);
        for (key, record) in self.0.store.scan::<table::Snapshots>(())? {
            if key.1 != self.name() {
                continue;
            }
            let lost = !dirs.contains(&record.dir);
            let torn = !record.unsynced_boot.is_empty() && record.unsynced_boot != self.0.boot;
            if !lost && !torn {
                if !record.unsynced_boot.is_empty() {
                    self.0.unsynced.notify_one();
                }
                self.0
                    .store
                    .transaction(|tx| ensure_namespace(tx, &key.0))?;
                continue;
            }
            tracing::warn!(
                namespace = key.0,
                key = key.2,
                reason = if lost {
                    "its directory is gone"
                } else {
                    "it was not on disk when the machine went down"
                },
                "forgetting a snapshot"
            );
            self.0
                .store
                .transaction(|tx| tx.delete::<table::Snapshots>(&key))?;
        }
        Ok(())
    }

    /// Numbers of all directories.
    pub(crate) fn numbers(&self) -> Result<HashSet<u64>> {
        let fail = |error| Error::io(format!("reading {}", self.0.dir.display()), error);
        let mut numbers = HashSet::new();
        for entry in fs::read_dir(&self.0.dir).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// Removes directories that no record knows and nobody is filling; gives
    /// their paths. Blocks.
    pub(crate) fn sweep_orphans(&self) -> Result<Vec<std::path::PathBuf>> {
        // Directories first, then who is being made, then records: one that
        // gets its record in between is in one of the two.
        let dirs = self.numbers()?;
        let fresh = self
            .0
            .fresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let known: HashSet<u64> = self
            .0
            .store
            .scan::<table::Snapshots>(())?
            .into_iter()
            .filter(|(key, _)| key.1 == self.name())
            .map(|(_, record)| record.dir)
            .collect();
        let mut removed = Vec::new();
        for number in dirs.difference(&known) {
            if fresh.contains(number) {
                continue;
            }
            let path = self.dir(*number).0;
            remove_path(&path)
                .map_err(|error| Error::io(format!("removing {}", path.display()), error))?;
            removed.push(path);
        }
        Ok(removed)
    }

    /// Compares records with directories: one sentence for each thing that is
    /// wrong, which is mended with `repair`. Blocks.
    pub(crate) fn check(&self, content: &Content, repair: bool) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        let dirs = self.numbers()?;
        let mut known = HashSet::new();
        let mut all = BTreeMap::new();
        for (key, record) in self.0.store.scan::<table::Snapshots>(())? {
            if key.1 == self.name() {
                known.insert(record.dir);
                all.insert(key, record);
            }
        }
        for (key, record) in &all {
            let what = format!("snapshot {:?} of namespace {:?} ({})", key.2, key.0, key.1);
            let parent = (key.0.clone(), key.1.clone(), record.parent.clone());
            if !record.parent.is_empty() && !all.contains_key(&parent) {
                problems.push(format!(
                    "{what} lacks its parent {:?}: unpack its image again",
                    record.parent
                ));
            }
            let lost = !dirs.contains(&record.dir);
            let torn = !record.unsynced_boot.is_empty() && record.unsynced_boot != self.0.boot;
            if lost || torn {
                let why = if lost {
                    "has no directory"
                } else {
                    "was not on disk when the machine went down"
                };
                problems.push(format!("{what} {why}"));
                if repair {
                    content
                        .store()
                        .transaction(|tx| tx.delete::<table::Snapshots>(key))?;
                }
            }
        }
        for number in dirs.difference(&known) {
            let path = self.dir(*number).0;
            problems.push(format!("{} belongs to no snapshot", path.display()));
            if repair {
                remove_path(&path)
                    .map_err(|error| Error::io(format!("removing {}", path.display()), error))?;
            }
        }
        Ok(problems)
    }

    /// Makes records from the directories' own notes where there are none;
    /// gives how many. For a store that was lost.
    pub(crate) fn rebuild(&self) -> Result<usize> {
        let mut made = 0;
        let mut by_place = BTreeMap::new();
        for number in self.numbers()? {
            let Some(sidecar) = Sidecar::read(&self.dir(number)) else {
                continue;
            };
            let namespace = sidecar.namespace.clone();
            let mut record = sidecar.record(number);
            match record.kind {
                table::SnapshotKind::Committed => {}
                // Half of a layer, or nothing of its own: made again at need.
                table::SnapshotKind::View => continue,
                table::SnapshotKind::Active if record.labels.contains_key(UNPACKS) => continue,
                table::SnapshotKind::Active => keep_for_ever(&mut record.labels),
            }
            let torn = !record.unsynced_boot.is_empty() && record.unsynced_boot != self.0.boot;
            if !torn && self.dir(number).fs().is_dir() {
                by_place.insert(
                    (namespace, self.name().to_owned(), record.key.clone()),
                    record,
                );
            }
        }
        for (place, record) in by_place {
            let added = self.0.store.transaction(|tx| {
                if tx.contains::<table::Snapshots>(&place)? {
                    return Ok(false);
                }
                ensure_namespace(tx, &place.0)?;
                tx.put::<table::Snapshots>(&place, &record)?;
                Ok(true)
            })?;
            made += usize::from(added);
        }
        Ok(made)
    }
}
