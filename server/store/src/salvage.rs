//! What can be saved from a damaged store: records that still read well.
//!
//! They may be old, and some may be missing, but names, options and labels
//! that are nowhere else on disk are worth having. Events are not saved: a log
//! with holes would be no log.

use crate::{
    Result,
    backend::{Backend, Entry},
    seal::Seal,
    values, verify,
};
use std::collections::BTreeMap;

/// Entries that are read at a time; a damaged page spoils no more than these.
const STEP: usize = 16;

/// Values that are written in one batch.
const BATCH: usize = 64;

/// The records of `damaged` that can be read, by key.
pub(crate) fn records(damaged: &Backend) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for (name, _) in crate::table::ALL {
        let mut prefix = vec![values::RECORDS];
        prefix.extend_from_slice(name.as_bytes());
        prefix.push(0);
        // Each table by itself: a page that can't be read ends one walk only.
        let mut from = prefix.clone();
        while let Ok(entries) = damaged.scan(&prefix, &from, STEP) {
            let Some((last, _)) = entries.last() else {
                break;
            };
            from.clone_from(last);
            from.push(0);
            for entry in entries {
                if let Some((key, value)) = readable(damaged, entry) {
                    found.insert(key, Some(value));
                }
            }
        }
    }
    found
}

fn readable(damaged: &Backend, (key, entry): Entry) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = values::whole(damaged, &key, entry).ok()?;
    verify::check_record(&key, &value).ok()?;
    Some((key, value))
}

/// Puts the records into a new store.
pub(crate) fn put_back(
    records: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    backend: &Backend,
) -> Result<()> {
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let some: BTreeMap<_, _> = records.by_ref().take(BATCH).collect();
        let seal = Seal::read(backend)?.unwrap_or_default();
        let mut batch = values::batch(backend, &some)?;
        seal.close(&mut batch);
        backend.apply(batch)?;
    }
    Ok(())
}
