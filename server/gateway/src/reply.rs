//! Replies: JSON, nothing, text, and streams that are flushed message by
//! message.

use std::{error::Error, fmt};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use crate::failure::Failure;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Reply = Response<Body>;

/// Exactly this, without a charset: the docker CLI compares the whole value
/// before it looks into an error body.
pub(crate) const JSON: &str = "application/json";
pub(crate) const TAR: &str = "application/x-tar";
pub(crate) const OCTETS: &str = "application/octet-stream";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) fn json(status: StatusCode, value: &Value) -> Reply {
    full(status, JSON, json_line(value, "\n"))
}

pub(crate) fn ok(value: &Value) -> Reply {
    json(StatusCode::OK, value)
}

/// A status without a body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(body(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

pub(crate) fn no_content() -> Reply {
    empty(StatusCode::NO_CONTENT)
}

pub(crate) fn full(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Reply {
    let mut reply = Response::new(body(bytes));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A chunked reply: the head goes out at once, then each item as it comes. An
/// error cuts the connection, so that nobody takes half a stream for all of it.
pub(crate) fn stream<S, E>(content_type: &'static str, items: S) -> Reply
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<BoxError>,
{
    let frames = items.map(|item| item.map(Frame::data).map_err(Into::into));
    let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A JSON value as one line of a stream.
pub(crate) fn json_line(value: &Value, end: &str) -> Bytes {
    let mut text = value.to_string();
    text.push_str(end);
    text.into()
}

fn body(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        if failure.status() == StatusCode::NOT_MODIFIED {
            return empty(failure.status());
        }
        json(failure.status(), &json!({ "message": failure.message() }))
    }
}

/// A failure in the middle of a stream whose head is long gone.
#[derive(Debug)]
pub(crate) struct StreamCut(pub(crate) Failure);

impl fmt::Display for StreamCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message())
    }
}

impl Error for StreamCut {}

impl From<tonic::Status> for StreamCut {
    fn from(status: tonic::Status) -> Self {
        Self(status.into())
    }
}
