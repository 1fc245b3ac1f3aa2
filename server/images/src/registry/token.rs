//! Bearer tokens: fetched once for a host, a scope and a user, however many
//! requests ask for them (distribution's token specification, and OAuth2).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use davit_store::{Error, Kind, Result};
use serde::Deserialize;

use super::{challenge::Bearer, credentials::Credential};

/// Life of a token that does not say how long it lives.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Taken off a token's life, so that it does not end on its way.
const MARGIN: Duration = Duration::from_secs(10);
/// Tokens kept before the dead ones are thrown out.
const MAX_TOKENS: usize = 256;
/// No honest answer of a token server is larger, in bytes.
pub(super) const MAX_ANSWER: usize = 1 << 20;

/// What a request wants to do, as resources and actions.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Scope(BTreeMap<String, BTreeSet<String>>);

impl Scope {
    /// "repository:<path>:<actions>".
    pub(super) fn repository(path: &str, actions: &[&str]) -> Self {
        let actions = actions.iter().map(|&action| action.to_owned()).collect();
        Self(BTreeMap::from([(format!("repository:{path}"), actions)]))
    }

    /// Reads scopes separated by spaces; what has no actions is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut scope = Self::default();
        for part in text.split_ascii_whitespace() {
            if let Some((resource, actions)) = part.rsplit_once(':') {
                let actions = actions.split(',').map(str::to_owned);
                scope
                    .0
                    .entry(resource.to_owned())
                    .or_default()
                    .extend(actions);
            }
        }
        scope
    }

    /// Both.
    pub(super) fn and(mut self, other: Self) -> Self {
        for (resource, actions) in other.0 {
            self.0.entry(resource).or_default().extend(actions);
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Scope by scope, "repository:a/b:pull,push".
    pub(super) fn parts(&self) -> Vec<String> {
        let join = |actions: &BTreeSet<String>| {
            actions
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(",")
        };
        self.0
            .iter()
            .map(|(resource, actions)| format!("{resource}:{}", join(actions)))
            .collect()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts().join(" "))
    }
}

/// What a token is good for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pub(super) authority: String,
    pub(super) scope: Scope,
    pub(super) credential: Credential,
}

#[derive(Clone)]
struct Token {
    value: String,
    until: Instant,
}

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// The tokens of all hosts.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<TokenKey, Slot>>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// A token that is still good, if there is one.
    pub(super) async fn cached(&self, key: &TokenKey) -> Option<String> {
        let slot = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()?;
        let token = slot.lock().await;
        token
            .as_ref()
            .filter(|token| token.until > Instant::now())
            .map(|token| token.value.clone())
    }

    /// The token for `key`: a cached one unless it is `refused`, else what
    /// `fetch` brings. Callers at the same time share one fetch.
    pub(super) async fn get<F>(
        &self,
        key: &TokenKey,
        refused: Option<&str>,
        fetch: F,
    ) -> Result<String>
    where
        F: Future<Output = Result<TokenAnswer>>,
    {
        let slot = self.slot(key);
        let mut token = slot.lock().await;
        if let Some(token) = token.as_ref()
            && token.until > Instant::now()
            && Some(token.value.as_str()) != refused
        {
            return Ok(token.value.clone());
        }
        let answer = fetch.await?;
        let value = answer.value()?;
        let life = answer.life();
        *token = Some(Token {
            value: value.clone(),
            until: Instant::now() + life,
        });
        Ok(value)
    }

    fn slot(&self, key: &TokenKey) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_TOKENS {
            let now = Instant::now();
            slots.retain(|_, slot| match slot.try_lock() {
                Ok(token) => token.as_ref().is_some_and(|token| token.until > now),
                Err(_) => true,
            });
        }
        slots.entry(key.clone()).or_default().clone()
    }
}

/// What a token server answers.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl TokenAnswer {
    fn value(&self) -> Result<String> {
        let value = if self.token.is_empty() {
            &self.access_token
        } else {
            &self.token
        };
        if value.is_empty() {
            return Err(Error::new(
                Kind::Unauthenticated,
                "the token server answered without a token",
            ));
        }
        Ok(value.clone())
    }

    fn life(&self) -> Duration {
        // Servers count from their own clock's `issued_at`; ours may be wrong,
        // so the life counts from now.
        let life = match self.expires_in {
            0 => DEFAULT_LIFE,
            seconds => Duration::from_secs(seconds.min(24 * 3600)),
        };
        life.checked_sub(MARGIN).unwrap_or(life / 2)
    }
}

