//! /volumes: there are none yet, which is said as it is.

use serde_json::json;

use crate::{
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn list(call: Call) -> Result<Reply> {
    call.filters(&["dangling", "name", "driver", "label"])?;
    Ok(reply::ok(&json!({"Volumes": [], "Warnings": null})))
}

pub(crate) async fn missing(call: Call) -> Result<Reply> {
    Err(Failure::not_found(format!("get {}: no such volume", call.name())))
}

pub(crate) async fn prune(call: Call) -> Result<Reply> {
    call.filters(&["label", "label!", "all"])?;
    Ok(reply::ok(&json!({"VolumesDeleted": [], "SpaceReclaimed": 0})))
}

pub(crate) async fn unsupported(_: Call) -> Result<Reply> {
    Err(Failure::not_implemented(
        "volumes are not supported yet; mount a directory of the host (-v /path:/path)",
    ))
}
