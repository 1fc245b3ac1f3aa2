//! What a name points to in a registry: manifests, indexes, lists of tags.

use bytes::Bytes;
use davit_store::{Error, Kind, Result};
use http::{
    HeaderValue, Method, StatusCode,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LINK},
};
use reqwest::Response;
use serde::Deserialize;

use super::{
    Repository,
    answer::{authority, read_bounded, refusal},
    exchange::{Link, Payload, Request, Target},
    hosts::Host,
    token::Scope,
    tries,
};
use crate::{Digest, digest::Hasher, media};

/// Largest manifest that is read, in bytes (the distribution spec has
/// registries take at least 4 MiB).
pub(crate) const MAX_MANIFEST: usize = 8 << 20;
/// Pages of a list of tags that are read.
const MAX_TAG_PAGES: usize = 1000;
/// Tags of one repository.
const MAX_TAGS: usize = 100_000;
/// The registry's word on what it sends.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// A manifest or index as a registry sent it.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

impl Repository {
    /// What a tag points to at the moment, without its bytes. `None` when the
    /// registry does not say; then [`Repository::manifest`] tells.
    pub(crate) async fn head(&self, target: &str) -> Result<Option<Digest>> {
        let links = self.having(|host| host.resolve);
        for (index, link) in links.iter().enumerate() {
            let mut request = self.manifest_request(Method::HEAD, target);
            request.tries = tries(index + 1 == links.len());
            let Ok(response) = link.send(&request).await else {
                continue;
            };
            if response.status().is_success() {
                return Ok(digest_header(&response));
            }
        }
        Ok(None)
    }

