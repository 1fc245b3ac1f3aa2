//! /volumes

use davit_client::{docker, v1};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    failure::Result,
    fields::Fields,
    reply::{self, Reply},
    request::Call,
    version::ApiVersion,
};

pub(crate) async fn list(call: Call) -> Result<Reply> {
    let filters = call.filters(&["dangling", "name", "driver", "label"])?;
    let request = v1::ListVolumesRequest {
        filters: filters.to_v1(),
        size: false,
    };
    let found = call
        .gateway
        .calls()
        .volumes()
        .list(request)
        .await?
        .into_inner();
    let warnings = if found.warnings.is_empty() {
        Value::Null
    } else {
        json!(found.warnings)
    };
    let volumes: Value = found.volumes.iter().map(docker::volume).collect();
    Ok(reply::ok(
        &json!({"Volumes": volumes, "Warnings": warnings}),
    ))
}

pub(crate) async fn create(mut call: Call) -> Result<Reply> {
    let body = call.json().await?.unwrap_or_default();
    let fields = Fields::root(&body, "CreateOptions")?;
    let request = v1::CreateVolumeRequest {
        name: fields.string("Name")?,
        driver: fields.string("Driver")?,
        labels: fields.string_map("Labels")?,
        options: fields.string_map("DriverOpts")?,
    };
    let made = call
        .gateway
        .calls()
        .volumes()
        .create(request)
        .await?
        .into_inner();
    let volume = made.volume.unwrap_or_default();
    Ok(reply::json(StatusCode::CREATED, &docker::volume(&volume)))
}

pub(crate) async fn inspect(call: Call) -> Result<Reply> {
    let request = v1::GetVolumeRequest {
        name: call.name(),
        size: false,
    };
    let volume = call
        .gateway
        .calls()
        .volumes()
        .get(request)
        .await?
        .into_inner();
    Ok(reply::ok(&docker::volume(&volume)))
}

pub(crate) async fn remove(call: Call) -> Result<Reply> {
    let request = v1::RemoveVolumeRequest {
        name: call.name(),
        force: call.query.flag("force"),
    };
    call.gateway.calls().volumes().remove(request).await?;
    Ok(reply::no_content())
}

/// Before 1.42 named volumes went, too, without being asked for.
pub(crate) async fn prune(call: Call) -> Result<Reply> {
    let mut filters = call.filters(&["label", "label!", "all"])?;
    let all = filters.flag("all", call.version < ApiVersion::new(1, 42))?;
    filters.take("all");
    let request = v1::PruneVolumesRequest {
        all,
        dry_run: false,
        filters: filters.to_v1(),
    };
    let pruned = call
        .gateway
        .calls()
        .volumes()
        .prune(request)
        .await?
        .into_inner();
    Ok(reply::ok(&json!({
        "VolumesDeleted": pruned.removed,
        "SpaceReclaimed": pruned.space_reclaimed,
    })))
}
