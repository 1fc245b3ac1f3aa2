//! Events as GET /events sends them.

use davit_client::v1;
use serde_json::{Map, Value, json};

use super::{reference::familiar, sorted, time};

/// One event; containers and images with the fields of old clients.
pub(crate) fn of(event: &v1::Event) -> Value {
    let is_image = event.r#type == "image";
    let id = if is_image {
        familiar(&event.id)
    } else {
        &event.id
    };
    let mut attributes = event.attributes.clone();
    for key in ["image", "name"] {
        if let Some(name) = attributes.get_mut(key)
            && let Some(short) = name.strip_prefix("docker.io/")
        {
            *name = familiar(&format!("docker.io/{short}")).to_owned();
        }
    }
    let mut value = Map::new();
    let mut put = |key: &str, item: Value| value.insert(key.to_owned(), item);
    if is_image || event.r#type == "container" {
        put("status", json!(event.action));
        put("id", json!(id));
    }
    if let Some(image) = attributes.get("image")
        && event.r#type == "container"
    {
        put("from", json!(image));
    }
    put("Type", json!(event.r#type));
    put("Action", json!(event.action));
    put(
        "Actor",
        json!({"ID": id, "Attributes": sorted(&attributes)}),
    );
    put("scope", json!("local"));
    put("time", json!(time::unix(event.time.as_ref())));
    put("timeNano", json!(time::unix_nanos(event.time.as_ref())));
    Value::Object(value)
}

/// Events that the log dropped before this reader had them. Docker has no
/// message for it; silence would be a lie.
pub(crate) fn lagged(lagged: &v1::Lagged, now: jiff::Timestamp) -> Value {
    let now = time::wire(now);
    json!({
        "Type": "daemon",
        "Action": "lagged",
        "Actor": {"ID": "davit", "Attributes": {
            "first": lagged.first.to_string(),
            "last": lagged.last.to_string(),
        }},
        "scope": "local",
        "time": time::unix(Some(&now)),
        "timeNano": time::unix_nanos(Some(&now)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_events_have_old_and_new_fields() {
        let event = v1::Event {
            number: 7,
            time: Some(prost_types::Timestamp {
                seconds: 5,
                nanos: 6,
            }),
            r#type: "container".into(),
            action: "die".into(),
            id: "abc".into(),
            attributes: [
                (
                    "image".to_owned(),
                    "docker.io/library/busybox:latest".to_owned(),
                ),
                ("exitCode".to_owned(), "3".to_owned()),
            ]
            .into(),
            ..Default::default()
        };
        let value = of(&event);
        assert_eq!(
            value.to_string(),
            r#"{"status":"die","id":"abc","from":"busybox:latest","Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":{"exitCode":"3","image":"busybox:latest"}},"scope":"local","time":5,"timeNano":5000000006}"#
        );
        let volume = of(&v1::Event {
            r#type: "volume".into(),
            ..event
        });
        assert!(volume.get("status").is_none());
    }
}
