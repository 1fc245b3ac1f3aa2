//! Making, committing and removing snapshots: the record decides, the
//! directory comes before it and goes after it, so that a crash leaves at most
//! a directory that nobody knows.

use davit_store::{
    Error, Result,
    table::{self, SnapshotRecord},
};
use jiff::Timestamp;

use super::{Commit, Mount, SnapshotDir, SnapshotKind, Snapshots, backend, hold, sidecar::Sidecar};
use crate::{
    content::{Labels, blocking, ensure_namespace, labels},
    lease::Operation,
    unpack::remove::remove_path,
};

impl Snapshots {
    /// Makes a writable snapshot on `parent` (empty: on nothing).
    /// `AlreadyExists` for a key in use, `NotFound` for an unknown parent,
    /// `FailedPrecondition` for one that is not committed.
    pub async fn prepare(
        &self,
        op: &Operation,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        self.create(op, key, parent, labels, table::SnapshotKind::Active)
            .await
    }

    /// Makes a read-only view of `parent`; errors as [`Self::prepare`].
    pub async fn view(
        &self,
        op: &Operation,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        self.create(op, key, parent, labels, table::SnapshotKind::View)
            .await
    }

    async fn create(
        &self,
        op: &Operation,
        key: &str,
        parent: &str,
        labels: Labels,
        kind: table::SnapshotKind,
    ) -> Result<Vec<Mount>> {
        labels::check(&labels)?;
        if key.is_empty() {
            return Err(Error::invalid("a snapshot needs a key"));
        }
        hold(op, self, &[key, parent]);
        let namespace = op.namespace();
        if self.contains(namespace, key)? {
            return Err(exists(key));
        }
        if !parent.is_empty() {
            committed(&self.record(namespace, parent)?)?;
        }
        let now = Timestamp::now();
        let mut fresh = self.fresh_dir();
        let record = SnapshotRecord {
            key: key.to_owned(),
            parent: parent.to_owned(),
            kind,
            labels,
            dir: fresh.number,
            created_at: now,
            updated_at: now,
            ..SnapshotRecord::default()
        };
        let parents = self.parents(namespace, &record)?;
        let dir = self.make_dir(namespace, &record, &parents).await?;
        fail::fail_point!("images.snapshot.after-directory");
        let place = (namespace, self.name(), key);
        self.0.store.transaction(|tx| {
            ensure_namespace(tx, namespace)?;
            if tx.contains::<table::Snapshots>(place)? {
                return Err(exists(key));
            }
            if !parent.is_empty() {
                let parent = tx.get::<table::Snapshots>((namespace, self.name(), parent))?;
                committed(&parent.ok_or_else(|| self.missing(namespace, &record.parent))?)?;
            }
            tx.put::<table::Snapshots>(place, &record)?;
            op.note(tx, &self.resource(key))
        })?;
        fresh.keep = true;
        fail::fail_point!("images.snapshot.after-record");
        self.0.backend.mounts(&dir, kind.into(), &parents)
    }

    async fn make_dir(
        &self,
        namespace: &str,
        record: &SnapshotRecord,
        parents: &[SnapshotDir],
    ) -> Result<SnapshotDir> {
        let (this, parents) = (self.clone(), parents.to_vec());
        let sidecar = Sidecar::of(namespace, record);
        let (path, key, kind) = (
            self.dir(record.dir).0,
            record.key.clone(),
            SnapshotKind::from(record.kind),
        );
        blocking(move || {
            let dir = backend::new_dir(&path)?;
            this.0
                .backend
                .create(&dir, kind, &parents)
                .map_err(|error| {
                    Error::io(format!("making the directory of snapshot {key:?}"), error)
                })?;
            sidecar.write(&dir)?;
            Ok(dir)
        })
        .await
    }

