//! The records of containers, and their copies in the containers' directories:
//! for a store that was lost, and for a record that is damaged.

use davit_store::table::{
    Containers, Meta,
    container::{ContainerRecord, Phase},
    meta::MetaRecord,
};
use jiff::Timestamp;

use super::{Keys, container_dirs};
use crate::{Result, create, names, shared::Shared};

/// Name of the fact that says that this store has known an engine.
const OPENED: &str = "engine/opened";
/// Copy of a container's record beside its log.
pub(crate) const COPY: &str = "container.json";

/// A new store beside old containers is one that was lost: their records come
/// back from the copies.
pub(super) fn restore_lost(shared: &Shared) -> Result<()> {
    let fresh = shared.store.get::<Meta>(OPENED)?.is_none();
    if !fresh {
        return Ok(());
    }
    for (ns, id, dir) in container_dirs(&shared.config.root) {
        if !dir.join(COPY).exists() || shared.store.contains::<Containers>((&ns, &id))? {
            continue;
        }
        match from_copy(shared, &ns, &id) {
            Ok(_) => tracing::warn!(ns, id, "a container was found on disk and recorded again"),
            Err(reason) => tracing::error!(ns, id, reason, "cannot record a container again"),
        }
    }
    let at = MetaRecord {
        text: Timestamp::now().to_string(),
        ..Default::default()
    };
    shared.store.transaction(|tx| tx.put::<Meta>(OPENED, &at))
}

/// The records that are fit for use, and the keys of all. One that is damaged
/// comes back from its copy, or is left alone with all that belongs to it.
pub(super) fn read(shared: &Shared) -> Result<(Vec<(String, ContainerRecord)>, Keys)> {
    let mut fit = Vec::new();
    let mut keys = Keys::new();
    for ((ns, id), record) in shared.store.scan_each::<Containers>(())? {
        keys.insert((ns.clone(), id.clone()));
        let record = record
            .map_err(|error| error.chain())
            .and_then(
                |record| match record.id == id && names::check_namespace(&ns).is_ok() {
                    true => Ok(record),
                    false => Err("it does not fit its key".to_owned()),
                },
            )
            .or_else(|reason| {
                tracing::error!(ns, id, reason, "THE RECORD OF A CONTAINER IS DAMAGED");
                from_copy(shared, &ns, &id).inspect(|_| {
                    tracing::warn!(
                        ns,
                        id,
                        "the copy in the container's directory takes its place"
                    );
                })
            });
        match record {
            Ok(record) if record.details.is_some() => fit.push((ns, record)),
            // The containerd door's.
            Ok(_) => {}
            Err(reason) => {
                tracing::error!(
                    ns,
                    id,
                    reason,
                    "there is no copy; the container is left alone"
                );
            }
        }
    }
    Ok((fit, keys))
}

/// A container's record as its directory has it, in place of the stored one.
fn from_copy(shared: &Shared, ns: &str, id: &str) -> Result<ContainerRecord, String> {
    let path = create::container_dir(&shared.config.root, ns, id).join(COPY);
    let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
    let mut record =
        serde_json::from_slice::<ContainerRecord>(&bytes).map_err(|error| error.to_string())?;
    let Some(details) = record.details.as_deref_mut().filter(|_| record.id == id) else {
        return Err("the copy is another container's".to_owned());
    };
    // It may have run; its bundle tells.
    details.state.phase = Phase::Exited;
    details.state.has_been_started = true;
    shared
        .store
        .transaction(|tx| tx.put::<Containers>((ns, id), &record))
        .map_err(|error| error.chain())?;
    Ok(record)
}
