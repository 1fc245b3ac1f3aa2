//! POST /containers/{name}/update

use davit_client::v1;
use serde_json::{Value, json};

use crate::{
    convert::{create, resources},
    failure::Result,
    fields::Fields,
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn update(mut call: Call) -> Result<Reply> {
    let name = call.name();
    let body = call.json().await?.unwrap_or_default();
    let fields = Fields::root(&body, "UpdateConfig")?;
    let policy = create::restart_policy(&fields.object("RestartPolicy")?)?;
    let request = v1::UpdateContainerRequest {
        container: name.clone(),
        resources: Some(resources::from_json(&fields)?),
        restart_policy: (!policy.name.is_empty()).then_some(policy),
        ..Default::default()
    };
    let updated = call.gateway.calls().containers().update(request).await;
    let updated = updated
        .map_err(|status| super::failure(status, &name))?
        .into_inner();
    let warnings = if updated.warnings.is_empty() {
        Value::Null
    } else {
        json!(updated.warnings)
    };
    Ok(reply::ok(&json!({ "Warnings": warnings })))
}