    /// The manifest or index that a tag or digest points to, checked against
    /// its digest. `NotFound` when there is none.
    pub(crate) async fn manifest(&self, target: &str) -> Result<Fetched> {
        let wanted = Digest::parse(target).ok();
        let can = |host: &Host| {
            if wanted.is_some() {
                host.pull
            } else {
                host.resolve
            }
        };
        let links = self.having(can);
        let mut failed = self.nobody("serves");
        for (index, link) in links.iter().enumerate() {
            let last = index + 1 == links.len();
            match self
                .manifest_from(link, target, wanted.as_ref(), tries(last))
                .await
            {
                Ok(fetched) => return Ok(fetched),
                Err(error) => {
                    if !last {
                        tracing::warn!(mirror = %link.host.authority, image = %self.name(), %error, "mirror passed over");
                    }
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    /// All tags of the repository.
    pub(crate) async fn tags(&self) -> Result<Vec<String>> {
        let links = self.having(|host| host.resolve);
        let link = links
            .last()
            .ok_or_else(|| self.nobody("lists the tags of"))?;
        let mut tags = Vec::new();
        let mut target = Target::Path(self.path("tags/list"), Vec::new());
        for _ in 0..MAX_TAG_PAGES {
            let mut request = Request::new(Method::GET, String::new(), self.pull_scope());
            request.target = target;
            let response = link.send(&request).await?;
            if !response.status().is_success() {
                return Err(self.refused(response, &self.name.familiar_name()).await);
            }
            let next = next_page(&response)?;
            let page: TagPage = serde_json::from_slice(
                &read_bounded(response, MAX_MANIFEST).await?,
            )
            .map_err(|error| {
                Error::new(
                    Kind::Unavailable,
                    format!("{} sent no list of tags", link.host.authority),
                )
                .with_source(error)
            })?;
            tags.extend(page.tags.unwrap_or_default());
            if tags.len() > MAX_TAGS {
                break;
            }
            match next {
                Some(next) => target = Target::Url(next),
                None => return Ok(tags),
            }
        }
        Err(Error::new(
            Kind::ResourceExhausted,
            format!("{} has no end of tags", self.name()),
        ))
    }

    /// Stores a manifest or index under a tag or digest, byte for byte.
    pub(crate) async fn put_manifest(
        &self,
        target: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<()> {
        let link = self.pusher()?;
        let mut request = Request::new(
            Method::PUT,
            self.path(&format!("manifests/{target}")),
            self.push_scope(),
        );
        let value = HeaderValue::from_str(media_type)
            .map_err(|_| Error::invalid(format!("{media_type:?} is no media type")))?;
        request.headers.push((CONTENT_TYPE, value));
        request.payload = Payload::Bytes(bytes);
        let response = link.send(&request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(refusal(
            response,
            &format!("{}: manifest {target}", self.name.familiar_name()),
        )
        .await)
    }

    /// Whether the registry has a manifest of this digest in the repository.
    pub(crate) async fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        let request = Request {
            scope: self.push_scope(),
            ..self.manifest_request(Method::HEAD, digest.as_str())
        };
        let response = self.pusher()?.send(&request).await?;
        Ok(response.status().is_success())
    }

    /// Asks for nothing but to be let in.
    pub(crate) async fn login(&self) -> Result<()> {
        let link = self.pusher()?;
        let request = Request::new(Method::GET, String::new(), Scope::default());
        let response = link.send(&request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(refusal(response, &format!("login to {}", link.host.authority)).await)
    }

    pub(super) fn pull_scope(&self) -> Scope {
        Scope::repository(self.name.path(), &["pull"])
    }

    pub(super) fn push_scope(&self) -> Scope {
        Scope::repository(self.name.path(), &["pull", "push"])
    }

    /// The host that pushes go to.
    pub(super) fn pusher(&self) -> Result<&Link> {
        self.having(|host| host.push)
            .first()
            .copied()
            .ok_or_else(|| self.nobody("takes pushes to"))
    }

    pub(super) fn nobody(&self, does: &str) -> Error {
        Error::precondition(format!("no host in hosts.toml {does} {}", self.name()))
    }

    fn manifest_request(&self, method: Method, target: &str) -> Request {
        let path = self.path(&format!("manifests/{target}"));
        let mut request = Request::new(method, path, self.pull_scope());
        request
            .headers
            .push((ACCEPT, HeaderValue::from_static(media::ACCEPTED)));
        request
    }

    async fn manifest_from(
        &self,
        link: &Link,
        target: &str,
        wanted: Option<&Digest>,
        tries: u32,
    ) -> Result<Fetched> {
        let request = Request {
            tries,
            ..self.manifest_request(Method::GET, target)
        };
        let response = link.send(&request).await?;
        if !response.status().is_success() {
            let what = format!("manifest for {}", self.with_target(target));
            return Err(self.refused(response, &what).await);
        }
        let said = digest_header(&response);
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(|value| {
                value
                    .split(';')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            })
            .unwrap_or_default();
        let bytes = read_bounded(response, MAX_MANIFEST).await?;
        let media_type = media::of_manifest(&content_type, &bytes)
            .map_err(|error| error.context(self.with_target(target)))?;
        let expected = wanted.or(said.as_ref());
        let digest = match expected {
            None => Digest::of(&bytes),
            Some(expected) => {
                let mut hasher = Hasher::new(expected.algorithm());
                hasher.update(&bytes);
                let digest = hasher.finish();
                if digest != *expected {
                    return Err(Error::new(
                        Kind::DataLoss,
                        format!(
                            "{}: the manifest that {} sent has digest {digest}, not {expected}",
                            self.with_target(target),
                            link.host.authority
                        ),
                    ));
                }
                digest
            }
        };
        Ok(Fetched {
            media_type,
            digest,
            bytes,
        })
    }

    /// "name:tag" or "name@digest", as people write it.
    fn with_target(&self, target: &str) -> String {
        let sign = if target.contains(':') { '@' } else { ':' };
        format!("{}{sign}{target}", self.name.familiar_name())
    }

    /// A registry's refusal to read, in docker's words.
    pub(super) async fn refused(&self, response: Response, what: &str) -> Error {
        let status = response.status();
        let name = self.name.familiar_name();
        let host = authority(response.url());
        let error = refusal(response, what).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let said = error.to_string();
                let said = said
                    .strip_prefix(what)
                    .and_then(|said| said.strip_prefix(": "));
                Error::new(
                    error.kind(),
                    format!(
                        "pull access denied for {name}, repository does not exist or may require 'docker login' to {host}: {}",
                        said.unwrap_or("denied")
                    ),
                )
            }
            StatusCode::NOT_FOUND => {
                let text = error.to_string();
                Error::not_found(text.replacen(": ", " not found: ", 1))
            }
            _ => error,
        }
    }
}

#[derive(Deserialize)]
struct TagPage {
    tags: Option<Vec<String>>,
}

fn digest_header(response: &Response) -> Option<Digest> {
    let text = response.headers().get(CONTENT_DIGEST)?.to_str().ok()?;
    let length = response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    // An empty manifest is none.
    if length == Some("0") {
        return None;
    }
    Digest::parse(text).ok()
}

/// The next page of a list (RFC 8288), on the same host only.
fn next_page(response: &Response) -> Result<Option<url::Url>> {
    let base = response.url();
    for value in response.headers().get_all(LINK) {
        let Ok(text) = value.to_str() else { continue };
        for entry in text.split(',') {
            let mut parts = entry.split(';');
            let target = parts.next().unwrap_or_default().trim();
            let is_next = parts.any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next"));
            let target = target
                .strip_prefix('<')
                .and_then(|target| target.strip_suffix('>'));
            if let (true, Some(target)) = (is_next, target) {
                let next = base.join(target).map_err(|error| {
                    Error::new(
                        Kind::Unavailable,
                        format!("{} names no valid next page", authority(base)),
                    )
                    .with_source(error)
                })?;
                return Ok((authority(&next) == authority(base)).then_some(next));
            }
        }
    }
    Ok(None)
}
