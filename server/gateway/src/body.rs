//! Request bodies: JSON, bounded in size and time and with Go's words for what
//! is wrong; and raw streams.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{
    failure::{Failure, Result},
    request::Call,
};

/// Largest JSON body; a create request has a few KiB.
const MAX_JSON: usize = 4 << 20;
/// What of a body that is too large is read and thrown away, so that the client
/// comes to read why it was refused.
const MAX_DISCARDED: usize = 64 << 20;
/// Longest time a client may take to send it.
const JSON_TIME: Duration = Duration::from_secs(60);

impl Call {
    /// Reads the body as JSON; `None` when there is none.
    pub(crate) async fn json(&mut self) -> Result<Option<Value>> {
        self.check_content_type()?;
        let bytes = self.bytes().await?;
        if bytes.is_empty() && self.content_length() == Some(0) {
            return Ok(None);
        }
        parse(&bytes).map(Some)
    }

    /// Reads the whole body, whatever it is.
    pub(crate) async fn bytes(&mut self) -> Result<Bytes> {
        tokio::time::timeout(JSON_TIME, collect(&mut self.body))
            .await
            .unwrap_or_else(|_| {
                Err(Failure::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "the request body did not arrive in time",
                ))
            })
    }

    /// A body with JSON must say so; no body needs no type.
    fn check_content_type(&self) -> Result<()> {
        let given = self.header("content-type");
        if given.is_empty() && self.content_length() == Some(0) {
            return Ok(());
        }
        let media_type = given.split(';').next().unwrap_or("").trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            return Ok(());
        }
        // The CLI says text/plain for no body at all.
        if self.content_length() == Some(0) {
            return Ok(());
        }
        Err(Failure::bad_request(format!(
            "unsupported Content-Type header ({given}): must be 'application/json'"
        )))
    }
}

async fn collect(body: &mut Incoming) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::bad_request(format!("cannot read the request body: {error}"))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        total += data.len();
        if total <= MAX_JSON {
            bytes.extend_from_slice(&data);
        } else if total > MAX_DISCARDED {
            break;
        }
    }
    if total > MAX_JSON {
        return Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "http: request body too large",
        ));
    }
    Ok(bytes.freeze())
}

/// Sends the body on as the requests of a streaming call, behind `first`. A
/// body that breaks off never ends the requests: they stop, and the second
/// part tells; see [`whole`].
pub(crate) fn upload<R: Send + 'static>(
    mut body: Incoming,
    first: R,
    wrap: fn(Bytes) -> R,
) -> (
    impl Stream<Item = R> + Send + 'static,
    oneshot::Receiver<hyper::Error>,
) {
    let (broken, breaks) = oneshot::channel();
    let requests = async_stream::stream! {
        yield first;
        while let Some(frame) = body.frame().await {
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) => yield wrap(data),
                Ok(Err(_trailers)) => {}
                Err(error) => {
                    let _ = broken.send(error);
                    std::future::pending::<()>().await;
                    return;
                }
            }
        }
    };
    (requests, breaks)
}

/// Waits for a call that an [`upload`] feeds. When the body breaks off the
/// call is cancelled, so that half a stream is never taken for all of it.
pub(crate) async fn whole<T>(
    call: impl Future<Output = T>,
    breaks: oneshot::Receiver<hyper::Error>,
) -> Result<T> {
    let broken = async {
        match breaks.await {
            Ok(error) => error,
            Err(_body_is_whole) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        result = call => Ok(result),
        error = broken => {
            Err(Failure::bad_request(format!("the request body broke off: {error}")))
        }
    }
}

/// Parses one JSON value, in Go's words when it is none.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value> {
    let invalid = |why: &str| Err(Failure::bad_request(format!("invalid JSON: {why}")));
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return invalid("got EOF while reading request body");
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = match Value::deserialize(&mut reader) {
        Ok(value) => value,
        Err(error) => return invalid(&go_words(&error, bytes)),
    };
    if reader.end().is_err() {
        return Err(Failure::bad_request("unexpected content after JSON"));
    }
    Ok(value)
}

/// Says a syntax error as Go's encoding/json does.
fn go_words(error: &serde_json::Error, bytes: &[u8]) -> String {
    if error.is_eof() {
        return "unexpected EOF".into();
    }
    let line = bytes
        .split(|byte| *byte == b'\n')
        .nth(error.line().saturating_sub(1));
    let byte = line.and_then(|line| line.get(error.column().saturating_sub(1)));
    let text = error.to_string();
    let place = match text.split(" at line ").next().unwrap_or("") {
        "key must be a string" | "trailing comma" => "looking for beginning of object key string",
        "expected `:`" => "after object key",
        "expected `,` or `}`" => "after object key:value pair",
        "expected `,` or `]`" => "after array element",
        "expected value" => "looking for beginning of value",
        why => return why.to_owned(),
    };
    match byte {
        Some(byte) => format!("invalid character {:?} {place}", char::from(*byte)),
        None => "unexpected EOF".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_json_is_refused_in_gos_words() {
        let words = |text: &str| parse(text.as_bytes()).unwrap_err().message().to_owned();
        assert_eq!(
            words(""),
            "invalid JSON: got EOF while reading request body"
        );
        assert_eq!(words("{"), "invalid JSON: unexpected EOF");
        assert_eq!(words("{\"a\":"), "invalid JSON: unexpected EOF");
        assert_eq!(words("not json"), "invalid JSON: expected ident");
        assert_eq!(
            words("x"),
            "invalid JSON: invalid character 'x' looking for beginning of value"
        );
        assert_eq!(
            words("{\"a\" 1}"),
            "invalid JSON: invalid character '1' after object key"
        );
        assert_eq!(
            words("{a:1}"),
            "invalid JSON: invalid character 'a' looking for beginning of object key string"
        );
        assert_eq!(words("{} {}"), "unexpected content after JSON");
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        let deep = "[".repeat(100_000);
        assert_eq!(
            parse(deep.as_bytes()).unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
    }
}
