//! Finds the handler of a path. Names in the middle of a path are greedy, as
//! in dockerd: image names have slashes ("/images/a/b/json").

use std::{future::Future, pin::Pin};

use http::Method;

use crate::{failure::Result, reply::Reply, request::Call};

pub(crate) type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

/// One line of the route table.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// "/images/{name*}/json": `{x}` is one segment, `{x*}` one or more.
    pub(crate) pattern: &'static str,
    pub(crate) handler: Handler,
}

/// What the path said for the pattern's names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Params(Vec<(&'static str, String)>);

impl Params {
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    }
}

/// The first route that fits; `path` is without version and percent-decoded.
pub(crate) fn find<'r>(
    routes: &'r [Route],
    method: &Method,
    path: &str,
) -> Option<(&'r Route, Params)> {
    let parts: Vec<&str> = path.split('/').collect();
    routes
        .iter()
        .filter(|route| route.method == *method)
        .find_map(|route| Some((route, fit(route.pattern, &parts)?)))
}

fn fit(pattern: &'static str, parts: &[&str]) -> Option<Params> {
    let pattern: Vec<&'static str> = pattern.split('/').collect();
    let mut params = Params::default();
    let Some(greedy) = pattern.iter().position(|part| part.ends_with("*}")) else {
        return same(&pattern, parts, &mut params).then_some(params);
    };
    let (before, after) = (&pattern[..greedy], &pattern[greedy + 1..]);
    if parts.len() < pattern.len() {
        return None;
    }
    let end = parts.len() - after.len();
    let name = parts[greedy..end].join("/");
    let fits = !name.is_empty()
        && same(before, &parts[..greedy], &mut params)
        && same(after, &parts[end..], &mut params);
    let key = pattern[greedy]
        .trim_start_matches('{')
        .trim_end_matches("*}");
    params.0.push((key, name));
    fits.then_some(params)
}

fn same(pattern: &[&'static str], parts: &[&str], params: &mut Params) -> bool {
    pattern.len() == parts.len()
        && pattern.iter().zip(parts).all(|(pattern, part)| {
            match pattern
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'))
            {
                Some(key) => {
                    params.0.push((key, (*part).to_owned()));
                    !part.is_empty()
                }
                None => pattern == part,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &'static str, path: &str) -> Option<String> {
        let parts: Vec<&str> = path.split('/').collect();
        fit(pattern, &parts).map(|params| params.get("name").to_owned())
    }

    #[test]
    fn names_in_the_middle_are_greedy() {
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(fits("/images/{name*}/json", "/images/a/json"), name("a"));
        assert_eq!(
            fits("/images/{name*}/push", "/images/docker.io/library/a/push"),
            name("docker.io/library/a")
        );
        assert_eq!(
            fits(
                "/images/{name*}/json",
                "/images/localhost:5000/a@sha256:0/json"
            ),
            name("localhost:5000/a@sha256:0")
        );
        assert_eq!(fits("/images/{name*}", "/images/a/b:c"), name("a/b:c"));
        assert_eq!(fits("/images/{name*}/json", "/images/json"), None);
        assert_eq!(fits("/images/{name*}/json", "/images//json"), None);
        assert_eq!(fits("/images/{name*}/json", "/images/a/history"), None);
    }

    #[test]
    fn single_names_are_one_segment() {
        assert_eq!(
            fits("/exec/{name}/start", "/exec/x/start"),
            Some("x".into())
        );
        assert_eq!(fits("/exec/{name}/start", "/exec/x/y/start"), None);
        assert_eq!(fits("/info", "/info"), Some(String::new()));
        assert_eq!(fits("/info", "/info/"), None);
    }
}
