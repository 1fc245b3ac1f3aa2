//! Who we are at a host: its challenge answered with a password or a token.

use base64::Engine as _;
use davit_store::{Error, Kind, Result};
use http::{Method, StatusCode, header::AUTHORIZATION};
use reqwest::Response;

use super::{
    answer::{SILENCE, authority, read_bounded, refusal, silent, transport},
    challenge::{Bearer, Challenge},
    credentials::{Credential, from_docker_config},
    exchange::{FIRST_WAIT, Link, is_busy, jittered},
    hosts::{Scheme, Tls},
    token::{self, Scope, TokenAnswer, TokenKey, TokenRequest},
};

impl Link {
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
    pub(super) async fn known_authorization(&self, scope: &Scope) -> Result<Option<String>> {
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

    pub(super) async fn authorization(
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

fn basic(user: &str, password: &str) -> String {
    let engine = base64::engine::general_purpose::STANDARD;
    format!("Basic {}", engine.encode(format!("{user}:{password}")))
}
