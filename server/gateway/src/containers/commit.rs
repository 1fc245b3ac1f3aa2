//! POST /commit and GET /containers/{name}/export

use davit_client::v1;
use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    convert::{config, reference},
    failure::Result,
    fields::Fields,
    reply::{self, Reply, StreamCut},
    request::Call,
};

pub(crate) async fn commit(mut call: Call) -> Result<Reply> {
    let name = call.query.get("container").to_owned();
    let config = match call.json().await? {
        Some(body @ Value::Object(_)) => {
            let base = super::details(&call.gateway, &name, false).await?.config;
            let fields = Fields::root(&body, "ContainerConfigWrapper")?;
            Some(config::overlay(base.unwrap_or_default(), &fields)?)
        }
        _ => None,
    };
    let repository = call.query.get("repo");
    let request = v1::CommitRequest {
        container: name.clone(),
        name: match repository {
            "" => String::new(),
            repository => reference::join(repository, call.query.get("tag")),
        },
        comment: call.query.get("comment").to_owned(),
        author: call.query.get("author").to_owned(),
        pause: call.query.flag_or("pause", true),
        changes: changes(&call),
        config,
    };
    let committed = call.gateway.calls().containers().commit(request).await;
    let committed = committed
        .map_err(|status| super::failure(status, &name))?
        .into_inner();
    Ok(reply::json(
        StatusCode::CREATED,
        &json!({"Id": committed.id}),
    ))
}

/// Dockerfile instructions: repeated, or several lines in one.
pub(crate) fn changes(call: &Call) -> Vec<String> {
    let given = call.query.all("changes");
    let lines = given.iter().flat_map(|text| text.lines());
    lines
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

pub(crate) async fn export(call: Call) -> Result<Reply> {
    let name = call.name();
    let request = v1::ExportContainerRequest {
        container: name.clone(),
    };
    let begin = async {
        let mut chunks = call
            .gateway
            .stream()
            .containers()
            .export(request)
            .await?
            .into_inner();
        let first = chunks.message().await?;
        Ok((chunks, first))
    };
    let (chunks, first) = begin
        .await
        .map_err(|status| super::failure(status, &name))?;
    let first = futures::stream::iter(first.map(Ok));
    let data = first
        .chain(chunks)
        .map_ok(|chunk| chunk.data)
        .map_err(StreamCut::from);
    Ok(reply::stream(reply::OCTETS, data))
}
