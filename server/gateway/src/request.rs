//! What a handler gets: the request, taken apart once.

use http::{HeaderMap, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use crate::{
    failure::{Failure, Result},
    gateway::Gateway,
    router::Params,
    version::ApiVersion,
};

/// One request on its way to a handler.
pub(crate) struct Call {
    pub(crate) gateway: Gateway,
    pub(crate) version: ApiVersion,
    pub(crate) params: Params,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
    /// Set when the client asks for an upgrade.
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl Call {
    /// The pattern's `{name}`.
    pub(crate) fn name(&self) -> String {
        self.params.get("name").to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// Length that the client announced; `None` for a chunked body.
    pub(crate) fn content_length(&self) -> Option<u64> {
        if let Ok(length) = self.header(header::CONTENT_LENGTH.as_str()).parse() {
            return Some(length);
        }
        self.headers
            .get(header::TRANSFER_ENCODING)
            .is_none()
            .then_some(0)
    }
}

/// The query string, with dockerd's ways of reading it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        Self(
            url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The first value; empty when there is none.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map_or("", |(_, value)| value)
    }

    /// All values of a key that may be repeated.
    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
            .collect()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// dockerd's idea of a boolean: everything but a few words is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let value = self.get(key).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// The same, with what holds when the key is missing.
    pub(crate) fn flag_or(&self, key: &str, default: bool) -> bool {
        if self.has(key) {
            self.flag(key)
        } else {
            default
        }
    }

    /// A number, or `None` when the key is missing or empty.
    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        let value = self.get(key);
        if value.is_empty() {
            return Ok(None);
        }
        value.trim().parse().map(Some).map_err(|_| {
            Failure::bad_request(format!("strconv.Atoi: parsing {value:?}: invalid syntax"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_arrive_in_many_forms() {
        let query = Query::parse("a=1&b=true&c=True&d=0&e=false&f=&g=no&h=None&i=t");
        for key in ["a", "b", "c", "i"] {
            assert!(query.flag(key), "{key}");
        }
        for key in ["d", "e", "f", "g", "h", "missing"] {
            assert!(!query.flag(key), "{key}");
        }
        assert!(query.flag_or("missing", true));
        assert!(!query.flag_or("d", true));
    }

    #[test]
    fn numbers_and_repeated_keys() {
        let query = Query::parse("t=10&bad=x&names=a&names=b%2Fc&neg=-1");
        assert_eq!(query.number::<i32>("t").unwrap(), Some(10));
        assert_eq!(query.number::<i32>("neg").unwrap(), Some(-1));
        assert_eq!(query.number::<i32>("none").unwrap(), None);
        assert_eq!(
            query.number::<i32>("bad").unwrap_err().message(),
            "strconv.Atoi: parsing \"x\": invalid syntax"
        );
        assert_eq!(query.all("names"), ["a", "b/c"]);
    }
}
