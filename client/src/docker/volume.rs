//! A volume as `GET /volumes/{name}` gives it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::time;
use crate::v1;

/// A volume in docker's shape; with a size, `UsageData` is there, too.
pub fn volume(volume: &v1::Volume) -> Value {
    let options = sorted(&volume.options);
    let mut value = json!({
        "CreatedAt": time(volume.created_at.as_ref()),
        "Driver": volume.driver,
        "Labels": if volume.labels.is_empty() { Value::Null } else { sorted(&volume.labels) },
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": if volume.options.is_empty() { Value::Null } else { options },
        "Scope": volume.scope,
    });
    if let Some(object) = value.as_object_mut() {
        if !volume.status.is_empty() {
            // What is JSON is shown as such.
            let status = volume.status.iter().map(|(key, text)| {
                (
                    key.clone(),
                    serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
                )
            });
            object.insert("Status".into(), Value::Object(status.collect()));
        }
        if volume.size >= 0 {
            let usage = json!({"RefCount": volume.containers.len(), "Size": volume.size});
            object.insert("UsageData".into(), usage);
        }
    }
    value
}

fn sorted(map: &HashMap<String, String>) -> Value {
    json!(map.iter().collect::<BTreeMap<_, _>>())
}
