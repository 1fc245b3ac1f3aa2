//! What a registry wants to know before it answers: the `WWW-Authenticate`
//! header of a 401 (RFC 9110 section 11.6.1, and the token scheme of the
//! distribution project).

use http::{HeaderMap, header::WWW_AUTHENTICATE};

/// How to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from `realm`.
    Bearer(Bearer),
}

/// Where bearer tokens come from and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// URL of the token server.
    pub(crate) realm: String,
    /// The service to name there; may be empty.
    pub(crate) service: String,
    /// What this request needs ("repository:a/b:pull"), as the server said it.
    pub(crate) scope: String,
    /// Why a token was refused ("invalid_token", "insufficient_scope").
    pub(crate) error: String,
}

/// The best of the challenges in a response: bearer before basic.
pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Challenge> {
    let mut best = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        // One that can't be read ends the list, as what follows has no certain start.
        let readable = http_auth::ChallengeParser::new(text).map_while(Result::ok);
        for challenge in readable {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                if let Some(bearer) = bearer(&challenge) {
                    return Some(Challenge::Bearer(bearer));
                }
            } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                best = Some(Challenge::Basic);
            }
        }
    }
    best
}

fn bearer(challenge: &http_auth::ChallengeRef<'_>) -> Option<Bearer> {
    let parameter = |name: &str| {
        challenge
            .params
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_unescaped())
            .unwrap_or_default()
    };
    let realm = parameter("realm");
    (!realm.is_empty()).then(|| Bearer {
        realm,
        service: parameter("service"),
        scope: parameter("scope"),
        error: parameter("error"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        from_headers(&headers)
    }

    #[test]
    fn bearer_wins_and_rubbish_is_skipped() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="invalid_token""#;
        let Some(Challenge::Bearer(bearer)) = parsed(&["Basic realm=\"x\"", text]) else {
            panic!()
        };
        assert_eq!(bearer.realm, "https://auth.docker.io/token");
        assert_eq!(bearer.service, "registry.docker.io");
        assert_eq!(bearer.scope, "repository:a/b:pull,push");
        assert_eq!(bearer.error, "invalid_token");
        assert_eq!(parsed(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(parsed(&["Negotiate", "Bearer", "\"\"\",,="]), None);
        assert_eq!(parsed(&[]), None);
    }
}
