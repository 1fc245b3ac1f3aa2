//! POST /containers/create

use davit_client::v1;
use http::StatusCode;
use serde_json::json;
use tonic::{Code, Status};

use crate::{
    convert::{create, reference},
    failure::{Failure, Result},
    gateway::Gateway,
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn create(mut call: Call) -> Result<Reply> {
    let body = call.json().await?;
    let (image, options) = create::from_json(body.as_ref())?;
    let name = call.query.get("name").trim_start_matches('/').to_owned();
    check_name(&name)?;
    let platform = create::platform(call.query.get("platform"))?;
    let asked = v1::GetImageRequest {
        image: image.clone(),
        platform: platform.clone(),
    };
    let request = v1::CreateContainerRequest {
        name: name.clone(),
        image,
        platform,
        options: Some(options),
        id: String::new(),
    };
    match call.gateway.calls().containers().create(request).await {
        Ok(created) => {
            let created = created.into_inner();
            let body = json!({"Id": created.id, "Warnings": created.warnings});
            Ok(reply::json(StatusCode::CREATED, &body))
        }
        Err(status) => Err(refusal(&call.gateway, status, &name, asked).await),
    }
}

/// 404 is what makes `docker run` pull the image, 409 names the container that
/// has the name.
async fn refusal(
    gateway: &Gateway,
    status: Status,
    name: &str,
    asked: v1::GetImageRequest,
) -> Failure {
    let already_exists = status.code() == Code::AlreadyExists;
    let failure = Failure::from(status);
    if already_exists && let Ok(holder) = super::get(gateway, &format!("/{name}")).await {
        return Failure::conflict(format!(
            "Conflict. The container name \"/{name}\" is already in use by container \
             \"{}\". You have to remove (or rename) that container to be able to reuse that name.",
            holder.id
        ));
    }
    if !failure.is_not_found() {
        return failure;
    }
    let named = reference::with_tag(&asked.image);
    match gateway.calls().images().get(asked).await {
        Err(missing) if missing.code() == Code::NotFound => {
            Failure::not_found(format!("No such image: {named}"))
        }
        // The image is here, so something else that the options name is not: a
        // 404 would make clients pull the image for nothing.
        Ok(_) | Err(_) => Failure::bad_request(failure.message()),
    }
}

fn check_name(name: &str) -> Result<()> {
    let first = name
        .bytes()
        .next()
        .is_none_or(|byte| byte.is_ascii_alphanumeric());
    let rest = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}
