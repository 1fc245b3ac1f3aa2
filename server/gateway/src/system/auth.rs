//! POST /auth: `docker login`.

use davit_client::v1;
use serde_json::json;

use crate::{
    convert::auth,
    failure::Result,
    fields::Fields,
    reply::{self, Reply},
    request::Call,
};

/// Docker's own registry, under the name that its clients store.
const DEFAULT_SERVER: &str = "https://index.docker.io/v1/";

pub(crate) async fn login(mut call: Call) -> Result<Reply> {
    let body = call.json().await?.unwrap_or_default();
    let fields = Fields::root(&body, "AuthConfig")?;
    let server = fields.string("serveraddress")?;
    let request = v1::LoginRequest {
        server: if server.is_empty() {
            DEFAULT_SERVER.to_owned()
        } else {
            server
        },
        auth: Some(auth::from_json(&fields)?),
    };
    let done = call
        .gateway
        .calls()
        .system()
        .login(request)
        .await?
        .into_inner();
    let status = if done.status.is_empty() {
        "Login Succeeded"
    } else {
        &done.status
    };
    Ok(reply::ok(
        &json!({"Status": status, "IdentityToken": done.identity_token}),
    ))
}
