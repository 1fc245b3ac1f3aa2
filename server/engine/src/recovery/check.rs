//! The offline look at records, bundles and directories.

use std::collections::HashSet;

use davit_store::table::{Containers, Intents};

use super::{bundles, container_dirs};
use crate::{Error, Kind, Result, names};

/// Looks, without a daemon, whether records, bundles and directories fit; with
/// `repair` removes what belongs to nothing. Gives a sentence for each thing.
pub async fn check(
    config: &crate::EngineConfig,
    store: &davit_store::Store,
    images: &davit_images::Images,
    repair: bool,
) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut known = HashSet::new();
    for ((ns, id), record) in store.scan::<Containers>(())? {
        known.insert((ns.clone(), id.clone()));
        let snapshots = images.snapshots(&record.snapshotter);
        let snapshot = snapshots.and_then(|snapshots| snapshots.stat(&ns, &record.snapshot_key));
        if let Err(error) = snapshot
            && error.kind() == Kind::NotFound
        {
            problems.push(format!(
                "{ns}/{id}: its writable layer {} is gone",
                record.snapshot_key
            ));
        }
    }
    for (ns, id, bundle) in bundles(&config.state) {
        if !known.contains(&(ns.clone(), id.clone())) {
            problems.push(format!(
                "{ns}/{id}: a shim's bundle of no container at {}; davitd ends it when it starts",
                bundle.dir.display()
            ));
        }
    }
    for (ns, id, dir) in container_dirs(&config.root) {
        if !known.contains(&(ns.clone(), id.clone())) {
            problems.push(format!(
                "{ns}/{id}: a directory of no container at {}",
                dir.display()
            ));
            if repair && names::is_id(&id) {
                std::fs::remove_dir_all(&dir).map_err(|error| {
                    Error::io(format!("cannot remove {}", dir.display()), error)
                })?;
            }
        }
    }
    for (key, _) in store.scan::<Intents>(())? {
        problems.push(format!(
            "{key}: was begun and not finished; davitd does it when it starts"
        ));
    }
    Ok(problems)
}
