//! POST /images/{name}/tag and DELETE /images/{name}

use davit_client::v1;
use http::StatusCode;

use crate::{
    convert::{image, reference},
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn tag(call: Call) -> Result<Reply> {
    let source = call.name();
    let repository = call.query.get("repo");
    if repository.is_empty() {
        return Err(Failure::bad_request("invalid reference format"));
    }
    let target = reference::join(repository, call.query.get("tag"));
    let request = v1::TagImageRequest {
        source: source.clone(),
        target,
    };
    let tagged = call.gateway.calls().images().tag(request).await;
    tagged.map_err(|status| super::failure(status, &source))?;
    Ok(reply::empty(StatusCode::CREATED))
}

pub(crate) async fn remove(call: Call) -> Result<Reply> {
    let name = call.name();
    let request = v1::RemoveImageRequest {
        image: name.clone(),
        force: call.query.flag("force"),
    };
    let removed = call.gateway.calls().images().remove(request).await;
    let removed = removed
        .map_err(|status| super::failure(status, &name))?
        .into_inner();
    Ok(reply::ok(&image::removed(
        &removed.untagged,
        &removed.deleted,
    )))
}
