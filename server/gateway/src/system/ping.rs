//! GET and HEAD /_ping: what clients read before anything else, also while
//! davitd does not answer.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::{
    failure::Result,
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn get(_: Call) -> Result<Reply> {
    Ok(with_headers(reply::full(
        StatusCode::OK,
        reply::TEXT,
        Bytes::from_static(b"OK"),
    )))
}

pub(crate) async fn head(_: Call) -> Result<Reply> {
    Ok(with_headers(reply::full(
        StatusCode::OK,
        reply::TEXT,
        Bytes::new(),
    )))
}

fn with_headers(mut reply: Reply) -> Reply {
    let headers = reply.headers_mut();
    for (name, value) in [
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        // The classic builder; BuildKit is not here.
        ("builder-version", "1"),
        ("swarm", "inactive"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}
