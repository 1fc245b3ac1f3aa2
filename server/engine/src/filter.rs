//! Filters of List and Prune, in docker's words.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::{
    Error, Result,
    index::{Handle, Index},
    model::{ContainerStatus, Filter},
    spec::NetworkMode,
    view::View,
};

/// Filters, checked. A container passes when each key that is given has a
/// match; of label filters all must match, as with docker.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    by_key: BTreeMap<String, Vec<String>>,
    /// Ids of images that "ancestor" filters stand for.
    pub(crate) ancestors: Vec<String>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

const LIST_KEYS: [&str; 15] = [
    "id",
    "name",
    "label",
    "status",
    "ancestor",
    "before",
    "since",
    "exited",
    "health",
    "network",
    "volume",
    "is-task",
    "publish",
    "expose",
    "isolation",
];
const PRUNE_KEYS: [&str; 3] = ["label", "label!", "until"];

impl Filters {
    /// Reads the filters of List.
    pub(crate) fn list(filters: &[Filter], index: &Index, ns: &str) -> Result<Self> {
        let mut read = Self::read(filters, &LIST_KEYS)?;
        let created = |names: Option<&Vec<String>>| -> Result<Option<Timestamp>> {
            let Some(name) = names.and_then(|names| names.last()) else {
                return Ok(None);
            };
            Ok(Some(index.find(ns, name)?.now().record.created_at))
        };
        read.before = created(read.by_key.get("before"))?;
        read.since = created(read.by_key.get("since"))?;
        for status in read.values("status") {
            parse_status(status)?;
        }
        for health in read.values("health") {
            if !matches!(
                health.as_str(),
                "starting" | "healthy" | "unhealthy" | "none"
            ) {
                return Err(Error::invalid(format!("invalid filter 'health={health}'")));
            }
        }
        for code in read.values("exited") {
            code.parse::<i32>()
                .map_err(|_| Error::invalid(format!("invalid filter 'exited={code}'")))?;
        }
        Ok(read)
    }

    /// Reads the filters of Prune.
    pub(crate) fn prune(filters: &[Filter]) -> Result<Self> {
        let mut read = Self::read(filters, &PRUNE_KEYS)?;
        if let Some(until) = read.by_key.get("until").and_then(|values| values.last()) {
            read.until = Some(parse_until(until)?);
        }
        Ok(read)
    }

    fn read(filters: &[Filter], keys: &[&str]) -> Result<Self> {
        let mut by_key = BTreeMap::<String, Vec<String>>::new();
        for filter in filters {
            if !keys.contains(&filter.key.as_str()) {
                return Err(Error::invalid(format!(
                    "invalid filter '{}'; known are {}",
                    filter.key,
                    keys.join(", ")
                )));
            }
            by_key
                .entry(filter.key.clone())
                .or_default()
                .push(filter.value.clone());
        }
        Ok(Self {
            by_key,
            ..Default::default()
        })
    }

