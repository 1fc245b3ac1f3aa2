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
use serde_json::Value;
use tonic::Status;

use crate::{
    convert::reference,
    failure::{Failure, Result},
    reply,
};

/// Turns an error of a call on the image `name`; a missing image in dockerd's
/// words.
pub(crate) fn failure(status: Status, name: &str) -> Failure {
    Failure::from(status).when_not_found(|| format!("No such image: {}", reference::with_tag(name)))
}

/// One line of a progress stream.
pub(crate) fn line(value: &Value) -> Result<Bytes, std::io::Error> {
    Ok(reply::json_line(value, "\r\n"))
}
