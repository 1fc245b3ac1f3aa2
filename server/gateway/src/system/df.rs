//! GET /system/df

use std::collections::HashMap;

use davit_client::{docker, v1};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    convert::{
        image::{self, Sizes},
        summary,
    },
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

const TYPES: &[&str] = &["container", "image", "volume", "build-cache"];

pub(crate) async fn df(call: Call) -> Result<Reply> {
    let types = call.query.all("type");
    if let Some(unknown) = types.iter().find(|name| !TYPES.contains(&name.as_str())) {
        return Err(Failure::bad_request(format!(
            "unknown object type: {unknown}"
        )));
    }
    let wanted = |name: &str| types.is_empty() || types.iter().any(|given| given == name);
    let request = v1::DiskUsageRequest {};
    let usage = call
        .gateway
        .calls()
        .system()
        .disk_usage(request)
        .await?
        .into_inner();
    let images = usage.images.unwrap_or_default();
    let mut value = Map::new();
    if wanted("image") {
        value.insert("LayersSize".into(), json!(images.snapshots));
        let element = |usage: &v1::ImageUsage| {
            let image = usage.image.clone().unwrap_or_default();
            let sizes = Sizes {
                shared: usage.shared,
                containers: image.containers,
            };
            image::summary(&image, sizes, call.version)
        };
        value.insert("Images".into(), images.images.iter().map(element).collect());
    } else {
        value.insert("Images".into(), Value::Null);
    }
    let containers = if wanted("container") {
        containers(&call, &usage.containers).await?
    } else {
        Value::Null
    };
    value.insert("Containers".into(), containers);
    let volumes = if wanted("volume") {
        let request = v1::ListVolumesRequest {
            filters: Vec::new(),
            size: true,
        };
        let found = call
            .gateway
            .calls()
            .volumes()
            .list(request)
            .await?
            .into_inner();
        found.volumes.iter().map(with_usage).collect()
    } else {
        Value::Null
    };
    value.insert("Volumes".into(), volumes);
    let empty = |name: &str| if wanted(name) { json!([]) } else { Value::Null };
    value.insert("BuildCache".into(), empty("build-cache"));
    value.insert("BuilderSize".into(), json!(0));
    Ok(reply::ok(&Value::Object(value)))
}

/// The CLI wants the usage also where nobody can tell it.
fn with_usage(volume: &v1::Volume) -> Value {
    let mut value = docker::volume(volume);
    value["UsageData"] = json!({"RefCount": volume.containers.len(), "Size": volume.size});
    value
}

async fn containers(call: &Call, usage: &[v1::ContainerUsage]) -> Result<Value> {
    let request = v1::ListContainersRequest {
        all: true,
        ..Default::default()
    };
    let found = call
        .gateway
        .calls()
        .containers()
        .list(request)
        .await?
        .into_inner()
        .containers;
    let sizes: HashMap<&str, i64> = usage
        .iter()
        .map(|usage| (usage.id.as_str(), usage.writable))
        .collect();
    let now = Timestamp::now();
    let element = |mut container: v1::Container| {
        container.size_rw = sizes
            .get(container.id.as_str())
            .copied()
            .unwrap_or_default();
        summary::of(&container, true, now)
    };
    Ok(found.into_iter().map(element).collect())
}