    fn values(&self, key: &str) -> &[String] {
        self.by_key.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a key is given.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// The values of "ancestor".
    pub(crate) fn ancestor_names(&self) -> &[String] {
        self.values("ancestor")
    }

    /// Whether a container passes.
    pub(crate) fn pass(&self, handle: &Handle, view: &View) -> bool {
        let any = |key: &str, test: &dyn Fn(&str) -> bool| {
            let values = self.values(key);
            values.is_empty() || values.iter().any(|value| test(value))
        };
        let created = view.record.created_at;
        let facts = view.facts();
        let labels = &view.record.labels;
        any("id", &|id| handle.id.starts_with(id))
            && any("name", &|name| name_matches(name, view.name()))
            && self
                .values("label")
                .iter()
                .all(|label| label_matches(labels, label))
            && !self
                .values("label!")
                .iter()
                .any(|label| label_matches(labels, label))
            && any("status", &|status| status == view.status.as_str())
            && any("exited", &|code| {
                view.status == ContainerStatus::Exited && code.parse() == Ok(facts.exit_code)
            })
            && any("health", &|health| {
                view.health
                    .as_ref()
                    .map_or("none", |found| found.status.as_str())
                    == health
            })
            && any("network", &|network| network_matches(view, network))
            && any("volume", &|volume| volume_matches(view, volume))
            && any("is-task", &|value| matches!(value, "false" | "0" | "False"))
            && any("publish", &|port| port_matches(view, port, true))
            && any("expose", &|port| port_matches(view, port, false))
            && self.ancestor_matches(view)
            && self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
            && self.until.is_none_or(|until| created < until)
    }

    fn ancestor_matches(&self, view: &View) -> bool {
        let Some(details) = view.details() else {
            return false;
        };
        !self.has("ancestor")
            || self.ancestors.contains(&details.image_id)
            || self.ancestor_names().contains(&view.record.image)
    }
}

/// A status by its name.
fn parse_status(text: &str) -> Result<ContainerStatus> {
    use ContainerStatus as S;
    [
        S::Created,
        S::Running,
        S::Paused,
        S::Restarting,
        S::Removing,
        S::Exited,
        S::Dead,
    ]
    .into_iter()
    .find(|status| status.as_str() == text)
    .ok_or_else(|| Error::invalid(format!("invalid filter 'status={text}'")))
}

/// docker takes a regular expression; what people write are names, parts of
/// names, and anchors.
fn name_matches(pattern: &str, name: &str) -> bool {
    let (start, rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (end, rest) = match rest.strip_suffix('$') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let matches = |text: &str, name: &str| match (start, end) {
        (true, true) => name == text,
        (true, false) => name.starts_with(text),
        (false, true) => name.ends_with(text),
        (false, false) => name.contains(text),
    };
    matches(rest, name) || matches(rest, &format!("/{name}"))
}

pub(crate) fn label_matches(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

fn network_matches(view: &View, wanted: &str) -> bool {
    let Some(details) = view.details() else {
        return false;
    };
    match NetworkMode::parse(&details.options.network_mode) {
        Ok(NetworkMode::Host) => wanted == "host",
        Ok(NetworkMode::None) => wanted == "none",
        Ok(NetworkMode::Named(name)) => {
            wanted == name
                || (name.is_empty() && wanted == "bridge")
                || details.options.networks.contains_key(wanted)
        }
        Ok(NetworkMode::Container(_)) | Err(_) => false,
    }
}

fn volume_matches(view: &View, wanted: &str) -> bool {
    let Some(details) = view.details() else {
        return false;
    };
    let options = &details.options;
    options
        .mounts
        .iter()
        .any(|mount| mount.source == wanted || mount.target == wanted)
        || options.volumes.iter().any(|path| path == wanted)
        || options
            .binds
            .iter()
            .any(|bind| bind.split(':').take(2).any(|part| part == wanted))
        || details
            .mounts
            .iter()
            .any(|mount| mount.volume == wanted || mount.target == wanted)
}

/// "80", "80/tcp", "8000-8080/udp".
fn port_matches(view: &View, wanted: &str, published: bool) -> bool {
    let Some(details) = view.details() else {
        return false;
    };
    let (range, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
        return false;
    };
    let options = &details.options;
    let bound = options.ports.iter().any(|port| {
        (first..=last).contains(&port.container_port)
            && (port.protocol.is_empty() || port.protocol == protocol)
    });
    if published || bound {
        return bound;
    }
    details
        .config
        .exposed_ports
        .iter()
        .chain(&options.exposed_ports)
        .any(|exposed| {
            let (port, of) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
            of == protocol
                && port
                    .parse()
                    .is_ok_and(|port: u32| (first..=last).contains(&port))
        })
}

/// "10m", "1h30m", a Unix time, or RFC 3339.
pub(crate) fn parse_until(text: &str) -> Result<Timestamp> {
    let wrong = || {
        Error::invalid(format!(
            "invalid filter 'until={text}': use 10m, 1h30m, a Unix time or RFC 3339"
        ))
    };
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Timestamp::from_second(seconds).map_err(|_| wrong());
    }
    let ago: SignedDuration = text.parse().map_err(|_| wrong())?;
    Timestamp::now().checked_sub(ago).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (pattern, name, matches) in [
            ("web", "my-web-1", true),
            ("^web", "my-web-1", false),
            ("^/web$", "web", true),
            ("^web$", "web", true),
            ("/web", "web", true),
            ("^web$", "web2", false),
        ] {
            assert_eq!(name_matches(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let filter = Filter {
            key: "colour".to_owned(),
            value: "red".to_owned(),
        };
        let error =
            Filters::list(std::slice::from_ref(&filter), &Index::default(), "default").unwrap_err();
        assert!(error.to_string().contains("colour"));
        assert!(Filters::prune(&[filter]).is_err());
    }

    #[test]
    fn times() {
        assert!(parse_until("1h30m").unwrap() < Timestamp::now());
        assert_eq!(parse_until("5").unwrap().as_second(), 5);
        assert_eq!(
            parse_until("2026-01-01T00:00:00Z").unwrap().as_second(),
            1_767_225_600
        );
        assert!(parse_until("soon").is_err());
    }
}
