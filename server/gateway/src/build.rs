//! Building: not served yet, but for what `docker system prune` asks.

use serde_json::json;

use crate::{
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

/// There is no build cache. Every `docker system prune` calls this.
pub(crate) async fn prune(_: Call) -> Result<Reply> {
    Ok(reply::ok(
        &json!({"CachesDeleted": [], "SpaceReclaimed": 0}),
    ))
}

pub(crate) async fn unsupported(_: Call) -> Result<Reply> {
    Err(Failure::not_implemented(
        "building images is not supported yet; build elsewhere and pull or load the image",
    ))
}
