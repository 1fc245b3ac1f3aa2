//! A container in a list: GET /containers/json and the one of system df.

use davit_client::{docker, v1};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{mount, reference, status, time};

/// One element of the list. With `size` the sizes are in it.
pub(crate) fn of(container: &v1::Container, size: bool, now: Timestamp) -> Value {
    let state = container.state.clone().unwrap_or_default();
    let mut value = Map::new();
    let mut put = |key: &str, item: Value| value.insert(key.to_owned(), item);
    put("Id", json!(container.id));
    put("Names", json!([format!("/{}", container.name)]));
    put("Image", json!(reference::familiar(&container.image)));
    put("ImageID", json!(container.image_id));
    put(
        "Command",
        json!(davit_client::docker::command_line(&container.command)),
    );
    put("Created", json!(time::unix(container.created_at.as_ref())));
    put("Ports", docker::port_list(container));
    if size {
        put("SizeRw", json!(container.size_rw));
        put("SizeRootFs", json!(container.size_root_fs));
    }
    put("Labels", super::sorted(&container.labels));
    put("State", json!(status::word(&state)));
    put("Status", json!(status::sentence(&state, now)));
    let mode = if container.network_mode.is_empty() {
        "default"
    } else {
        &container.network_mode
    };
    put("HostConfig", json!({"NetworkMode": mode}));
    put(
        "NetworkSettings",
        json!({"Networks": docker::endpoints(container)}),
    );
    put(
        "Mounts",
        container.mounts.iter().map(mount::point).collect(),
    );
    Value::Object(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_entry_has_dockers_fields() {
        let container = v1::Container {
            id: "a".repeat(64),
            name: "web".into(),
            image: "busybox".into(),
            command: vec!["sh".into(), "-c".into(), "echo hi".into()],
            network_mode: "host".into(),
            endpoints: vec![v1::NetworkEndpoint {
                network: "host".into(),
                ..Default::default()
            }],
            size_rw: 5,
            ..Default::default()
        };
        let value = of(&container, false, Timestamp::now());
        assert_eq!(value["Names"], json!(["/web"]));
        assert_eq!(value["Command"], "sh -c 'echo hi'");
        assert_eq!(value["Labels"], json!({}));
        assert_eq!(value["Ports"], json!([]));
        assert_eq!(value["HostConfig"]["NetworkMode"], "host");
        assert!(value["NetworkSettings"]["Networks"]["host"].is_object());
        assert!(value.get("SizeRw").is_none());
        assert_eq!(of(&container, true, Timestamp::now())["SizeRw"], 5);
    }
}
