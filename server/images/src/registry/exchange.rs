//! One request to one host: who we are there, redirects, and trying again.

use std::{
    collections::HashMap,
    error::Error as StdError,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use davit_store::{Error, Kind, Result};
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION, RETRY_AFTER},
};
use reqwest::{Body, Response};
use tokio::sync::OnceCell;
use url::Url;

use super::{
    Shared,
    challenge::{self, Bearer, Challenge},
    credentials::{Credential, from_docker_config},
    hosts::{Host, Scheme, Tls},
    token::{self, Scope, TokenAnswer, TokenKey, TokenRequest},
};

/// How long a host may be silent: before its answer and within it.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is waited for.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// First wait between two tries; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Redirects followed.
const MAX_REDIRECTS: usize = 10;
/// Tries to connect.
const CONNECTS: u32 = 3;
/// What is read of an error's text, in bytes.
const MAX_ERROR_TEXT: usize = 16 << 10;

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

/// A failure on the way, and whether another try may help.
struct Failure {
    error: Error,
    again: bool,
    /// Not even a connection came up.
    unreachable: bool,
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
    fn is_ours(&self, url: &Url) -> bool {
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

    async fn credential(&self) -> Result<&Credential> {
        self.credential
            .get_or_try_init(|| async {
                if let Some(given) = &self.given {
                    return Ok(given.clone());
                }
                let config = self.shared.docker_config.as_ref();
                from_docker_config(config, &self.domain, &self.host.authority).await
            })
            .await
    }

    /// What the host has asked for before, so that most requests go once.
    async fn known_authorization(&self, scope: &Scope) -> Result<Option<String>> {
        let Some(challenge) = self.shared.challenge(&self.host.authority) else {
            return Ok(None);
        };
        match challenge {
            Challenge::Basic => self.authorization(&challenge, scope, None).await,
            Challenge::Bearer(mut bearer) => {
                // The remembered scope is that of another request.
                bearer.scope.clear();
                self.bearer(&bearer, scope, None).await
            }
        }
    }

    async fn authorization(
        &self,
        challenge: &Challenge,
        scope: &Scope,
        refused: Option<&str>,
    ) -> Result<Option<String>> {
        match challenge {
            Challenge::Bearer(bearer) => self.bearer(bearer, scope, refused).await,
            Challenge::Basic => match self.credential().await? {
                Credential::Password(user, password) => {
                    let shown = basic(user, password);
                    Ok((refused != Some(shown.as_str())).then_some(shown))
                }
                Credential::Token(token) => Ok(Some(format!("Bearer {token}"))),
                Credential::Anonymous | Credential::Identity(_) => Ok(None),
            },
        }
    }

    async fn bearer(
        &self,
        bearer: &Bearer,
        scope: &Scope,
        refused: Option<&str>,
    ) -> Result<Option<String>> {
        let credential = self.credential().await?.clone();
        if let Credential::Token(token) = &credential {
            return Ok(refused.is_none().then(|| format!("Bearer {token}")));
        }
        let key = TokenKey {
            authority: self.host.authority.clone(),
            scope: scope.clone(),
            credential: credential.clone(),
        };
        let refused = refused.and_then(|shown| shown.strip_prefix("Bearer "));
        if refused.is_none()
            && let Some(token) = self.shared.tokens.cached(&key).await
        {
            return Ok(Some(format!("Bearer {token}")));
        }
        let asked = Scope::parse(&bearer.scope);
        // A mirror may know the repository by another name than we do.
        let wanted = if asked.is_empty() || self.host.upstream {
            scope.clone().and(asked)
        } else {
            asked
        };
        let fetch = self.fetch_token(bearer, &wanted, &credential);
        let token = self.shared.tokens.get(&key, refused, fetch).await?;
        Ok(Some(format!("Bearer {token}")))
    }

    async fn fetch_token(
        &self,
        bearer: &Bearer,
        scope: &Scope,
        credential: &Credential,
    ) -> Result<TokenAnswer> {
        let (method, url, login, form) = match token::request(bearer, scope, credential)? {
            TokenRequest::Get(url, login) => (Method::GET, url, login, None),
            TokenRequest::Post(url, form) => (Method::POST, url, None, Some(form)),
        };
        let authority = authority(&url);
        if url.scheme() != "https" && self.host.scheme == Scheme::Https {
            return Err(Error::new(
                Kind::Unauthenticated,
                format!(
                    "registry {} sends its users to plain HTTP for a token ({authority}); refused",
                    self.host.authority
                ),
            ));
        }
        let tls = Tls {
            client: Vec::new(),
            ..self.host.tls.clone()
        };
        let tls = if self.is_ours(&url) {
            self.host.tls.clone()
        } else {
            tls
        };
        let client = self.shared.clients.get(
            &authority,
            url.scheme() == "http",
            &tls,
            self.host.dial_timeout,
        )?;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut builder = client.request(method.clone(), url.clone());
            if let Some((user, password)) = &login {
                builder = builder.header(AUTHORIZATION, basic(user, password));
            }
            if let Some(form) = &form {
                builder = builder
                    .header(
                        http::header::CONTENT_TYPE,
                        "application/x-www-form-urlencoded",
                    )
                    .body(form.clone());
            }
            let sent = match tokio::time::timeout(SILENCE, builder.send()).await {
                Ok(sent) => sent.map_err(|error| transport(&authority, &error)),
                Err(_) => Err(silent(&authority)),
            };
            let response = match sent {
                Err(failure) if !failure.again || tries >= 4 => return Err(failure.error),
                Ok(response) if !is_busy(response.status()) || tries >= 4 => response,
                Ok(_) | Err(_) => {
                    tokio::time::sleep(jittered(FIRST_WAIT * 2u32.pow(tries))).await;
                    continue;
                }
            };
            return token_answer(response, &authority).await;
        }
    }
}

async fn token_answer(response: Response, authority: &str) -> Result<TokenAnswer> {
    let status = response.status();
    if !status.is_success() {
        let error = refusal(response, &format!("token server {authority}")).await;
        return Err(
            match status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
                true => Error::new(Kind::Unauthenticated, error.to_string()),
                false => error,
            },
        );
    }
    let text = read_bounded(response, token::MAX_ANSWER).await?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::new(
            Kind::Unauthenticated,
            format!("token server {authority} answered no token"),
        )
        .with_source(error)
    })
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

fn basic(user: &str, password: &str) -> String {
    let engine = base64::engine::general_purpose::STANDARD;
    format!("Basic {}", engine.encode(format!("{user}:{password}")))
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let wait = at.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// A wait with up to a quarter on top, so that clients do not come in step.
pub(super) fn jittered(wait: Duration) -> Duration {
    let noise = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos() % 256);
    wait + wait * noise / 1024
}

fn silent(authority: &str) -> Failure {
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
fn transport(authority: &str, error: &reqwest::Error) -> Failure {
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

impl Shared {
    fn schemes(&self) -> std::sync::MutexGuard<'_, HashMap<String, &'static str>> {
        self.schemes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn challenge(&self, authority: &str) -> Option<Challenge> {
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
