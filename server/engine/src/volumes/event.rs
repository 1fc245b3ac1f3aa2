//! Events about volumes, in docker's words.

use std::collections::BTreeMap;

use davit_store::{
    NewEvent,
    table::{VolumeRecord, container::ContainerRecord},
};

use crate::events::Draft;

/// "create" and "destroy".
pub(super) fn about(ns: &str, record: &VolumeRecord, action: &str) -> NewEvent {
    NewEvent {
        namespace: ns.to_owned(),
        kind: "volume".to_owned(),
        action: action.to_owned(),
        id: record.name.clone(),
        attributes: [("driver".to_owned(), record.driver.clone())].into(),
    }
}

/// "prune", which is about no volume.
pub(super) fn pruned(ns: &str, reclaimed: u64) -> NewEvent {
    NewEvent {
        namespace: ns.to_owned(),
        kind: "volume".to_owned(),
        action: "prune".to_owned(),
        id: String::new(),
        attributes: BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]),
    }
}

/// "mount" for each volume of a container that starts.
pub(crate) fn mounted(container: &ContainerRecord) -> Vec<Draft> {
    let details = container.details.as_deref();
    let volumes = details
        .into_iter()
        .flat_map(|details| &details.mounts)
        .filter(|mount| !mount.volume.is_empty());
    volumes
        .map(|mount| {
            Draft::of_volume(&mount.volume, "mount")
                .with("container", &container.id)
                .with("destination", &mount.target)
                .with("driver", &mount.driver)
                .with("propagation", &mount.propagation)
                .with("read/write", !mount.read_only)
        })
        .collect()
}

/// "unmount" for each volume of a container that ended.
pub(crate) fn unmounted(container: &ContainerRecord) -> Vec<Draft> {
    let details = container.details.as_deref();
    let volumes = details
        .into_iter()
        .flat_map(|details| &details.mounts)
        .filter(|mount| !mount.volume.is_empty());
    volumes
        .map(|mount| {
            Draft::of_volume(&mount.volume, "unmount")
                .with("container", &container.id)
                .with("driver", &mount.driver)
        })
        .collect()
}
