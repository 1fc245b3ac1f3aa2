//! /images: one file for each thing that clients do with them.

pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod load;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod save;
pub(crate) mod search;
pub(crate) mod tag;

use bytes::Bytes;
use davit_client::v1;
use serde_json::Value;
use tonic::Status;

use crate::{
    convert::reference,
    failure::{Failure, Result},
    gateway::Gateway,
    reply,
};

/// Turns an error of a call on the image `name`; a missing image in dockerd's
/// words.
pub(crate) fn failure(status: Status, name: &str) -> Failure {
    Failure::from(status)
        .when_not_found(|| format!("No such image: {}", reference::with_tag(name)))
}

/// One image in short form.
pub(crate) async fn get(gateway: &Gateway, name: &str) -> Result<v1::Image> {
    let request = v1::GetImageRequest { image: name.to_owned(), platform: None };
    let found = gateway.calls().images().get(request).await;
    found.map(tonic::Response::into_inner).map_err(|status| failure(status, name))
}

/// One line of a progress stream.
pub(crate) fn line(value: &Value) -> Result<Bytes, std::io::Error> {
    Ok(reply::json_line(value, "\r\n"))
}
