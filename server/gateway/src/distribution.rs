//! GET /distribution/{name}/json: what a registry says about an image.

use davit_client::v1;
use serde_json::{Value, json};

use crate::{
    convert::{image, reference},
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn inspect(call: Call) -> Result<Reply> {
    let name = call.name();
    let request = v1::RemoteManifestRequest {
        reference: name.clone(),
        auth: call.registry_auth(),
    };
    let found = call.gateway.calls().images().remote_manifest(request).await;
    let found = found
        .map_err(|status| {
            Failure::from(status).when_not_found(|| {
                format!(
                    "manifest for {} not found: manifest unknown",
                    reference::familiar(&name)
                )
            })
        })?
        .into_inner();
    let descriptor = found.descriptor.unwrap_or_default();
    let platforms: Value = found.platforms.iter().map(image::platform).collect();
    Ok(reply::ok(&json!({
        "Descriptor": image::descriptor(&descriptor),
        "Platforms": platforms,
    })))
}
