//! GET /containers/json

use davit_client::v1;
use jiff::Timestamp;

use crate::{
    convert::summary,
    failure::Result,
    reply::{self, Reply},
    request::Call,
};

const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

pub(crate) async fn list(call: Call) -> Result<Reply> {
    let size = call.query.flag("size");
    let request = v1::ListContainersRequest {
        all: call.query.flag("all"),
        limit: call
            .query
            .number::<i32>("limit")?
            .unwrap_or_default()
            .max(0),
        size,
        filters: call.filters(FILTERS)?.to_v1(),
    };
    let found = call
        .gateway
        .calls()
        .containers()
        .list(request)
        .await?
        .into_inner()
        .containers;
    let now = Timestamp::now();
    Ok(reply::ok(
        &found
            .iter()
            .map(|container| summary::of(container, size, now))
            .collect(),
    ))
}
