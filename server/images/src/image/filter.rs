//! Filters of lists and prunes, by docker's rules.

use davit_store::{Error, Result};
use jiff::{SignedDuration, Timestamp};

use super::{Filter, Image};
use crate::Reference;

/// Filters, understood.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    references: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    not_labels: Vec<(String, Option<String>)>,
    ids: Vec<String>,
    dangling: Option<bool>,
    /// Made before this time.
    before: Option<Timestamp>,
    /// Made after this time.
    since: Option<Timestamp>,
    /// Names or ids of images whose times are meant.
    pub(crate) before_image: Option<String>,
    pub(crate) since_image: Option<String>,
}

impl Filters {
    /// Reads filters whose keys are among `known`. `InvalidArgument` in
    /// docker's words for others.
    pub(crate) fn parse(filters: &[Filter], known: &[&str]) -> Result<Self> {
        let mut all = Self::default();
        for filter in filters {
            let (key, value) = (filter.key.as_str(), filter.value.clone());
            if !known.contains(&key) {
                return Err(Error::invalid(format!("invalid filter '{key}'")));
            }
            match key {
                "reference" => all.references.push(value),
                "label" => all.labels.push(split_label(&value)),
                "label!" => all.not_labels.push(split_label(&value)),
                "id" => all.ids.push(value),
                "before" => all.before_image = Some(value),
                "since" => all.since_image = Some(value),
                "until" => all.before = Some(time(&value)?),
                "dangling" => all.dangling = Some(boolean(&value)?),
                _ => return Err(Error::invalid(format!("invalid filter '{key}'"))),
            }
        }
        Ok(all)
    }

    /// Only images older than this one.
    pub(crate) fn before(&mut self, other: &Image) {
        let at = other.created_at.unwrap_or_default();
        self.before = Some(self.before.map_or(at, |before| before.min(at)));
    }

    /// Only images younger than this one.
    pub(crate) fn since(&mut self, other: &Image) {
        self.since = Some(other.created_at.unwrap_or_default());
    }

    /// Whether dangling images are asked for, or those that are not.
    pub(crate) fn dangling(&self) -> Option<bool> {
        self.dangling
    }

    /// Whether an image passes. Names that no `reference` filter matches are
    /// taken from it, as docker does.
    pub(crate) fn pass(&self, image: &mut Image) -> bool {
        self.dangling
            .is_none_or(|dangling| dangling == image.names.is_empty())
            && self.pass_but_dangling(image)
    }

    /// The same for a prune, where `dangling` says how far it goes.
    pub(crate) fn pass_but_dangling(&self, image: &mut Image) -> bool {
        let created = image.created_at.unwrap_or_default();
        let fits = self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
            && self.labels.iter().all(|label| has_label(image, label))
            && !self.not_labels.iter().any(|label| has_label(image, label))
            && (self.ids.is_empty() || self.ids.iter().any(|id| has_id(image, id)));
        if !fits || self.references.is_empty() {
            return fits;
        }
        let matching = |name: &str| {
            self.references
                .iter()
                .any(|pattern| matches_reference(pattern, name))
        };
        image.names.retain(|name| matching(name));
        image.repo_digests.retain(|name| matching(name));
        !image.names.is_empty() || !image.repo_digests.is_empty()
    }
}

fn split_label(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

fn has_label(image: &Image, (key, value): &(String, Option<String>)) -> bool {
    let have = image.labels.get(key);
    have.is_some_and(|have| value.as_ref().is_none_or(|value| value == have))
}

fn has_id(image: &Image, id: &str) -> bool {
    let hex = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
    hex(&image.id).starts_with(&hex(id))
}

fn boolean(text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" => Ok(true),
        "0" | "false" | "f" => Ok(false),
        _ => Err(Error::invalid(format!("invalid filter 'dangling={text}'"))),
    }
}

