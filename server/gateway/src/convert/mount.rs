//! Mounts: HostConfig.Mounts from and to `v1::Mount`, and mount points as
//! inspect and list show them.

use davit_client::v1;
use serde_json::{Map, Value, json};

use crate::{
    failure::{Failure, Result},
    fields::Fields,
};

/// Reads HostConfig.Mounts.
pub(crate) fn from_json(host: &Fields<'_>) -> Result<Vec<v1::Mount>> {
    host.objects("Mounts")?.iter().map(mount).collect()
}

fn mount(item: &Fields<'_>) -> Result<v1::Mount> {
    let kind = item.string("Type")?;
    if !matches!(kind.as_str(), "bind" | "tmpfs" | "volume" | "image") {
        return Err(Failure::bad_request(format!(
            "invalid mount config for type {kind:?}: mount type unknown"
        )));
    }
    let (bind, tmpfs) = (item.object("BindOptions")?, item.object("TmpfsOptions")?);
    let (volume, image) = (item.object("VolumeOptions")?, item.object("ImageOptions")?);
    let driver = volume.object("DriverConfig")?;
    let subpath = if kind == "image" { &image } else { &volume }.string("Subpath")?;
    Ok(v1::Mount {
        source: item.string("Source")?,
        target: item.string("Target")?,
        read_only: item.flag("ReadOnly")?,
        consistency: item.string("Consistency")?,
        propagation: bind.string("Propagation")?,
        non_recursive: bind.flag("NonRecursive")?,
        create_source: bind.flag("CreateMountpoint")?,
        tmpfs_size: tmpfs.int("SizeBytes")?,
        tmpfs_mode: tmpfs.small("Mode", "uint32")?,
        options: tmpfs_options(&tmpfs)?,
        subpath,
        no_copy: volume.flag("NoCopy")?,
        volume_labels: volume.string_map("Labels")?,
        volume_driver: driver.string("Name")?,
        volume_options: driver.string_map("Options")?,
        // docker's API has no word for it.
        must_exist: false,
        r#type: kind,
    })
}

/// `[["uid", "1000"], ["noexec"]]` as mount options.
fn tmpfs_options(tmpfs: &Fields<'_>) -> Result<Vec<String>> {
    let Some(Value::Array(items)) = tmpfs.get("Options") else {
        return Ok(Vec::new());
    };
    let option = |item: &Value| -> Option<String> {
        let words: Vec<&str> = item.as_array()?.iter().filter_map(Value::as_str).collect();
        (!words.is_empty()).then(|| words.join("="))
    };
    items
        .iter()
        .map(|item| option(item).ok_or_else(|| Failure::bad_request("invalid tmpfs mount options")))
        .collect()
}

/// HostConfig.Mounts as it was given.
pub(crate) fn to_json(mount: &v1::Mount) -> Value {
    let mut value = Map::new();
    let mut put = |key: &str, item: Value| value.insert(key.to_owned(), item);
    put("Type", json!(mount.r#type));
    if !mount.source.is_empty() {
        put("Source", json!(mount.source));
    }
    put("Target", json!(mount.target));
    if mount.read_only {
        put("ReadOnly", json!(true));
    }
    if !mount.consistency.is_empty() {
        put("Consistency", json!(mount.consistency));
    }
    let (key, options) = match mount.r#type.as_str() {
        "bind" => ("BindOptions", bind_options(mount)),
        "tmpfs" => ("TmpfsOptions", tmpfs_to_json(mount)),
        "volume" => ("VolumeOptions", volume_options(mount)),
        _ if !mount.subpath.is_empty() => {
            ("ImageOptions", object(json!({"Subpath": mount.subpath})))
        }
        _ => ("ImageOptions", Map::new()),
    };
    if !options.is_empty() {
        value.insert(key.to_owned(), Value::Object(options));
    }
    Value::Object(value)
}

fn bind_options(mount: &v1::Mount) -> Map<String, Value> {
    let mut options = Map::new();
    if !mount.propagation.is_empty() {
        options.insert("Propagation".into(), json!(mount.propagation));
    }
    if mount.non_recursive {
        options.insert("NonRecursive".into(), json!(true));
    }
    if mount.create_source {
        options.insert("CreateMountpoint".into(), json!(true));
    }
    options
}

fn tmpfs_to_json(mount: &v1::Mount) -> Map<String, Value> {
    let mut options = Map::new();
    if mount.tmpfs_size != 0 {
        options.insert("SizeBytes".into(), json!(mount.tmpfs_size));
    }
    if mount.tmpfs_mode != 0 {
        options.insert("Mode".into(), json!(mount.tmpfs_mode));
    }
    if !mount.options.is_empty() {
        let words = |option: &String| option.splitn(2, '=').map(Value::from).collect::<Value>();
        options.insert("Options".into(), mount.options.iter().map(words).collect());
    }
    options
}

fn volume_options(mount: &v1::Mount) -> Map<String, Value> {
    let mut options = Map::new();
    if mount.no_copy {
        options.insert("NoCopy".into(), json!(true));
    }
    if !mount.volume_labels.is_empty() {
        options.insert("Labels".into(), super::sorted(&mount.volume_labels));
    }
    if !mount.volume_driver.is_empty() || !mount.volume_options.is_empty() {
        let config =
            json!({"Name": mount.volume_driver, "Options": super::sorted(&mount.volume_options)});
        options.insert("DriverConfig".into(), config);
    }
    if !mount.subpath.is_empty() {
        options.insert("Subpath".into(), json!(mount.subpath));
    }
    options
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A mount as it is in the container.
pub(crate) fn point(point: &v1::MountPoint) -> Value {
    let mut value = Map::new();
    value.insert("Type".into(), json!(point.r#type));
    if !point.name.is_empty() {
        value.insert("Name".into(), json!(point.name));
    }
    value.insert("Source".into(), json!(point.source));
    value.insert("Destination".into(), json!(point.destination));
    if !point.driver.is_empty() {
        value.insert("Driver".into(), json!(point.driver));
    }
    value.insert("Mode".into(), json!(point.mode));
    value.insert("RW".into(), json!(point.read_write));
    value.insert("Propagation".into(), json!(point.propagation));
    Value::Object(value)
}
