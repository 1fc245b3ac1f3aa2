//! One request to one host: credentials, redirects, and trying again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use davit_store::{Error, Kind, Result};
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH},
};
use reqwest::{Body, Response};
use tokio::sync::OnceCell;
use url::Url;

use super::{
    Shared,
    answer::{Failure, SILENCE, authority, location, retry_after, silent, transport},
    challenge::{self, Challenge},
    credentials::Credential,
    hosts::{Host, Scheme, Tls},
    token::Scope,
};

/// The longest `Retry-After` that is waited for.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// First wait between two tries; it doubles.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Redirects followed.
const MAX_REDIRECTS: usize = 10;
/// Tries to connect.
const CONNECTS: u32 = 3;

/// What is sent along.
#[derive(Clone)]
pub(super) enum Payload {
    /// Nothing.
    None,
    /// A small body.
    Bytes(Bytes),
    /// A large body of this many bytes, made anew for every try.
    Stream(u64, Arc<dyn Fn() -> Result<Body> + Send + Sync>),
}

/// One request, as often as it takes.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) payload: Payload,
    pub(super) scope: Scope,
    /// How often it is tried.
    pub(super) tries: u32,
    /// How long the answer may take; `None` when the caller watches over it.
    pub(super) patience: Option<Duration>,
}

/// Where a request goes.
#[derive(Clone)]
pub(super) enum Target {
    /// Below the host's path, with a query.
    Path(String, Vec<(&'static str, String)>),
    /// Where the host said.
    Url(Url),
}

impl Request {
    /// A request without a body for `path` below "/v2/".
    pub(super) fn new(method: Method, path: String, scope: Scope) -> Self {
        Self {
            method,
            target: Target::Path(path, Vec::new()),
            headers: Vec::new(),
            payload: Payload::None,
            scope,
            tries: 5,
            patience: Some(SILENCE),
        }
    }
}

/// A host as one operation uses it.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) host: Host,
    /// The registry that the references name.
    pub(super) domain: String,
    /// Credentials of the call; only for the upstream host.
    pub(super) given: Option<Credential>,
    pub(super) credential: OnceCell<Credential>,
}

impl Link {
    /// Sends a request and gives the answer, whatever its status. Busy hosts
    /// and broken connections are tried again, with growing waits.
    pub(super) async fn send(&self, request: &Request) -> Result<Response> {
        let mut wait = FIRST_WAIT;
        let mut tried = 0;
        loop {
            tried += 1;
            let last = tried >= request.tries;
            let pause = match self.once(request).await {
                Ok(response) if last || !is_busy(response.status()) => return Ok(response),
                Ok(response) => match retry_after(&response) {
                    Some(pause) if pause > MAX_WAIT => return Ok(response),
                    Some(pause) => pause.max(wait),
                    None => wait,
                },
                Err(failure) if last || !failure.again => return Err(failure.error),
                // A host that is not there will hardly come up meanwhile.
                Err(failure) if failure.unreachable && tried >= CONNECTS => {
                    return Err(failure.error);
                }
                Err(failure) => {
                    tracing::debug!(host = %self.host.authority, error = %failure.error, "trying again");
                    self.forget_scheme();
                    wait
                }
            };
            tokio::time::sleep(jittered(pause)).await;
            wait = (wait * 2).min(Duration::from_secs(10));
        }
    }

    /// One try: at most one refusal is answered with credentials.
    async fn once(&self, request: &Request) -> Result<Response, Failure> {
        let url = self.url(&request.target).await?;
        let ours = self.is_ours(&url);
        let mut shown = if ours {
            self.known_authorization(&request.scope).await?
        } else {
            None
        };
        let response = self.transmit(&url, request, shown.as_deref(), ours).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !ours {
            return self.follow(url, response, request, shown).await;
        }
        let Some(challenge) = challenge::from_headers(response.headers()) else {
            return Ok(response);
        };
        self.shared.remember(&self.host.authority, &challenge);
        shown = self
            .authorization(&challenge, &request.scope, shown.as_deref())
            .await?;
        if shown.is_none() {
            return Ok(response);
        }
        drop(response);
        let response = self.transmit(&url, request, shown.as_deref(), ours).await?;
        self.follow(url, response, request, shown).await
    }

