//! Looking at volumes.

use std::{collections::BTreeMap, path::Path};

use davit_store::table::{VolumeRecord, Volumes};

use super::{LOCAL, blocking, is_anonymous, is_plain, place, plugin::PluginVolume, users::Users};
use crate::{
    Error, Result,
    filter::label_matches,
    model::{Filter, ListVolumesRequest, ListVolumesResponse, Volume},
    shared::Shared,
};

/// There is none, in docker's words.
pub(super) fn missing(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}

/// One volume, with what its plugin says of it.
pub(super) async fn get(shared: &Shared, ns: &str, name: &str, size: bool) -> Result<Volume> {
    let Some(record) = shared.store.get::<Volumes>((ns, name))? else {
        let found = find_elsewhere(shared, name)
            .await
            .ok_or_else(|| missing(name))?;
        return Ok(volume(shared, ns, found, &Users::default()));
    };
    let driver = record.driver.clone();
    let plain = is_plain(&record);
    let mut volume = one(shared, ns, record)?;
    if driver != LOCAL {
        let asked = async { shared.volumes.plugins.get(&driver).await?.get(name).await };
        match tokio::time::timeout(shared.volumes.config.list_timeout, asked).await {
            Ok(Ok(Some(known))) => take(&mut volume, known),
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::debug!(volume = name, error = %error.chain(), "its plugin says nothing")
            }
        }
    }
    if size && plain {
        volume.size = measure(&volume.mountpoint).await;
    }
    Ok(volume)
}

/// The volumes that pass the filters, by name.
pub(super) async fn list(
    shared: &Shared,
    ns: &str,
    request: ListVolumesRequest,
) -> Result<ListVolumesResponse> {
    let filters = Filters::read(
        &request.filters,
        &["dangling", "driver", "label", "label!", "name"],
    )?;
    let users = Users::read(shared, ns)?;
    let mut found: BTreeMap<String, (Volume, bool)> = BTreeMap::new();
    for ((_, name), record) in shared.store.scan::<Volumes>(ns)? {
        let plain = is_plain(&record);
        found.insert(name, (volume(shared, ns, record, &users), plain));
    }
    let (answers, warnings) = shared
        .volumes
        .plugins
        .ask_all(|plugin| async move { plugin.list().await })
        .await;
    for (driver, volumes) in answers {
        for known in volumes.into_iter().filter(|known| !known.name.is_empty()) {
            let (volume, _) = found
                .entry(known.name.clone())
                .or_insert_with(|| (volume(shared, ns, strange(&driver, &known), &users), false));
            if volume.driver == driver && volume.mountpoint.is_empty() {
                volume.mountpoint = known.mountpoint;
            }
        }
    }
    let mut volumes = Vec::with_capacity(found.len());
    for (mut volume, plain) in found.into_values() {
        if !filters.pass(&volume) {
            continue;
        }
        if request.size && plain {
            volume.size = measure(&volume.mountpoint).await;
        }
        volumes.push(volume);
    }
    Ok(ListVolumesResponse { volumes, warnings })
}

/// A volume that no container can have yet.
pub(super) fn unused(shared: &Shared, ns: &str, record: VolumeRecord) -> Volume {
    volume(shared, ns, record, &Users::default())
}

/// A volume of ours as callers see it.
pub(super) fn one(shared: &Shared, ns: &str, record: VolumeRecord) -> Result<Volume> {
    Ok(volume(shared, ns, record, &Users::read(shared, ns)?))
}

fn volume(shared: &Shared, ns: &str, record: VolumeRecord, users: &Users) -> Volume {
    Volume {
        mountpoint: mountpoint(shared, ns, &record),
        anonymous: is_anonymous(&record),
        containers: users.of(&record.name).to_vec(),
        created_at: (record.created_at != jiff::Timestamp::UNIX_EPOCH).then_some(record.created_at),
        scope: if record.scope.is_empty() {
            "local".to_owned()
        } else {
            record.scope
        },
        name: record.name,
        driver: record.driver,
        labels: record.labels,
        options: record.options,
        status: BTreeMap::new(),
        size: None,
    }
}

