//! POST /images/prune

use davit_client::v1;
use serde_json::json;

use crate::{
    convert::image,
    failure::Result,
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn prune(call: Call) -> Result<Reply> {
    let mut filters = call.filters(&["dangling", "label", "label!", "until"])?;
    let dangling_only = filters.flag("dangling", true)?;
    filters.take("dangling");
    let request = v1::PruneImagesRequest {
        all: !dangling_only,
        dry_run: false,
        filters: filters.to_v1(),
    };
    let pruned = call
        .gateway
        .calls()
        .images()
        .prune(request)
        .await?
        .into_inner();
    Ok(reply::ok(&json!({
        "ImagesDeleted": image::pruned(&pruned.removed),
        "SpaceReclaimed": pruned.space_reclaimed,
    })))
}
