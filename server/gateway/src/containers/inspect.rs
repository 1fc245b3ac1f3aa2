//! GET /containers/{name}/json and /changes

use davit_client::v1;
use serde_json::{Value, json};

use crate::{
    convert::details,
    failure::Result,
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn inspect(call: Call) -> Result<Reply> {
    let size = call.query.flag("size");
    let found = super::details(&call.gateway, &call.name(), size).await?;
    Ok(reply::ok(&details::of(
        &found,
        size,
        call.version,
        &host_name(),
    )))
}

/// The name of this machine: the gateway always runs beside its davitd.
pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

pub(crate) async fn changes(call: Call) -> Result<Reply> {
    let name = call.name();
    let request = v1::DiffRequest {
        container: name.clone(),
    };
    let answer = call.gateway.calls().containers().diff(request).await;
    let changes = answer
        .map_err(|status| super::failure(status, &name))?
        .into_inner()
        .changes;
    if changes.is_empty() {
        return Ok(reply::ok(&Value::Null));
    }
    let change = |change: &v1::Change| json!({"Path": change.path, "Kind": change.kind});
    Ok(reply::ok(&changes.iter().map(change).collect()))
}