/// Where a volume's data is, as far as that is known without asking.
pub(super) fn mountpoint(shared: &Shared, ns: &str, record: &VolumeRecord) -> String {
    if record.driver == LOCAL {
        place::data(&shared.config.root, ns, &record.name)
            .to_string_lossy()
            .into_owned()
    } else {
        record.mountpoint.clone()
    }
}

fn take(volume: &mut Volume, known: PluginVolume) {
    if !known.mountpoint.is_empty() {
        volume.mountpoint = known.mountpoint;
    }
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    volume.status = known
        .status
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, text(value)))
        .collect();
}

/// A volume that no record knows but a plugin does.
pub(super) async fn find_elsewhere(shared: &Shared, name: &str) -> Option<VolumeRecord> {
    let (answers, warnings) = shared
        .volumes
        .plugins
        .ask_all(|plugin| async move { plugin.get(name).await })
        .await;
    for warning in warnings {
        tracing::warn!(
            volume = name,
            warning,
            "a plugin could not be asked for a volume"
        );
    }
    answers
        .into_iter()
        .find_map(|(driver, known)| Some(strange(&driver, &known?)))
}

fn strange(driver: &str, known: &PluginVolume) -> VolumeRecord {
    VolumeRecord {
        name: known.name.clone(),
        driver: driver.to_owned(),
        mountpoint: known.mountpoint.clone(),
        ..Default::default()
    }
}

/// Bytes of a plain volume; None when they can't be counted.
pub(super) async fn measure(path: &str) -> Option<u64> {
    let path = path.to_owned();
    let measured = blocking(move || {
        davit_images::snapshots::measure(Path::new(&path))
            .map_err(|error| Error::io(format!("cannot measure {path}"), error))
    });
    match measured.await {
        Ok(usage) => Some(usage.size),
        Err(error) => {
            tracing::debug!(error = %error.chain(), "a volume's size is not known");
            None
        }
    }
}

/// Filters of List and Prune.
#[derive(Debug)]
pub(super) struct Filters {
    dangling: Option<bool>,
    by_key: BTreeMap<String, Vec<String>>,
}

impl Filters {
    /// Reads the filters; `keys` are those that the call knows.
    pub(super) fn read(filters: &[Filter], keys: &[&str]) -> Result<Self> {
        let mut by_key = BTreeMap::<String, Vec<String>>::new();
        for filter in filters {
            if !keys.contains(&filter.key.as_str()) {
                return Err(Error::invalid(format!(
                    "invalid filter '{}'; known are {}",
                    filter.key,
                    keys.join(", ")
                )));
            }
            by_key
                .entry(filter.key.clone())
                .or_default()
                .push(filter.value.clone());
        }
        let mut dangling = None;
        for value in by_key.remove("dangling").unwrap_or_default() {
            let wanted = match value.to_ascii_lowercase().as_str() {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(Error::invalid(format!("invalid filter 'dangling={value}'"))),
            };
            if dangling.is_some_and(|other| other != wanted) {
                return Err(Error::invalid(
                    "invalid filter 'dangling': both true and false",
                ));
            }
            dangling = Some(wanted);
        }
        Ok(Self { dangling, by_key })
    }

    pub(super) fn pass(&self, volume: &Volume) -> bool {
        let values = |key: &str| self.by_key.get(key).map(Vec::as_slice).unwrap_or_default();
        let any = |key: &str, test: &dyn Fn(&str) -> bool| {
            values(key).is_empty() || values(key).iter().any(|value| test(value))
        };
        self.dangling
            .is_none_or(|dangling| dangling == volume.containers.is_empty())
            && any("driver", &|driver| volume.driver == driver)
            && any("name", &|part| volume.name.contains(part))
            && values("label")
                .iter()
                .all(|label| label_matches(&volume.labels, label))
            && !values("label!")
                .iter()
                .any(|label| label_matches(&volume.labels, label))
    }
}
