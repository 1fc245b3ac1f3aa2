//! DELETE /containers/{name} and POST /containers/prune

use davit_client::v1;
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn remove(call: Call) -> Result<Reply> {
    let name = call.name();
    if call.query.flag("link") {
        return Err(Failure::not_implemented(
            "removing links is not supported: there are none",
        ));
    }
    let request = v1::RemoveContainerRequest {
        container: name.clone(),
        force: call.query.flag("force"),
        volumes: call.query.flag("v"),
    };
    let removed = call.gateway.calls().containers().remove(request).await;
    removed.map_err(|status| super::failure(status, &name))?;
    Ok(reply::no_content())
}

pub(crate) async fn prune(call: Call) -> Result<Reply> {
    let filters = call.filters(&["label", "label!", "until"])?;
    let request = v1::PruneContainersRequest {
        dry_run: false,
        filters: filters.to_v1(),
    };
    let pruned = call
        .gateway
        .calls()
        .containers()
        .prune(request)
        .await?
        .into_inner();
    let removed = if pruned.removed.is_empty() {
        Value::Null
    } else {
        json!(pruned.removed)
    };
    Ok(reply::ok(
        &json!({"ContainersDeleted": removed, "SpaceReclaimed": pruned.space_reclaimed}),
    ))
}