/// How to ask a token server.
pub(super) enum TokenRequest {
    /// GET this URL, with user name and password if there are any.
    Get(url::Url, Option<(String, String)>),
    /// POST this form.
    Post(url::Url, String),
}

/// The request for a token: OAuth2's POST for identity tokens, else the GET
/// that every server knows.
pub(super) fn request(
    bearer: &Bearer,
    scope: &Scope,
    credential: &Credential,
) -> Result<TokenRequest> {
    let mut url = url::Url::parse(&bearer.realm).map_err(|error| {
        Error::new(
            Kind::Unauthenticated,
            format!("the registry's token realm {:?} is no URL", bearer.realm),
        )
        .with_source(error)
    })?;
    if let Credential::Identity(secret) = credential {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", secret)
            .append_pair("service", &bearer.service)
            .append_pair("client_id", "davit")
            .append_pair("scope", &scope.parts().join(" "))
            .finish();
        return Ok(TokenRequest::Post(url, form));
    }
    let login = match credential {
        Credential::Password(user, password) => Some((user.clone(), password.clone())),
        Credential::Anonymous | Credential::Identity(_) | Credential::Token(_) => None,
    };
    {
        let mut query = url.query_pairs_mut();
        if !bearer.service.is_empty() {
            query.append_pair("service", &bearer.service);
        }
        for part in scope.parts() {
            query.append_pair("scope", &part);
        }
        if let Some((user, _)) = &login {
            query.append_pair("account", user);
        }
    }
    Ok(TokenRequest::Get(url, login))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str) -> Bearer {
        Bearer {
            realm: realm.into(),
            service: "s".into(),
            scope: String::new(),
            error: String::new(),
        }
    }

    #[test]
    fn scopes_merge_by_resource() {
        let scope = Scope::repository("a/b", &["pull"]).and(Scope::parse(
            "repository:a/b:push,pull registry:catalog:* x",
        ));
        assert_eq!(
            scope.parts(),
            ["registry:catalog:*", "repository:a/b:pull,push"]
        );
        let ported = Scope::parse("repository:host:5000/a:pull");
        assert_eq!(ported.parts(), ["repository:host:5000/a:pull"]);
    }

    #[test]
    fn passwords_go_by_get_and_identity_tokens_by_post() {
        let scope = Scope::repository("a", &["pull"]);
        let login = Credential::Password("u".into(), "p".into());
        let TokenRequest::Get(url, Some(_)) =
            request(&bearer("https://t/x?y=1"), &scope, &login).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            url.as_str(),
            "https://t/x?y=1&service=s&scope=repository%3Aa%3Apull&account=u"
        );
        let identity = Credential::Identity("r&t".into());
        let TokenRequest::Post(_, form) =
            request(&bearer("https://t/x"), &scope, &identity).unwrap()
        else {
            panic!()
        };
        assert!(form.contains("refresh_token=r%26t&"), "{form}");
        assert!(request(&bearer("nonsense"), &scope, &identity).is_err());
    }

    #[tokio::test]
    async fn callers_share_one_fetch() {
        let tokens = Tokens::default();
        let key = TokenKey {
            authority: "a".into(),
            scope: Scope::default(),
            credential: Credential::Anonymous,
        };
        let count = std::sync::atomic::AtomicUsize::new(0);
        let fetch = || async {
            tokio::task::yield_now().await;
            let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(TokenAnswer {
                token: format!("t{n}"),
                access_token: String::new(),
                expires_in: 300,
            })
        };
        let (a, b) = tokio::join!(
            tokens.get(&key, None, fetch()),
            tokens.get(&key, None, fetch())
        );
        assert_eq!((a.unwrap(), b.unwrap()), ("t0".to_owned(), "t0".to_owned()));
        assert_eq!(tokens.get(&key, Some("t0"), fetch()).await.unwrap(), "t1");
        assert_eq!(tokens.cached(&key).await.as_deref(), Some("t1"));
    }
}