    /// Turns the active snapshot `key` into the committed one `name`.
    /// `AlreadyExists` when there is one of that name; the active one stays.
    pub async fn commit(&self, op: &Operation, name: &str, key: &str, how: Commit) -> Result<()> {
        labels::check(&how.labels)?;
        if name.is_empty() {
            return Err(Error::invalid("a committed snapshot needs a name"));
        }
        hold(
            op,
            self,
            &[key, name, how.parent.as_deref().unwrap_or_default()],
        );
        let namespace = op.namespace();
        let before = self.record(namespace, key)?;
        active(&before)?;
        if self.contains(namespace, name)? {
            return Err(exists(name));
        }
        if how.parent.is_some() && !before.parent.is_empty() {
            return Err(Error::invalid(format!(
                "snapshot {key:?} has the parent {:?} already and can't get another",
                before.parent
            )));
        }
        let after = SnapshotRecord {
            key: name.to_owned(),
            kind: table::SnapshotKind::Committed,
            parent: how.parent.unwrap_or_else(|| before.parent.clone()),
            labels: how.labels,
            updated_at: Timestamp::now(),
            unsynced_boot: self.0.boot.clone(),
            ..before.clone()
        };
        self.note_in_sidecar(namespace, &after).await?;
        fail::fail_point!("images.snapshot.before-commit");
        self.0.store.transaction(|tx| {
            let place = (namespace, self.name(), key);
            let Some(now) = tx.get::<table::Snapshots>(place)? else {
                return Err(self.missing(namespace, key));
            };
            active(&now)?;
            if tx.contains::<table::Snapshots>((namespace, self.name(), name))? {
                return Err(exists(name));
            }
            if !after.parent.is_empty() {
                let parent = tx.get::<table::Snapshots>((namespace, self.name(), &after.parent))?;
                committed(&parent.ok_or_else(|| self.missing(namespace, &after.parent))?)?;
            }
            tx.delete::<table::Snapshots>(place)?;
            tx.put::<table::Snapshots>((namespace, self.name(), name), &after)?;
            op.note(tx, &self.resource(name))
        })?;
        fail::fail_point!("images.snapshot.after-commit");
        op.release(&self.resource(key));
        self.0.unsynced.notify_one();
        let (this, dir) = (self.clone(), self.dir(after.dir));
        blocking(move || {
            let sealed = this.0.backend.seal(&dir);
            sealed.map_err(|error| Error::io(format!("sealing {}", dir.0.display()), error))
        })
        .await
    }

    async fn note_in_sidecar(&self, namespace: &str, record: &SnapshotRecord) -> Result<()> {
        let (sidecar, dir) = (Sidecar::of(namespace, record), self.dir(record.dir));
        blocking(move || sidecar.write(&dir)).await
    }

    /// Removes a snapshot; its directory goes in the background.
    /// `FailedPrecondition` while it is a parent.
    pub async fn remove(&self, namespace: &str, key: &str) -> Result<()> {
        self.remove_now(namespace, key)
    }

    /// As [`Self::remove`], for where nothing can be awaited.
    pub(crate) fn remove_now(&self, namespace: &str, key: &str) -> Result<()> {
        let record = self.0.store.transaction(|tx| {
            let place = (namespace, self.name(), key);
            let Some(record) = tx.get::<table::Snapshots>(place)? else {
                return Err(self.missing(namespace, key));
            };
            // Only committed ones can be parents; the others need no search.
            if record.kind == table::SnapshotKind::Committed {
                let all = tx.scan::<table::Snapshots>((namespace, self.name()))?;
                if let Some((_, child)) = all.iter().find(|(_, other)| other.parent == key) {
                    return Err(Error::precondition(format!(
                        "snapshot {key:?} is the parent of {:?}; remove that first",
                        child.key
                    )));
                }
            }
            tx.delete::<table::Snapshots>(place)?;
            Ok(record)
        })?;
        fail::fail_point!("images.snapshot.after-remove");
        self.remove_later(record.dir);
        Ok(())
    }

    /// Removes the directory of a snapshot whose record was deleted, and waits
    /// until it is gone.
    pub(crate) async fn free(&self, number: u64) -> Result<()> {
        self.0.store.written().await?;
        let path = self.dir(number).0;
        blocking(move || {
            remove_path(&path)
                .map_err(|error| Error::io(format!("removing {}", path.display()), error))
        })
        .await
    }

    /// Removes a directory that no record knows, in the background. What a
    /// crash leaves of it goes at the next start.
    pub(super) fn remove_later(&self, number: u64) {
        let (this, path) = (self.clone(), self.dir(number).0);
        let work = move || {
            if let Err(error) = remove_path(&path) {
                tracing::warn!(path = %path.display(), %error, "removing the directory of a snapshot; the next start tries again");
            }
            drop(this);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let store = self.0.store.clone();
                runtime.clone().spawn(async move {
                    // The record must not come back after a crash when its
                    // files are gone. A store that fails says so elsewhere.
                    if store.written().await.is_ok() {
                        let _ = runtime.spawn_blocking(work).await;
                    }
                });
            }
            Err(_) => work(),
        }
    }
}

fn exists(key: &str) -> Error {
    Error::already_exists(format!("snapshot {key:?} exists already"))
}

fn committed(parent: &SnapshotRecord) -> Result<()> {
    match parent.kind {
        table::SnapshotKind::Committed => Ok(()),
        table::SnapshotKind::Active | table::SnapshotKind::View => {
            Err(Error::precondition(format!(
                "snapshot {:?} is not committed and so can't be a parent",
                parent.key
            )))
        }
    }
}

fn active(record: &SnapshotRecord) -> Result<()> {
    match record.kind {
        table::SnapshotKind::Active => Ok(()),
        table::SnapshotKind::View | table::SnapshotKind::Committed => {
            Err(Error::precondition(format!(
                "snapshot {:?} is not active and so can't be committed",
                record.key
            )))
        }
    }
}
