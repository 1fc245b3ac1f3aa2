//! The schema: which version a store has, and the steps from older ones.
//!
//! Fields come and go without a step (records are read by field name, missing
//! ones as their default). A step is for what changes keys or meanings. Each
//! runs in one batch with the new version number, so a crash between two
//! leaves the store at one of the versions.

use crate::{
    Error, Kind, Result,
    backend::{Backend, Batch},
    values,
};

/// What a migration step reads and writes with: entries below the tables.
pub(crate) struct Step<'a> {
    backend: &'a Backend,
    batch: Batch,
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

    /// Brings the store to this schema. [`Kind::FailedPrecondition`] when a
    /// newer davit wrote it.
    pub(crate) fn apply(self, backend: &Backend) -> Result<()> {
        let key = version_key();
        let mut version = match values::get(backend, &key)? {
            Some(value) => decode_version(&value)?,
            None if backend.scan(&[], &[], 1)?.is_empty() => {
                let mut batch = Batch::default();
                let value = self.version().to_be_bytes();
                values::put(backend, &mut batch, &key, &value)?;
                return backend.apply(batch);
            }
            None => {
                return Err(Error::new(
                    Kind::DataLoss,
                    "the store has entries but no schema version",
                ));
            }
        };
        if version > self.version() {
            let ours = self.version();
            return Err(Error::precondition(format!(
                "the store has schema version {version}, and this davitd knows {ours} at most: start the newer davitd that wrote it"
            )));
        }
        while version < self.version() {
            let index = usize::try_from(version - 1).unwrap_or(usize::MAX);
            let Some(migrate) = self.migrations.get(index) else {
                return Err(Error::new(Kind::DataLoss, "the schema version is damaged"));
            };
            let mut step = Step {
                backend,
                batch: Batch::default(),
            };
            migrate(&mut step)?;
            version += 1;
            values::put(backend, &mut step.batch, &key, &version.to_be_bytes())?;
            backend.apply(step.batch)?;
            tracing::info!(version, "brought the store to a newer schema");
        }
        Ok(())
    }
}

fn decode_version(value: &[u8]) -> Result<u64> {
    let bytes = value.try_into().map(u64::from_be_bytes);
    match bytes {
        Ok(version) if version > 0 => Ok(version),
        _ => Err(Error::new(Kind::DataLoss, "the schema version is damaged")),
    }
}

#[allow(dead_code)] // for the first migration; used by the tests until then
impl Step<'_> {
    /// All values whose keys begin with `prefix`.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        values::scan(self.backend, prefix, prefix, usize::MAX)
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        values::put(self.backend, &mut self.batch, key, value)
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<()> {
        values::delete(self.backend, &mut self.batch, key)
    }
}
