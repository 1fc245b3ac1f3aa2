//! References: the names of images as people type them, in their full and in
//! their familiar form.
//!
//! The grammar and the normalisation are those of distribution/reference,
//! with the same wording in errors, so that docker's users meet nothing new:
//!
//! ```text
//! reference := [domain "/"] path [":" tag] ["@" digest]
//! busybox                → docker.io/library/busybox
//! a/b:1                  → docker.io/a/b:1
//! localhost/a            → localhost/a
//! registry:5000/a@sha256:… stays as it is
//! ```

use std::{fmt, str::FromStr};

use davit_store::{Error, Result};

use crate::Digest;

/// The registry that names without a domain belong to.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// What that registry was called once.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// The folder of names without any slash.
const OFFICIAL_PREFIX: &str = "library/";
/// The tag that is meant when none is given.
pub const DEFAULT_TAG: &str = "latest";
/// Longest path, in bytes.
const MAX_PATH: usize = 255;
/// Longest reference that is looked at, in bytes: domain, path, tag, digest.
const MAX_REFERENCE: usize = 1024;

/// A checked, normalised name of an image or of a repository.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference as a docker user types it. No tag is added.
    ///
    /// # Errors
    /// `InvalidArgument` in docker's words: "invalid reference format",
    /// "repository name (…) must be lowercase".
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid(
                "repository name must have at least one component",
            ));
        }
        if text.len() > MAX_REFERENCE {
            return Err(invalid_format());
        }
        if is_identifier(text) {
            return Err(Error::invalid(format!(
                "invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )));
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or_default();
        let remote = remote.split('@').next().unwrap_or_default();
        if remote.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(Error::invalid(format!(
                "invalid reference format: repository name ({remote}) must be lowercase"
            )));
        }
        let (named, digest) = match remainder.split_once('@') {
            None => (remainder.as_str(), None),
            Some((named, digest)) => (named, Some(parse_digest(digest)?)),
        };
        let (path, tag) = match named.split_once(':') {
            None => (named, None),
            Some((path, tag)) => (path, Some(tag)),
        };
        if !is_domain(&domain) || !is_path(path) || !tag.is_none_or(is_tag) {
            return Err(invalid_format());
        }
        if path.len() > MAX_PATH {
            return Err(Error::invalid(format!(
                "repository name must not be more than {MAX_PATH} characters"
            )));
        }
        Ok(Self {
            domain,
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// The registry, "docker.io" or "host:5000".
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry, "library/busybox".
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository, "docker.io/library/busybox".
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as people write it, "busybox".
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        let short = self.path.strip_prefix(OFFICIAL_PREFIX);
        match short {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as people write it, "busybox:latest".
    pub fn familiar(&self) -> String {
        self.with_suffixes(self.familiar_name())
    }

    /// What the registry is asked for: the digest if there is one, else the
    /// tag, else "latest".
    pub fn target(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }

    /// The same with the tag "latest" when it has neither tag nor digest.
    #[must_use]
    pub fn or_latest(self) -> Self {
        if self.tag.is_some() || self.digest.is_some() {
            return self;
        }
        Self {
            tag: Some(DEFAULT_TAG.to_owned()),
            ..self
        }
    }

    /// The name under which an image is recorded: with a digest the tag does
    /// not count (it may move; the digest can't).
    #[must_use]
    pub fn into_record_name(self) -> Self {
        let this = self.or_latest();
        match this.digest {
            Some(_) => Self { tag: None, ..this },
            None => this,
        }
    }

    /// The repository alone.
    #[must_use]
    pub fn repository(&self) -> Self {
        Self {
            tag: None,
            digest: None,
            ..self.clone()
        }
    }

    /// The same repository with this tag instead of tag and digest.
    ///
    /// # Errors
    /// `InvalidArgument` when `tag` is none.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(Error::invalid("invalid tag format"));
        }
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// The same repository with this digest instead of tag and digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    fn with_suffixes(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest.as_str());
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffixes(self.name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

fn invalid_format() -> Error {
    Error::invalid("invalid reference format")
}

/// Whether `text` looks like an image id without its algorithm.
fn is_identifier(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Tells the domain from the path. The first part is a domain only when it
/// looks like one: docker hub's names have slashes too.
fn split_domain(text: &str) -> (String, String) {
    let (domain, path) = match text.split_once('/') {
        None => (DEFAULT_DOMAIN, text),
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest)) => {
            let is_domain = first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase());
            if is_domain {
                (first, rest)
            } else {
                (DEFAULT_DOMAIN, text)
            }
        }
    };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL_PREFIX}{path}"));
    }
    (domain.to_owned(), path.to_owned())
}

fn parse_digest(text: &str) -> Result<Digest> {
    let (algorithm, hex) = text.split_once(':').ok_or_else(invalid_format)?;
    let known = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ if is_algorithm(algorithm) => {
            return Err(Error::invalid("unsupported digest algorithm"));
        }
        _ => return Err(invalid_format()),
    };
    if hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(invalid_format());
    }
    if hex.len() != known {
        return Err(Error::invalid("invalid checksum digest length"));
    }
    Digest::parse(text).map_err(|_| Error::invalid("invalid checksum digest format"))
}