    /// Goes where the host points to. What belongs to the host stays with it.
    async fn follow(
        &self,
        mut url: Url,
        mut response: Response,
        request: &Request,
        shown: Option<String>,
    ) -> Result<Response, Failure> {
        if request.method != Method::GET && request.method != Method::HEAD {
            return Ok(response);
        }
        for _ in 0..MAX_REDIRECTS {
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED
            {
                return Ok(response);
            }
            let next = location(&url, &response)?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Error::new(
                    Kind::PermissionDenied,
                    format!(
                        "registry {} redirects from TLS to plain HTTP; refused",
                        self.host.authority
                    ),
                )
                .into());
            }
            url = next;
            let ours = self.is_ours(&url);
            let shown = shown.as_deref().filter(|_| ours);
            response = self.transmit(&url, request, shown, ours).await?;
        }
        Err(Error::new(
            Kind::Unavailable,
            format!("registry {} redirects in circles", self.host.authority),
        )
        .into())
    }

    async fn transmit(
        &self,
        url: &Url,
        request: &Request,
        shown: Option<&str>,
        ours: bool,
    ) -> Result<Response, Failure> {
        let authority = authority(url);
        let foreign = Tls {
            client: Vec::new(),
            ..self.host.tls.clone()
        };
        let tls = if ours { &self.host.tls } else { &foreign };
        let plain = url.scheme() == "http";
        let client = self
            .shared
            .clients
            .get(&authority, plain, tls, self.host.dial_timeout)?;
        let mut builder = client.request(request.method.clone(), url.clone());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if ours {
            for (name, value) in &self.host.headers {
                builder = builder.header(name, value);
            }
        }
        if let Some(shown) = shown {
            let mut value = HeaderValue::from_str(shown)
                .map_err(|_| Error::invalid("credentials contain control characters"))?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        builder = match &request.payload {
            Payload::None => builder,
            Payload::Bytes(bytes) => builder.body(bytes.clone()),
            Payload::Stream(length, make) => builder.header(CONTENT_LENGTH, *length).body(make()?),
        };
        let sent = match request.patience {
            None => builder.send().await,
            Some(patience) => match tokio::time::timeout(patience, builder.send()).await {
                Ok(sent) => sent,
                Err(_) => return Err(silent(&authority)),
            },
        };
        sent.map_err(|error| transport(&authority, &error))
    }

    async fn url(&self, target: &Target) -> Result<Url, Failure> {
        let (path, query) = match target {
            Target::Url(url) => return Ok(url.clone()),
            Target::Path(path, query) => (path, query),
        };
        let scheme = self.scheme().await?;
        let text = format!(
            "{scheme}://{}{}/{path}",
            self.host.authority, self.host.path
        );
        let mut url = Url::parse(&text)
            .map_err(|error| Error::invalid(format!("{text:?} is no URL")).with_source(error))?;
        if !query.is_empty() || !self.host.upstream {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(query);
            if !self.host.upstream {
                // Tells a mirror of several registries which one is meant.
                pairs.append_pair("ns", &self.domain);
            }
        }
        Ok(url)
    }

    /// Whether credentials and headers of this host may go to `url`.
    pub(super) fn is_ours(&self, url: &Url) -> bool {
        let default = if url.scheme() == "https" { "443" } else { "80" };
        let ours = &self.host.authority;
        let scheme = match self.host.scheme {
            Scheme::Https => url.scheme() == "https",
            Scheme::Http | Scheme::Either => true,
        };
        let theirs = authority(url);
        scheme
            && (theirs == *ours
                || ours
                    .strip_suffix(default)
                    .and_then(|rest| rest.strip_suffix(':'))
                    == Some(&theirs))
    }

    async fn scheme(&self) -> Result<&'static str, Failure> {
        match self.host.scheme {
            Scheme::Https => return Ok("https"),
            Scheme::Http => return Ok("http"),
            Scheme::Either => {}
        }
        if let Some(scheme) = self.shared.schemes().get(&self.host.authority) {
            return Ok(scheme);
        }
        let scheme = self.probe().await?;
        let mut schemes = self.shared.schemes();
        if schemes.len() > 256 {
            schemes.clear();
        }
        schemes.insert(self.host.authority.clone(), scheme);
        Ok(scheme)
    }

    /// Asks without any secret over plain HTTP; a TLS server answers that with
    /// 400 or not at all.
    async fn probe(&self) -> Result<&'static str, Failure> {
        let authority = &self.host.authority;
        let client =
            self.shared
                .clients
                .get(authority, true, &Tls::default(), self.host.dial_timeout)?;
        let sent = client.get(format!("http://{authority}/v2/")).send();
        match tokio::time::timeout(Duration::from_secs(10), sent).await {
            Ok(Ok(response)) if response.status() == StatusCode::BAD_REQUEST => Ok("https"),
            Ok(Ok(_)) => Ok("http"),
            Ok(Err(error)) if error.is_connect() => Err(transport(authority, &error)),
            Ok(Err(_)) => Ok("https"),
            Err(_) => Err(silent(authority)),
        }
    }

    fn forget_scheme(&self) {
        self.shared.schemes().remove(&self.host.authority);
    }
}

/// Whether a host may do better in a moment.
pub(super) fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// A wait with up to a quarter on top, so that clients do not come in step.
pub(super) fn jittered(wait: Duration) -> Duration {
    let noise = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos() % 256);
    wait + wait * noise / 1024
}

impl Shared {
    fn schemes(&self) -> std::sync::MutexGuard<'_, HashMap<String, &'static str>> {
        self.schemes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn challenge(&self, authority: &str) -> Option<Challenge> {
        self.challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(authority)
            .cloned()
    }

    fn remember(&self, authority: &str, challenge: &Challenge) {
        let mut challenges = self
            .challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if challenges.len() > 256 {
            challenges.clear();
        }
        challenges.insert(authority.to_owned(), challenge.clone());
    }
}

/// What is remembered about hosts' demands.
pub(super) type Challenges = Mutex<HashMap<String, Challenge>>;
