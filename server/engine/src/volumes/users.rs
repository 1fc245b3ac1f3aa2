//! Which containers have which volumes, as the stored containers say.

use std::collections::BTreeMap;

use davit_store::table::{Containers, container::ContainerRecord};

use crate::{Result, shared::Shared};

/// What the stored containers of a namespace say.
#[derive(Debug, Default)]
pub(super) struct Users {
    by_volume: BTreeMap<String, Vec<String>>,
    /// Containers whose record can't be read: nobody knows what they have.
    pub(super) unreadable: Vec<String>,
}

impl Users {
    pub(super) fn read(shared: &Shared, ns: &str) -> Result<Self> {
        let mut users = Self::default();
        for ((_, id), record) in shared.store.scan_each::<Containers>(ns)? {
            match record {
                Ok(record) => {
                    for volume in volumes(&record) {
                        let of_volume = users.by_volume.entry(volume.to_owned()).or_default();
                        // One container may have a volume at two places.
                        if of_volume.last() != Some(&id) {
                            of_volume.push(id.clone());
                        }
                    }
                }
                Err(_) => users.unreadable.push(id),
            }
        }
        Ok(users)
    }

    /// Ids of the containers that have a volume.
    pub(super) fn of(&self, volume: &str) -> &[String] {
        self.by_volume
            .get(volume)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

/// Names of the volumes of a container.
pub(super) fn volumes(record: &ContainerRecord) -> impl Iterator<Item = &str> {
    let details = record.details.as_deref();
    let mounts = details.into_iter().flat_map(|details| &details.mounts);
    mounts
        .map(|mount| mount.volume.as_str())
        .filter(|name| !name.is_empty())
}
