//! A blob into a registry: not at all if it has it, from another of its
//! repositories if that has it, else as one stream from the disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use davit_store::{Error, Kind, Result};
use futures::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use reqwest::Body;
use tokio::time::Instant;

use super::{
    Repository,
    answer::{SILENCE, location, refusal},
    exchange::{Link, Payload, Request, Target, jittered},
    token::Scope,
};
use crate::Digest;

/// How long a registry may take to put a blob away once it has all bytes.
const STORE_TIME: Duration = Duration::from_secs(600);
/// How often an upload is begun.
const TRIES: u32 = 5;

/// How a blob came to be in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was there.
    Exists,
    /// It was taken over from this repository.
    Mounted(String),
    /// It was sent.
    Uploaded,
}

/// Opens a blob's bytes from the start, as often as it is needed.
pub(crate) type OpenBlob = Arc<dyn Fn() -> Result<BoxStream<'static, Result<Bytes>>> + Send + Sync>;

impl Repository {
    /// Whether the repository has the blob.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(&format!("blobs/{digest}"));
        let request = Request::new(Method::HEAD, path, self.push_scope());
        let response = self.pusher()?.send(&request).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            // Some hosts redirect, and some do not know HEAD: sending it again
            // does no harm.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.denied(response).await),
            _ => Ok(false),
        }
    }

    /// Sees to it that the repository has the blob. `from` are repositories of
    /// the same registry that had it once. `progress` gets the bytes sent.
    pub(crate) async fn upload(
        &self,
        digest: &Digest,
        size: u64,
        open: OpenBlob,
        from: &[String],
        progress: Arc<AtomicU64>,
    ) -> Result<Sent> {
        if self.has_blob(digest).await? {
            return Ok(Sent::Exists);
        }
        let link = self.pusher()?;
        let mut mount = from.first().map(String::as_str);
        let mut tried = 0;
        loop {
            tried += 1;
            progress.store(0, Ordering::Relaxed);
            let failed = match self.begin(link, digest, mount).await? {
                Begun::Mounted(from) => return Ok(Sent::Mounted(from)),
                Begun::Upload(url) => {
                    match self
                        .send_blob(link, url, digest, size, &open, &progress)
                        .await
                    {
                        Ok(()) => return Ok(Sent::Uploaded),
                        Err(error) => error,
                    }
                }
            };
            if failed.kind() != Kind::Unavailable || tried >= TRIES {
                return Err(failed);
            }
            mount = None;
            tracing::debug!(blob = %digest, error = %failed, "upload begins again");
            tokio::time::sleep(jittered(Duration::from_millis(250 << tried))).await;
        }
    }

    /// Opens an upload, or mounts the blob from another repository.
    async fn begin(&self, link: &Link, digest: &Digest, mount: Option<&str>) -> Result<Begun> {
        let mut scope = self.push_scope();
        let mut query = Vec::new();
        if let Some(from) = mount {
            scope = scope.and(Scope::repository(from, &["pull"]));
            query = vec![("mount", digest.to_string()), ("from", from.to_owned())];
        }
        let mut request = Request::new(Method::POST, String::new(), scope);
        request.target = Target::Path(self.path("blobs/uploads/"), query);
        // An empty body with its length: some proxies want one.
        request.payload = Payload::Bytes(Bytes::new());
        let response = link.send(&request).await?;
        match (response.status(), mount) {
            (StatusCode::CREATED, Some(from)) => Ok(Begun::Mounted(from.to_owned())),
            (StatusCode::ACCEPTED, _) => Ok(Begun::Upload(location(response.url(), &response)?)),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, None) => {
                Err(self.denied(response).await)
            }
            // It may not let us see the other repository; then we send it.
            (status, Some(_)) if status.is_client_error() => {
                Box::pin(self.begin(link, digest, None)).await
            }
            _ => Err(refusal(response, &self.pushing(digest)).await),
        }
    }

    async fn send_blob(
        &self,
        link: &Link,
        mut url: url::Url,
        digest: &Digest,
        size: u64,
        open: &OpenBlob,
        progress: &Arc<AtomicU64>,
    ) -> Result<()> {
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let mut request = Request::new(Method::PUT, String::new(), self.push_scope());
        request.target = Target::Url(url);
        request.headers = vec![(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        )];
        request.payload = Payload::Stream(size, body(open.clone(), progress.clone()));
        request.patience = None;
        request.tries = 1;
        let response = tokio::select! {
            sent = link.send(&request) => sent?,
            () = stalled(progress, size) => {
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("{}: {} takes no more bytes", self.pushing(digest), link.host.authority),
                ));
            }
        };
        match response.status() {
            status if status.is_success() => Ok(()),
            // The session may be gone; a new one may do.
            StatusCode::NOT_FOUND => Err(Error::new(
                Kind::Unavailable,
                refusal(response, &self.pushing(digest)).await.to_string(),
            )),
            _ => Err(refusal(response, &self.pushing(digest)).await),
        }
    }

    /// A registry's refusal to be written to, in docker's words.
    async fn denied(&self, response: reqwest::Response) -> Error {
        let error = refusal(response, &self.name.familiar_name()).await;
        let text = format!("denied: requested access to the resource is denied: {error}");
        Error::new(error.kind(), text)
    }

    fn pushing(&self, digest: &Digest) -> String {
        format!("{}: push of blob {digest}", self.name.familiar_name())
    }
}

enum Begun {
    Mounted(String),
    Upload(url::Url),
}

/// A body that counts what was taken from it.
fn body(open: OpenBlob, progress: Arc<AtomicU64>) -> Arc<dyn Fn() -> Result<Body> + Send + Sync> {
    Arc::new(move || {
        progress.store(0, Ordering::Relaxed);
        let progress = progress.clone();
        let counted = open()?.inspect(move |bytes| {
            if let Ok(bytes) = bytes {
                progress.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        });
        Ok(Body::wrap_stream(checked(counted)))
    })
}

/// reqwest wants errors that it can box.
fn checked(
    stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    stream.map(|bytes| bytes.map_err(|error| std::io::Error::other(error.chain())))
}

/// Ends when bytes have stopped to move for too long.
async fn stalled(progress: &AtomicU64, size: u64) {
    let mut seen = progress.load(Ordering::Relaxed);
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = progress.load(Ordering::Relaxed);
        let patience = if now >= size { STORE_TIME } else { SILENCE };
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > patience {
            return;
        }
    }
}
