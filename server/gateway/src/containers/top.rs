//! GET /containers/{name}/top

use davit_client::v1;
use serde_json::json;

use crate::{
    failure::Result,
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn top(call: Call) -> Result<Reply> {
    let name = call.name();
    let request = v1::ProcessesRequest {
        container: name.clone(),
        ps_args: call.query.get("ps_args").to_owned(),
    };
    let listed = call.gateway.calls().tasks().processes(request).await;
    let listed = listed
        .map_err(|status| super::failure(status, &name))?
        .into_inner();
    let rows: Vec<&[String]> = listed
        .rows
        .iter()
        .map(|row| row.columns.as_slice())
        .collect();
    Ok(reply::ok(
        &json!({"Titles": listed.titles, "Processes": rows}),
    ))
}
