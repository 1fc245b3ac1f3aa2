//! The service `Events`.

use std::collections::BTreeMap;

use davit_proto::v1::{self, events_server::Events, subscribe_response::Message};
use davit_store::{Event, From, Item};
use futures::StreamExt;
use tonic::{Request, Response, Status};

use super::{
    Native,
    convert::{from_time, to_time},
    images::Reply,
    namespace,
    status::status,
};

#[tonic::async_trait]
impl Events for Native {
    type SubscribeStream = Reply<v1::SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let namespace = (!request.all_namespaces).then_some(ns);
        let filters = Filters::parse(request.filters)?;
        let from = if let Some(since) = request.since {
            From::Since(from_time(since)?)
        } else if request.from_start {
            From::Start
        } else if request.after > 0 {
            From::After(request.after)
        } else {
            From::New
        };
        let until = request.until.map(from_time).transpose()?;
        let log = self.store.events();
        let mut events = log.subscribe(from).map_err(status)?;
        let stream = async_stream::stream! {
            loop {
                let item = match until {
                    None => events.next().await,
                    // What was logged before the bound is still given when
                    // the bound has passed; then the stream ends.
                    Some(until) => match next_until(&mut events, &log, until).await {
                        Some(item) => item,
                        None => return,
                    },
                };
                match item {
                    Some(Item::Event(event)) => {
                        if until.is_some_and(|until| event.time > until) {
                            return;
                        }
                        let ours = namespace.as_ref().is_none_or(|ns| *ns == event.namespace || event.namespace.is_empty());
                        if ours && filters.pass(&event) {
                            yield Ok(v1::SubscribeResponse { message: Some(Message::Event(to_event(&event))) });
                        }
                    }
                    Some(Item::Lagged { first, last }) => {
                        yield Ok(v1::SubscribeResponse { message: Some(Message::Lagged(v1::Lagged { first, last })) });
                    }
                    // The daemon stops: the caller is to subscribe again, after
                    // the number that it saw last.
                    None => {
                        yield Err(Status::unavailable("the daemon is stopping; subscribe again after the last number"));
                        return;
                    }
                }
            }
        };
        Ok(Response::new(stream.boxed()))
    }
}

/// The next event, or none when there is none until `until`. When that has
/// passed, what the log holds is all there is.
async fn next_until(
    events: &mut davit_store::EventStream,
    log: &davit_store::EventLog,
    until: jiff::Timestamp,
) -> Option<Option<Item>> {
    let left = until.duration_since(jiff::Timestamp::now());
    let left = std::time::Duration::try_from(left).unwrap_or_default();
    match tokio::time::timeout(left, events.next()).await {
        Ok(item) => Some(item),
        // Events are given once they are written, a moment after their commit.
        Err(_) if events.position() < log.last_number() => Some(events.next().await),
        Err(_) => None,
    }
}

fn to_event(event: &Event) -> v1::Event {
    v1::Event {
        number: event.number,
        time: Some(to_time(event.time)),
        namespace: event.namespace.clone(),
        r#type: event.kind.clone(),
        action: event.action.clone(),
        id: event.id.clone(),
        attributes: event.attributes.clone().into_iter().collect(),
    }
}

/// docker's event filters: any value of a key, all keys.
#[derive(Debug)]
struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    const KEYS: &'static [&'static str] = &[
        "type",
        "action",
        "event",
        "container",
        "image",
        "label",
        "volume",
        "network",
        "daemon",
        "plugin",
        "scope",
        "node",
        "service",
        "secret",
        "config",
    ];

    fn parse(filters: Vec<v1::EventFilter>) -> Result<Self, Status> {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for filter in filters {
            if !Self::KEYS.contains(&filter.key.as_str()) {
                return Err(Status::invalid_argument(format!(
                    "invalid filter '{}'",
                    filter.key
                )));
            }
            let key = if filter.key == "event" {
                "action".into()
            } else {
                filter.key
            };
            map.entry(key).or_default().push(filter.value);
        }
        Ok(Self(map))
    }

    fn pass(&self, event: &Event) -> bool {
        self.0
            .iter()
            .all(|(key, values)| values.iter().any(|value| passes(key, value, event)))
    }
}

fn passes(key: &str, value: &str, event: &Event) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    match key {
        "type" => event.kind == value,
        // "health_status" stands for "health_status: healthy" too, as in docker.
        "action" => {
            event.action == value
                || event
                    .action
                    .split_once(':')
                    .is_some_and(|(head, _)| head == value)
        }
        "label" => match value.split_once('=') {
            Some((name, wanted)) => attribute(name) == Some(wanted),
            None => attribute(value).is_some(),
        },
        "image" => {
            let familiar = |name: &str| name == value || name.split(':').next() == Some(value);
            (event.kind == "image"
                && (familiar(&event.id) || attribute("name").is_some_and(familiar)))
                || (event.kind == "container" && attribute("image").is_some_and(familiar))
        }
        "scope" => value == "local",
        kind => {
            event.kind == kind
                && (event.id == value
                    || attribute("name") == Some(value.trim_start_matches('/'))
                    || (value.len() >= 4 && event.id.starts_with(value)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        Event {
            number: 1,
            time: jiff::Timestamp::UNIX_EPOCH,
            namespace: "default".into(),
            kind: kind.into(),
            action: action.into(),
            id: id.into(),
            attributes: attributes
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        }
    }

    fn filters(list: &[(&str, &str)]) -> Filters {
        let list = list
            .iter()
            .map(|(key, value)| v1::EventFilter {
                key: (*key).into(),
                value: (*value).into(),
            })
            .collect();
        Filters::parse(list).unwrap()
    }

    #[test]
    fn values_of_a_key_are_alternatives_and_keys_add_up() {
        let die = event(
            "container",
            "die",
            "abcdef",
            &[("name", "web"), ("image", "busybox:1"), ("a", "b")],
        );
        assert!(filters(&[("event", "start"), ("event", "die")]).pass(&die));
        assert!(!filters(&[("event", "die"), ("type", "image")]).pass(&die));
        assert!(filters(&[("container", "web")]).pass(&die));
        assert!(filters(&[("container", "abcd")]).pass(&die));
        assert!(!filters(&[("container", "other")]).pass(&die));
        assert!(filters(&[("image", "busybox")]).pass(&die));
        assert!(filters(&[("label", "a=b")]).pass(&die));
        assert!(!filters(&[("label", "a=c")]).pass(&die));
        let health = event("container", "health_status: healthy", "x", &[]);
        assert!(filters(&[("event", "health_status")]).pass(&health));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let filter = v1::EventFilter {
            key: "bogus".into(),
            value: "1".into(),
        };
        assert!(Filters::parse(vec![filter]).is_err());
    }
}