/// A time in any of docker's forms: seconds since 1970, RFC 3339, a date, or
/// a duration before now.
fn time(text: &str) -> Result<Timestamp> {
    let refused = || {
        Error::invalid(format!(
            "invalid filter 'until={text}': expected a time, a date or a duration like \"24h\""
        ))
    };
    if let Ok(duration) = humantime::parse_duration(text) {
        let duration = SignedDuration::try_from(duration).map_err(|_| refused())?;
        return Timestamp::now()
            .checked_sub(duration)
            .map_err(|_| refused());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(at) = text.parse::<jiff::civil::DateTime>() {
        return jiff::tz::TimeZone::system()
            .to_timestamp(at)
            .map_err(|_| refused());
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let seconds = seconds.parse().map_err(|_| refused())?;
    let nanos = format!("{fraction:0<9}")
        .get(..9)
        .and_then(|digits| digits.parse().ok());
    Timestamp::new(seconds, nanos.ok_or_else(refused)?).map_err(|_| refused())
}

/// docker's `reference` filter: a shell pattern over the whole familiar name,
/// or over it without tag and digest. `*` does not cross a slash.
fn matches_reference(pattern: &str, name: &str) -> bool {
    let Ok(reference) = Reference::parse(name) else {
        return false;
    };
    glob(pattern.as_bytes(), reference.familiar().as_bytes())
        || glob(pattern.as_bytes(), reference.familiar_name().as_bytes())
        || glob(pattern.as_bytes(), name.as_bytes())
}

/// Go's `path.Match`: `*` and `?` without slashes, `[a-z]` and `[^a-z]`,
/// backslash escapes. Patterns that are malformed match nothing.
pub(crate) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on when what follows the last star does not fit.
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(_)) => one(&pattern[p..], text[t]),
            _ => None,
        };
        match step {
            Some(length) => {
                p += length;
                t += 1;
            }
            None => {
                let Some((after, from)) = star else {
                    return false;
                };
                if text.get(from).is_none_or(|&b| b == b'/') {
                    return false;
                }
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
        }
    }
}

/// Whether the first element of `pattern` matches `byte`, and its length.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern[0] {
        b'?' => (byte != b'/').then_some(1),
        b'\\' => (*pattern.get(1)? == byte).then_some(2),
        b'[' => class(pattern, byte),
        literal => (literal == byte).then_some(1),
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = pattern.get(1) == Some(&b'^');
    let mut at = if negated { 2 } else { 1 };
    let mut matched = false;
    let mut any = false;
    let character = |at: &mut usize| -> Option<u8> {
        if pattern.get(*at) == Some(&b'\\') {
            *at += 1;
        }
        let byte = *pattern.get(*at)?;
        *at += 1;
        Some(byte)
    };
    loop {
        if pattern.get(at) == Some(&b']') && any {
            return (matched != negated && byte != b'/').then_some(at + 1);
        }
        let low = character(&mut at)?;
        let high = if pattern.get(at) == Some(&b'-') {
            at += 1;
            character(&mut at)?
        } else {
            low
        };
        matched |= (low..=high).contains(&byte);
        any = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_gos() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a/*/c", "a/b/c", true),
            ("b?sybox:*", "busybox:1.36", true),
            ("b[a-z]s*", "busybox", true),
            ("b[^u]s*", "busybox", false),
            ("*:1.*", "x:2.1.3", false),
            ("*box*st", "busybox:latest", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("[", "[", false),
            ("", "", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn references_match_familiar_names() {
        let full = "docker.io/library/busybox:1.36";
        for pattern in [
            "busybox",
            "busybox:1.*",
            "busy*",
            "docker.io/library/busybox:1.36",
        ] {
            assert!(matches_reference(pattern, full), "{pattern}");
        }
        for pattern in ["box", "busybox:2", "*/*"] {
            assert!(!matches_reference(pattern, full), "{pattern}");
        }
    }

    #[test]
    fn times_have_many_forms() {
        for text in [
            "1700000000",
            "1700000000.5",
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20",
            "24h",
            "10m",
        ] {
            assert!(time(text).is_ok(), "{text}");
        }
        assert_eq!(
            time("1700000000.5").unwrap().as_millisecond(),
            1_700_000_000_500
        );
        for text in ["", "yesterday", "-", "1.x"] {
            assert!(time(text).is_err(), "{text}");
        }
        let filter = |key: &str| Filter {
            key: key.into(),
            value: "x".into(),
        };
        assert!(Filters::parse(&[filter("nope")], &["label"]).is_err());
        assert!(Filters::parse(&[filter("dangling")], &["dangling"]).is_err());
    }
}
