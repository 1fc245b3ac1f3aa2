//! A blob out of a registry, going on where it broke off.

use bytes::Bytes;
use davit_store::{Error, Kind, Result};
use http::{
    HeaderValue, Method, StatusCode,
    header::{CONTENT_RANGE, RANGE},
};
use reqwest::Response;

use super::{
    Repository,
    answer::{next_chunk, read_bounded},
    exchange::{Link, Request, jittered},
    tries,
};
use crate::Digest;

/// A try that brings fewer bytes counts as one that brought none.
const PROGRESS: u64 = 32 << 10;

/// Where a blob's bytes go.
pub(crate) trait Sink: Send {
    /// Bytes that are here: the next byte to bring.
    fn offset(&self) -> u64;
    /// Takes the next bytes.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<()>> + Send;
    /// Forgets all bytes so far.
    fn restart(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Who is to blame decides what comes next.
enum Failure {
    /// The sink: no host can help.
    Here(Error),
    /// The host: it, or another one, may be asked again.
    There(Error),
    /// The host, for good.
    Refused(Error),
}

impl Repository {
    /// Brings a blob of `size` bytes into `sink`, from the first host that has
    /// it. Its digest is the sink's to check.
    pub(crate) async fn download(
        &self,
        digest: &Digest,
        size: u64,
        sink: &mut impl Sink,
    ) -> Result<()> {
        let links = self.having(|host| host.pull);
        let mut failed = self.nobody("serves");
        for (index, link) in links.iter().enumerate() {
            let last = index + 1 == links.len();
            match self
                .download_from(link, digest, size, sink, tries(last))
                .await
            {
                Ok(()) => return Ok(()),
                Err(Failure::Here(error)) => return Err(error),
                Err(Failure::There(error) | Failure::Refused(error)) => {
                    if !last {
                        tracing::warn!(mirror = %link.host.authority, blob = %digest, %error, "mirror passed over");
                    }
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// The whole of a small blob, checked: a config.
    pub(crate) async fn small_blob(&self, digest: &Digest, size: u64, limit: u64) -> Result<Bytes> {
        if size > limit {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "{}: blob {digest} has {size} bytes; at most {limit} are taken",
                    self.name()
                ),
            ));
        }
        let links = self.having(|host| host.pull);
        let mut failed = self.nobody("serves");
        for (index, link) in links.iter().enumerate() {
            match self
                .small_blob_from(link, digest, size, tries(index + 1 == links.len()))
                .await
            {
                Ok(bytes) => return Ok(bytes),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn small_blob_from(
        &self,
        link: &Link,
        digest: &Digest,
        size: u64,
        tries: u32,
    ) -> Result<Bytes> {
        let request = Request {
            tries,
            ..self.blob_request(digest)
        };
        let response = link.send(&request).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(response, &self.blob_name(digest)).await);
        }
        let bytes = read_bounded(response, usize::try_from(size).unwrap_or(usize::MAX)).await?;
        let mut hasher = crate::digest::Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        if bytes.len() as u64 != size || hasher.finish() != *digest {
            return Err(wrong_bytes(link, digest));
        }
        Ok(bytes)
    }

    async fn download_from(
        &self,
        link: &Link,
        digest: &Digest,
        size: u64,
        sink: &mut impl Sink,
        tries: u32,
    ) -> Result<(), Failure> {
        let mut fruitless = 0;
        loop {
            let before = sink.offset();
            let failed = match self.attempt(link, digest, size, sink).await {
                Ok(()) => return Ok(()),
                Err(Failure::There(error)) => error,
                Err(other) => return Err(other),
            };
            let came = sink.offset().saturating_sub(before);
            fruitless = if came >= PROGRESS { 0 } else { fruitless + 1 };
            if fruitless >= tries {
                return Err(Failure::There(failed));
            }
            tracing::debug!(blob = %digest, at = sink.offset(), error = %failed, "download goes on");
            tokio::time::sleep(jittered(std::time::Duration::from_millis(100 << fruitless))).await;
        }
    }

    /// One connection's worth of a blob.
    async fn attempt(
        &self,
        link: &Link,
        digest: &Digest,
        size: u64,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        if sink.offset() > size {
            sink.restart().await.map_err(Failure::Here)?;
        }
        let offset = sink.offset();
        if offset == size {
            return Ok(());
        }
        let mut request = self.blob_request(digest);
        // The caller tries again itself, knowing what has come.
        request.tries = 2;
        if offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-")).map_err(|error| {
                Failure::Here(Error::internal("no range header").with_source(error))
            })?;
            request.headers.push((RANGE, range));
        }
        let response = link.send(&request).await.map_err(Failure::There)?;
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response) == Some(offset) => 0,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                sink.restart().await.map_err(Failure::Here)?;
                return Err(Failure::There(wrong_bytes(link, digest)));
            }
            // It knows no ranges: what is here already is passed over, so that
            // what was unpacked need not be unpacked again.
            StatusCode::OK => offset,
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failure::There(
                    self.refused(response, &self.blob_name(digest)).await,
                ));
            }
            _ => {
                return Err(Failure::Refused(
                    self.refused(response, &self.blob_name(digest)).await,
                ));
            }
        };
        if response
            .content_length()
            .is_some_and(|length| length + offset - skip != size)
        {
            return Err(Failure::Refused(wrong_bytes(link, digest)));
        }
        receive(link, digest, size, skip, response, sink).await
    }

    fn blob_request(&self, digest: &Digest) -> Request {
        Request::new(
            Method::GET,
            self.path(&format!("blobs/{digest}")),
            self.pull_scope(),
        )
    }

    fn blob_name(&self, digest: &Digest) -> String {
        format!("{}: blob {digest}", self.name.familiar_name())
    }
}

async fn receive(
    link: &Link,
    digest: &Digest,
    size: u64,
    mut skip: u64,
    mut response: Response,
    sink: &mut impl Sink,
) -> Result<(), Failure> {
    while let Some(mut chunk) = next_chunk(&mut response).await.map_err(Failure::There)? {
        if skip > 0 {
            let passed = skip.min(chunk.len() as u64);
            skip -= passed;
            // Not more than the chunk's own length, so it fits.
            chunk = chunk.slice(usize::try_from(passed).unwrap_or(chunk.len())..);
        }
        if sink.offset() + chunk.len() as u64 > size {
            return Err(Failure::Refused(wrong_bytes(link, digest)));
        }
        if !chunk.is_empty() {
            sink.write(chunk).await.map_err(Failure::Here)?;
        }
    }
    if sink.offset() < size {
        return Err(Failure::There(Error::new(
            Kind::Unavailable,
            format!(
                "{} ended blob {digest} after {} of {size} bytes",
                link.host.authority,
                sink.offset()
            ),
        )));
    }
    Ok(())
}

fn wrong_bytes(link: &Link, digest: &Digest) -> Error {
    Error::new(
        Kind::DataLoss,
        format!(
            "{} sent something else than blob {digest}",
            link.host.authority
        ),
    )
}

/// The first byte of a partial answer ("bytes 5-9/10").
fn starts_at(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}