fn is_algorithm(text: &str) -> bool {
    text.split(['-', '_', '+', '.']).all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 128
        && word(bytes[0])
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

fn is_domain(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((host, port)) => (host, Some(port)),
    };
    port.is_none_or(is_port) && host.split('.').all(is_domain_component)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_domain_component(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// `[a-z0-9]+(([._]|__|-*)[a-z0-9]+)*`: single dots and underscores, double
/// underscores and any number of dashes, but only between letters or digits.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes
        .split(alphanumeric)
        .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|&b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (typed, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            ("a/b", "docker.io/a/b", "a/b"),
            ("library/a", "docker.io/library/a", "a"),
            ("docker.io/a", "docker.io/library/a", "a"),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b",
                "library/a/b",
            ),
            ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
            ("localhost/a", "localhost/a", "localhost/a"),
            (
                "localhost:5000/a:b",
                "localhost:5000/a:b",
                "localhost:5000/a:b",
            ),
            (
                "test.com:tag",
                "docker.io/library/test.com:tag",
                "test.com:tag",
            ),
            (
                "test.com:5000",
                "docker.io/library/test.com:5000",
                "test.com:5000",
            ),
            (
                "ghcr.io/a/b-c__d.e",
                "ghcr.io/a/b-c__d.e",
                "ghcr.io/a/b-c__d.e",
            ),
            ("Foo/bar", "Foo/bar", "Foo/bar"),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("a---b/c", "docker.io/a---b/c", "a---b/c"),
            (
                "lowercase:Upper",
                "docker.io/library/lowercase:Upper",
                "lowercase:Upper",
            ),
        ] {
            let reference = Reference::parse(typed).unwrap();
            assert_eq!(reference.to_string(), full, "{typed}");
            assert_eq!(reference.familiar(), familiar, "{typed}");
            assert_eq!(Reference::parse(full).unwrap(), reference, "{typed}");
            assert_eq!(Reference::parse(familiar).unwrap(), reference, "{typed}");
        }
    }

    #[test]
    fn tag_and_digest_live_side_by_side() {
        let reference = Reference::parse(&format!("localhost:5000/a:b@{DIGEST}")).unwrap();
        assert_eq!(reference.tag(), Some("b"));
        assert_eq!(reference.digest().unwrap().as_str(), DIGEST);
        assert_eq!(reference.target(), DIGEST);
        assert_eq!(
            reference.into_record_name().to_string(),
            format!("localhost:5000/a@{DIGEST}")
        );
        assert_eq!(
            Reference::parse("a").unwrap().or_latest().to_string(),
            "docker.io/library/a:latest"
        );
    }

    #[test]
    fn bad_names_are_refused_in_dockers_words() {
        let hex = &DIGEST[7..];
        for (typed, expected) in [
            ("", "repository name must have at least one component"),
            (
                "Busybox",
                "invalid reference format: repository name (library/Busybox) must be lowercase",
            ),
            (
                "a/B:c",
                "invalid reference format: repository name (a/B) must be lowercase",
            ),
            (":tag", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("a/../b", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("/a", "invalid reference format"),
            ("a/", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a_.b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("a:-b", "invalid reference format"),
            ("a@", "invalid reference format"),
            ("a@sha256:00", "invalid reference format"),
            ("http://a/b", "invalid reference format"),
            ("-x.com/a", "invalid reference format"),
            ("x.com:port/a", "invalid reference format"),
            ("a\n", "invalid reference format"),
            ("é/a", "invalid reference format"),
            (&format!("a@md5x:{hex}"), "unsupported digest algorithm"),
            (&format!("a@{DIGEST}00"), "invalid checksum digest length"),
            (
                &format!("a@{}", DIGEST.replace("e3b0", "E3B0")),
                "invalid checksum digest format",
            ),
            (
                &"a".repeat(256),
                "repository name must not be more than 255 characters",
            ),
        ] {
            let error = Reference::parse(typed).unwrap_err();
            assert_eq!(error.to_string(), expected, "{typed:?}");
        }
        assert!(
            Reference::parse(hex)
                .unwrap_err()
                .to_string()
                .contains("64-byte hexadecimal")
        );
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
        assert!(Reference::parse(&"x/".repeat(10_000)).is_err());
    }
}
