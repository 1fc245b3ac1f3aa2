//! Image names: docker shows "busybox:latest" where davit.v1 says
//! "docker.io/library/busybox:latest".

/// The short form of a normalized name, as docker shows it.
pub(crate) fn familiar(name: &str) -> &str {
    let Some(short) = name.strip_prefix("docker.io/") else {
        return name;
    };
    short.strip_prefix("library/").unwrap_or(short)
}

/// Whether a name points by digest ("repo@sha256:…") and not by tag.
pub(crate) fn is_digested(name: &str) -> bool {
    name.contains('@')
}

/// Splits "host:5000/a/b:tag" into repository and tag; the tag may be empty.
pub(crate) fn split_tag(name: &str) -> (&str, &str) {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, ""),
    }
}

/// Puts docker's two query fields (image and tag or digest) together.
pub(crate) fn join(name: &str, tag: &str) -> String {
    if tag.is_empty() {
        name.to_owned()
    } else if tag.starts_with("sha256:") || tag.starts_with("sha512:") {
        format!("{name}@{tag}")
    } else {
        format!("{name}:{tag}")
    }
}

/// The name with ":latest" when it has neither tag nor digest.
pub(crate) fn with_tag(name: &str) -> String {
    if is_digested(name) || !split_tag(name).1.is_empty() {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

/// The repository without its registry when that is docker's ("library/x").
pub(crate) fn path(name: &str) -> &str {
    let (repository, _) = split_tag(name);
    repository.strip_prefix("docker.io/").unwrap_or(repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_short() {
        assert_eq!(
            familiar("docker.io/library/busybox:latest"),
            "busybox:latest"
        );
        assert_eq!(familiar("docker.io/a/b:1"), "a/b:1");
        assert_eq!(familiar("ghcr.io/a/b@sha256:0"), "ghcr.io/a/b@sha256:0");
        assert_eq!(
            familiar("localhost:5000/library/x"),
            "localhost:5000/library/x"
        );
    }

    #[test]
    fn names_are_split_and_joined() {
        assert_eq!(split_tag("localhost:5000/a"), ("localhost:5000/a", ""));
        assert_eq!(split_tag("localhost:5000/a:b"), ("localhost:5000/a", "b"));
        assert_eq!(split_tag("a@sha256:0"), ("a", ""));
        assert_eq!(join("a", "1"), "a:1");
        assert_eq!(join("a", "sha256:0"), "a@sha256:0");
        assert_eq!(join("a:2", ""), "a:2");
        assert_eq!(with_tag("localhost:5000/a"), "localhost:5000/a:latest");
        assert_eq!(with_tag("a@sha256:0"), "a@sha256:0");
        assert_eq!(path("docker.io/library/busybox:1"), "library/busybox");
    }
}
