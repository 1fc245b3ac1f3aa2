//! GET /images/{name}/json and /history

use davit_client::v1;

use crate::{
    convert::{create, image},
    failure::Result,
    reply::{self, Reply},
    request::Call,
};

fn request(call: &Call) -> Result<v1::GetImageRequest> {
    let platform = create::platform(call.query.get("platform"))?;
    Ok(v1::GetImageRequest {
        image: call.name(),
        platform,
    })
}

pub(crate) async fn inspect(call: Call) -> Result<Reply> {
    let found = call.gateway.calls().images().inspect(request(&call)?).await;
    let found = found
        .map_err(|status| super::failure(status, &call.name()))?
        .into_inner();
    Ok(reply::ok(&image::inspect(&found, call.version)))
}

pub(crate) async fn history(call: Call) -> Result<Reply> {
    let found = call.gateway.calls().images().history(request(&call)?).await;
    let found = found
        .map_err(|status| super::failure(status, &call.name()))?
        .into_inner();
    Ok(reply::ok(&image::history(&found.entries)))
}
