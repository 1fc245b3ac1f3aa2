//! What hosts answer: bodies within bounds, refusals in their own words, and
//! what is wrong with a connection.

use std::{error::Error as StdError, time::Duration};

use bytes::{Bytes, BytesMut};
use davit_store::{Error, Kind, Result};
use http::header::{LOCATION, RETRY_AFTER};
use reqwest::Response;
use url::Url;

/// How long a host may be silent: before its answer and within it.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// What is read of an error's text, in bytes.
const MAX_ERROR_TEXT: usize = 16 << 10;

/// A failure on the way, and whether another try may help.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) again: bool,
    /// Not even a connection came up.
    pub(super) unreachable: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            again: false,
            unreachable: false,
        }
    }
}

/// The whole of a small answer. `ResourceExhausted` when it is not small.
pub(super) async fn read_bounded(mut response: Response, limit: usize) -> Result<Bytes> {
    let host = authority(response.url());
    let too_large = || {
        Error::new(
            Kind::ResourceExhausted,
            format!("{host} sent more than {limit} bytes where that is not sane"),
        )
    };
    if response
        .content_length()
        .is_some_and(|length| length > limit as u64)
    {
        return Err(too_large());
    }
    let mut all = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut response).await? {
        if all.len() + chunk.len() > limit {
            return Err(too_large());
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

/// The next bytes of an answer; `Unavailable` when they stay away.
pub(super) async fn next_chunk(response: &mut Response) -> Result<Option<Bytes>> {
    let host = authority(response.url());
    match tokio::time::timeout(SILENCE, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(error)) => Err(transport(&host, &error).error),
        Err(_) => Err(silent(&host).error),
    }
}

#[derive(serde::Deserialize)]
struct ErrorList {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(serde::Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Why a host refused `what`, in its own words (distribution spec, "Error
/// codes").
pub(super) async fn refusal(response: Response, what: &str) -> Error {
    let status = response.status();
    let kind = match status.as_u16() {
        401 => Kind::Unauthenticated,
        403 => Kind::PermissionDenied,
        404 => Kind::NotFound,
        405 | 501 => Kind::Unimplemented,
        408 | 429 | 500..=599 => Kind::Unavailable,
        413 => Kind::ResourceExhausted,
        416 => Kind::OutOfRange,
        400..=499 => Kind::InvalidArgument,
        _ => Kind::Internal,
    };
    let said = words_of(response).await;
    let said = said.unwrap_or_else(|| format!("the registry answered {status}"));
    Error::new(kind, format!("{what}: {said}"))
}

async fn words_of(mut response: Response) -> Option<String> {
    let mut text = Vec::new();
    while text.len() < MAX_ERROR_TEXT {
        match tokio::time::timeout(Duration::from_secs(5), response.chunk()).await {
            Ok(Ok(Some(chunk))) => text.extend_from_slice(&chunk),
            _ => break,
        }
    }
    text.truncate(MAX_ERROR_TEXT);
    let list: ErrorList = serde_json::from_slice(&text).ok()?;
    let said: Vec<String> = list
        .errors
        .iter()
        .take(4)
        .map(|entry| {
            let code = entry.code.to_lowercase().replace('_', " ");
            let message: String = entry
                .message
                .chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect();
            match (code.as_str(), message.as_str()) {
                (_, "") => code,
                ("", _) => message,
                _ => format!("{code}: {message}"),
            }
        })
        .filter(|said| !said.is_empty())
        .collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// "host" or "host:port" of a URL.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Where an answer points to.
pub(super) fn location(base: &Url, response: &Response) -> Result<Url> {
    let refused = || {
        Error::new(
            Kind::Unavailable,
            format!("{} points to no valid place", authority(base)),
        )
    };
    let text = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(refused)?;
    let url = base
        .join(text)
        .map_err(|error| refused().with_source(error))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(refused()),
    }
}

/// How long a busy host wants us to wait.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let wait = at.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// A host that does not answer.
pub(super) fn silent(authority: &str) -> Failure {
    Failure {
        error: Error::new(
            Kind::Unavailable,
            format!("registry {authority} gave no answer in time"),
        ),
        again: true,
        unreachable: false,
    }
}

/// What is wrong with a connection, told by the innermost cause: that is what
/// people can act on. URLs are left out, they may carry signatures.
pub(super) fn transport(authority: &str, error: &reqwest::Error) -> Failure {
    let mut again = !error.is_builder();
    let mut cause: &(dyn StdError + 'static) = error;
    loop {
        let inner = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        let next = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => cause.source(),
        };
        match next {
            Some(next) => cause = next,
            None => break,
        }
        // A certificate does not get better by asking again.
        if let Some(rustls::Error::InvalidCertificate(_)) = cause.downcast_ref::<rustls::Error>() {
            again = false;
            break;
        }
    }
    let text = format!("can't reach registry {authority}: {cause}");
    Failure {
        error: Error::new(Kind::Unavailable, text),
        again,
        unreachable: error.is_connect(),
    }
}
