//! The schema: which version a store has, and the steps from older ones.
//!
//! Fields come and go without a step (records are read by field name, missing
//! ones as their default). A step is for what changes keys or meanings. Each
//! runs in one batch with the new version number, so a crash between two
//! leaves the store at one of the versions.

use crate::{Error, Kind, Result, backend::Backend, seal::Seal, values};
use std::collections::BTreeMap;

/// What a migration step reads and writes with: values below the tables, by
/// the keys that the crate's documentation lists.
pub(crate) struct Step<'a> {
    backend: &'a Backend,
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// Brings a store from one version to the next.
pub(crate) type Migration = fn(&mut Step<'_>) -> Result<()>;

/// Steps; the one at index n leads from version n + 1 to n + 2.
const MIGRATIONS: &[Migration] = &[];

/// The schema that this code reads and writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema {
    migrations: &'static [Migration],
}

impl Default for Schema {
    fn default() -> Self {
        Self {
            migrations: MIGRATIONS,
        }
    }
}

fn version_key() -> Vec<u8> {
    let mut key = vec![values::STORE];
    key.extend_from_slice(b"schema");
    key
}

impl Schema {
    #[cfg(test)]
    pub(crate) fn with(migrations: &'static [Migration]) -> Self {
        Self { migrations }
    }

    fn version(self) -> u64 {
        self.migrations.len() as u64 + 1
    }

    /// Gives an empty store its version and its seal.
    pub(crate) fn begin(self, backend: &Backend) -> Result<()> {
        let mut step = Step::new(backend);
        step.finish(self.version(), Seal::default())
    }

    /// The version that a store has. [`Kind::FailedPrecondition`] when a
    /// newer davit wrote it, [`Kind::DataLoss`] when it has none.
    pub(crate) fn found(self, backend: &Backend) -> Result<u64> {
        let value = values::get(backend, &version_key())?;
        let damaged = || Error::new(Kind::DataLoss, "the store's schema version is damaged");
        let bytes = value.ok_or_else(damaged)?.try_into();
        let version = bytes.map(u64::from_be_bytes).map_err(|_| damaged())?;
        let ours = self.version();
        if version > ours {
            return Err(Error::precondition(format!(
                "the store has schema version {version}, and this davitd knows {ours} at most: start the newer davitd that wrote it"
            )));
        }
        Ok(version)
    }

    /// Whether a store of this version needs a step.
    pub(crate) fn is_newer_than(self, version: u64) -> bool {
        self.version() > version
    }

    /// Brings a store of version `version` to this schema.
    pub(crate) fn apply(self, backend: &Backend, mut version: u64) -> Result<()> {
        let done = usize::try_from(version.saturating_sub(1)).unwrap_or(usize::MAX);
        for migrate in self.migrations.iter().skip(done) {
            let seal = Seal::read(backend)?.unwrap_or_default();
            let mut step = Step::new(backend);
            migrate(&mut step)?;
            version += 1;
            step.finish(version, seal)?;
            tracing::info!(version, "brought the store to a newer schema");
        }
        Ok(())
    }
}

impl<'a> Step<'a> {
    fn new(backend: &'a Backend) -> Self {
        Self {
            backend,
            changes: BTreeMap::new(),
        }
    }

    /// All values whose keys begin with `prefix`, as they were before this
    /// step.
    #[allow(dead_code)] // for the first migration; until then for the tests
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        values::scan(self.backend, prefix, prefix, usize::MAX)
    }

    /// Sets the value of `key`, or removes it.
    pub(crate) fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.changes.insert(key, value);
    }

    fn finish(&mut self, version: u64, seal: Seal) -> Result<()> {
        self.set(version_key(), Some(version.to_be_bytes().to_vec()));
        let mut batch = values::batch(self.backend, &self.changes)?;
        seal.close(&mut batch);
        self.backend.apply(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Condition, NewEvent, Options, Store, Table,
        open::{self, Seams},
        table::{ImageRecord, Images, NamespaceRecord, Namespaces},
    };
    use std::path::Path;

    /// Moves each image of the namespace "old" to "new".
    fn rename_namespace(step: &mut Step<'_>) -> Result<()> {
        let old = [b"rimages\0old\0\x01".as_slice()].concat();
        for (key, value) in step.scan(&old)? {
            let renamed = [b"rimages\0new\0\x01", &key[old.len()..]].concat();
            step.set(key, None);
            step.set(renamed, Some(value));
        }
        Ok(())
    }

    fn fails(_: &mut Step<'_>) -> Result<()> {
        Err(Error::internal("not today"))
    }

    fn open_with(dir: &Path, migrations: &'static [Migration]) -> Result<Store> {
        let seams = Seams {
            schema: Schema::with(migrations),
            ..Seams::default()
        };
        let opened = open::open(dir, Options::default(), seams)?;
        assert!(!matches!(opened.condition, Condition::Rebuilt { .. }));
        Ok(opened.store)
    }

    #[test]
    fn an_older_store_is_brought_forward_and_a_newer_one_refused() {
        assert_eq!(Images::NAME, "images");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = open_with(&path, &[]).unwrap();
        let long = ImageRecord {
            name: "x".repeat(10_000),
            ..ImageRecord::default()
        };
        store
            .transaction(|tx| {
                tx.put::<Images>(("old", "a"), &long)?;
                tx.put::<Images>(("older", "a"), &ImageRecord::default())?;
                tx.put::<Namespaces>("old", &NamespaceRecord::default())?;
                tx.event(NewEvent::default())
            })
            .unwrap();
        store.close().unwrap();
        drop(store);

        let failed = open_with(&path, &[rename_namespace, fails]).unwrap_err();
        assert_eq!(failed.kind(), Kind::Internal);
        // The first step was taken, and is not taken twice.
        let store = open_with(&path, &[fails]).unwrap();
        assert_eq!(store.get::<Images>(("new", "a")).unwrap(), Some(long));
        assert!(!store.contains::<Images>(("old", "a")).unwrap());
        assert!(store.contains::<Images>(("older", "a")).unwrap());
        assert!(store.contains::<Namespaces>("old").unwrap());
        assert_eq!(store.events().last_number(), 1);
        assert_eq!(store.verify().unwrap().problems, [""; 0]);
        store.close().unwrap();
        drop(store);

        let newer = open_with(&path, &[]).unwrap_err();
        assert_eq!(newer.kind(), Kind::FailedPrecondition);
        assert!(newer.chain().contains("schema version 2"), "{newer:?}");
        open_with(&path, &[fails]).unwrap();
    }
}
