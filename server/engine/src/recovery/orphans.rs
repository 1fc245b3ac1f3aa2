//! What belongs to no container: bundles and their shims, sockets,
//! directories, writable layers.

use std::{collections::HashSet, sync::Arc};

use davit_store::table::Namespaces;

use super::{Keys, bundles, container_dirs, revive::abandon};
use crate::{create, names, shared::Shared};

/// Removes, in the background, what belongs to no container.
pub(super) fn clear(shared: &Arc<Shared>, known: &Keys) {
    let unknown = |ns: &str, id: &str| !known.contains(&(ns.to_owned(), id.to_owned()));
    for (ns, id, bundle) in bundles(&shared.config.state) {
        if unknown(&ns, &id) {
            tracing::warn!(
                ns,
                id,
                "a shim's bundle belongs to no container; it is ended and removed"
            );
            let shared = Arc::clone(shared);
            tokio::spawn(async move { abandon(&shared, &ns, &id, &bundle, None).await });
        }
    }
    let sockets = bundles(&shared.config.state)
        .into_iter()
        .map(|(_, _, bundle)| bundle.socket)
        .collect::<HashSet<_>>();
    for entry in std::fs::read_dir(shared.config.state.join("s"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if !sockets.contains(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    for (ns, id, dir) in container_dirs(&shared.config.root) {
        if unknown(&ns, &id) && names::is_id(&id) {
            tracing::warn!(dir = %dir.display(), "a directory belongs to no container; it is removed");
            tokio::spawn(async move { tokio::fs::remove_dir_all(dir).await });
        }
    }
    clear_snapshots(shared, known);
}

/// Writable layers that no container has: made, and not recorded.
fn clear_snapshots(shared: &Arc<Shared>, known: &Keys) {
    let recorded = shared.store.scan::<Namespaces>(()).unwrap_or_default();
    let spaces = known
        .iter()
        .map(|(ns, _)| ns.clone())
        .chain(recorded.into_iter().map(|(ns, _)| ns))
        .collect::<HashSet<_>>();
    for ns in spaces {
        let found = shared
            .images
            .snapshots(&shared.config.snapshotter)
            .and_then(|all| all.walk(&ns));
        let Ok(found) = found else { continue };
        for snapshot in found {
            let owner = snapshot.labels.get(create::LABEL);
            if owner.is_some_and(|id| !known.contains(&(ns.clone(), id.clone()))) {
                let (shared, ns) = (Arc::clone(shared), ns.clone());
                tokio::spawn(async move {
                    let Ok(snapshots) = shared.images.snapshots(&shared.config.snapshotter) else {
                        return;
                    };
                    if let Err(error) = snapshots.remove(&ns, &snapshot.key).await {
                        tracing::warn!(snapshot = snapshot.key, error = %error.chain(), "cannot remove it");
                    }
                });
            }
        }
    }
}
