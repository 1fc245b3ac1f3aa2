//! /plugins: there are none.

use serde_json::json;

use crate::{
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn list(_: Call) -> Result<Reply> {
    Ok(reply::ok(&json!([])))
}

pub(crate) async fn missing(call: Call) -> Result<Reply> {
    Err(Failure::not_found(format!(
        "plugin {:?} not found",
        call.name()
    )))
}

pub(crate) async fn unsupported(_: Call) -> Result<Reply> {
    Err(Failure::not_implemented("plugins are not supported"))
}
