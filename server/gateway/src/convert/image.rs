//! Images as docker lists, inspects and removes them.

use davit_client::v1;
use serde_json::{Map, Value, json};

use super::{
    reference::{familiar, is_digested},
    sorted, time,
};
use crate::version::ApiVersion;

/// What a list shows of an image beside the image itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Bytes shared with other images; -1 when nobody asked.
    pub(crate) shared: i64,
    /// Containers made from it; -1 when nobody asked.
    pub(crate) containers: i64,
}

/// One element of GET /images/json.
pub(crate) fn summary(image: &v1::Image, sizes: Sizes, version: ApiVersion) -> Value {
    let labels = if image.labels.is_empty() {
        Value::Null
    } else {
        sorted(&image.labels)
    };
    let mut value = Map::new();
    let mut put = |key: &str, item: Value| value.insert(key.to_owned(), item);
    put("Containers", json!(sizes.containers));
    put(
        "Created",
        json!(image.created_at.as_ref().map_or(0, |time| time.seconds)),
    );
    put("Id", json!(image.id));
    put("Labels", labels);
    put("ParentId", json!(image.parent));
    put("RepoDigests", digests(image, version));
    put("RepoTags", tags(image, version));
    put("SharedSize", json!(sizes.shared));
    put("Size", json!(image.size));
    if version < ApiVersion::new(1, 44) {
        put("VirtualSize", json!(image.size));
    }
    Value::Object(value)
}

/// Old clients need a name where there is none.
fn tags(image: &v1::Image, version: ApiVersion) -> Value {
    let tags: Vec<&str> = tag_names(image).collect();
    let old = version < ApiVersion::new(1, 43);
    if tags.is_empty() && old {
        json!(["<none>:<none>"])
    } else {
        json!(tags)
    }
}

fn digests(image: &v1::Image, version: ApiVersion) -> Value {
    let digests = repo_digests(image);
    let old = version < ApiVersion::new(1, 43);
    if digests.is_empty() && tag_names(image).next().is_none() && old {
        json!(["<none>@<none>"])
    } else {
        json!(digests)
    }
}

fn tag_names(image: &v1::Image) -> impl Iterator<Item = &str> {
    image
        .names
        .iter()
        .map(|name| familiar(name))
        .filter(|name| !is_digested(name))
}

fn repo_digests(image: &v1::Image) -> Vec<String> {
    let named = image.names.iter().filter(|name| is_digested(name));
    let mut digests: Vec<String> = image
        .repo_digests
        .iter()
        .chain(named)
        .map(|name| familiar(name).to_owned())
        .collect();
    digests.sort();
    digests.dedup();
    digests
}

/// GET /images/{name}/json.
pub(crate) fn inspect(details: &v1::ImageDetails, version: ApiVersion) -> Value {
    let image = details.image.clone().unwrap_or_default();
    let raw: Value = serde_json::from_slice(&details.config_json).unwrap_or_default();
    let text = |key: &str| {
        raw.get(key)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let mut value = Map::new();
    let mut put = |key: &str, item: Value| value.insert(key.to_owned(), item);
    put("Id", json!(image.id));
    put("RepoTags", json!(tag_names(&image).collect::<Vec<_>>()));
    put("RepoDigests", json!(repo_digests(&image)));
    put("Parent", json!(image.parent));
    put("Comment", json!(details.comment));
    put("Created", json!(time::rfc3339(image.created_at.as_ref())));
    if version < ApiVersion::new(1, 45) {
        put("Container", json!(text("container")));
        put(
            "ContainerConfig",
            config(raw.get("container_config"), ApiVersion::new(1, 44)),
        );
    }
    put("DockerVersion", json!(text("docker_version")));
    put("Author", json!(details.author));
    put("Config", config(raw.get("config"), version));
    put("Architecture", json!(details.architecture));
    if !details.variant.is_empty() {
        put("Variant", json!(details.variant));
    }
    put("Os", json!(details.os));
    put("Size", json!(image.size));
    if version < ApiVersion::new(1, 44) {
        put("VirtualSize", json!(image.size));
    }
    put("GraphDriver", graph_driver(details));
    put(
        "RootFS",
        json!({"Type": "layers", "Layers": details.diff_ids}),
    );
    put(
        "Metadata",
        json!({"LastTagTime": time::rfc3339(image.updated_at.as_ref())}),
    );
    if let Some(target) = &image.target
        && version >= ApiVersion::new(1, 48)
    {
        put("Descriptor", descriptor(target));
    }
    Value::Object(value)
}

/// The config as it stands in the image; up to API 1.49 with the fields that
/// only containers have, as dockerd then sent them.
fn config(raw: Option<&Value>, version: ApiVersion) -> Value {
    let given = raw.and_then(Value::as_object).cloned().unwrap_or_default();
    if version >= ApiVersion::new(1, 50) {
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Number(_) => false,
        };
        const IMAGE_ONLY: &[&str] = &[
            "User",
            "ExposedPorts",
            "Env",
            "Entrypoint",
            "Cmd",
            "Volumes",
            "WorkingDir",
            "Labels",
            "StopSignal",
            "ArgsEscaped",
            "Healthcheck",
            "OnBuild",
            "Shell",
        ];
        let kept = given
            .into_iter()
            .filter(|(key, value)| IMAGE_ONLY.contains(&key.as_str()) && !empty(value));
        return Value::Object(kept.collect());
    }
    let mut value = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false,
        "AttachStdout": false, "AttachStderr": false, "Tty": false, "OpenStdin": false,
        "StdinOnce": false, "Env": null, "Cmd": null, "Image": "", "Volumes": null,
        "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    });
    if let Value::Object(value) = &mut value {
        value.extend(given);
    }
    value
}

fn graph_driver(details: &v1::ImageDetails) -> Value {
    let Some((upper, lower)) = details.layer_paths.split_first() else {
        return json!({"Data": null, "Name": details.snapshotter});
    };
    let mut data = Map::new();
    if !lower.is_empty() {
        data.insert("LowerDir".into(), json!(lower.join(":")));
    }
    data.insert("UpperDir".into(), json!(upper));
    json!({"Data": data, "Name": details.snapshotter})
}

/// An OCI descriptor as JSON.
pub(crate) fn descriptor(descriptor: &v1::Descriptor) -> Value {
    let mut value = json!({
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    });
    if !descriptor.annotations.is_empty() {
        value["annotations"] = sorted(&descriptor.annotations);
    }
    if let Some(found) = &descriptor.platform {
        value["platform"] = platform(found);
    }
    value
}

/// An OCI platform as JSON.
pub(crate) fn platform(platform: &v1::Platform) -> Value {
    let mut value = json!({"architecture": platform.architecture, "os": platform.os});
    if !platform.variant.is_empty() {
        value["variant"] = json!(platform.variant);
    }
    if !platform.os_version.is_empty() {
        value["os.version"] = json!(platform.os_version);
    }
    value
}

/// GET /images/{name}/history, newest first.
pub(crate) fn history(entries: &[v1::HistoryEntry]) -> Value {
    let entry = |entry: &v1::HistoryEntry| {
        let tags: Vec<&str> = entry
            .names
            .iter()
            .map(|name| familiar(name))
            .filter(|name| !is_digested(name))
            .collect();
        json!({
            "Comment": entry.comment,
            "Created": time::unix(entry.created_at.as_ref()),
            "CreatedBy": entry.created_by,
            "Id": if entry.id.is_empty() { "<missing>" } else { &entry.id },
            "Size": entry.size,
            "Tags": if tags.is_empty() { Value::Null } else { json!(tags) },
        })
    };
    entries.iter().map(entry).collect()
}

/// What a removal took away: names first, then ids.
pub(crate) fn removed(untagged: &[String], deleted: &[String]) -> Value {
    let names = untagged
        .iter()
        .map(|name| json!({"Untagged": familiar(name)}));
    let ids = deleted.iter().map(|id| json!({"Deleted": id}));
    names.chain(ids).collect()
}

/// What a prune took away; null for nothing, as dockerd has it.
pub(crate) fn pruned(removed: &[String]) -> Value {
    if removed.is_empty() {
        return Value::Null;
    }
    let item = |item: &String| {
        if item.starts_with("sha256:") {
            json!({"Deleted": item})
        } else {
            json!({"Untagged": familiar(item)})
        }
    };
    removed.iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version;

    fn image() -> v1::Image {
        v1::Image {
            id: "sha256:1".into(),
            names: vec![
                "docker.io/library/busybox:latest".into(),
                "docker.io/library/busybox@sha256:2".into(),
            ],
            repo_digests: vec!["docker.io/library/busybox@sha256:2".into()],
            size: 5,
            ..Default::default()
        }
    }

    #[test]
    fn lists_show_short_names_and_old_clients_get_old_fields() {
        let sizes = Sizes {
            shared: -1,
            containers: -1,
        };
        let value = summary(&image(), sizes, version::MAX);
        assert_eq!(value["RepoTags"], json!(["busybox:latest"]));
        assert_eq!(value["RepoDigests"], json!(["busybox@sha256:2"]));
        assert!(value.get("VirtualSize").is_none());
        let dangling = v1::Image {
            id: "sha256:1".into(),
            ..Default::default()
        };
        assert_eq!(
            summary(&dangling, sizes, version::MAX)["RepoTags"],
            json!([])
        );
        let old = summary(&dangling, sizes, ApiVersion::new(1, 41));
        assert_eq!(old["RepoTags"], json!(["<none>:<none>"]));
        assert_eq!(old["RepoDigests"], json!(["<none>@<none>"]));
        assert_eq!(old["VirtualSize"], 0);
    }

    #[test]
    fn inspect_follows_the_api_version() {
        let details = v1::ImageDetails {
            image: Some(image()),
            config_json: br#"{"config":{"Cmd":["sh"],"Hostname":"x","Env":null}}"#
                .to_vec()
                .into(),
            os: "linux".into(),
            diff_ids: vec!["sha256:a".into()],
            ..Default::default()
        };
        let new = inspect(&details, version::MAX);
        assert_eq!(new["Config"], json!({"Cmd": ["sh"]}));
        assert_eq!(new["RootFS"]["Layers"], json!(["sha256:a"]));
        assert!(new.get("ContainerConfig").is_none());
        let old = inspect(&details, ApiVersion::new(1, 41));
        assert_eq!(old["Config"]["Cmd"], json!(["sh"]));
        assert_eq!(old["Config"]["Entrypoint"], Value::Null);
        assert_eq!(old["Config"]["Hostname"], "x");
        assert_eq!(old["VirtualSize"], 5);
    }

    #[test]
    fn what_was_removed_is_told_in_dockers_order() {
        let value = removed(&["docker.io/library/a:1".into()], &["sha256:0".into()]);
        assert_eq!(value, json!([{"Untagged": "a:1"}, {"Deleted": "sha256:0"}]));
        assert_eq!(pruned(&[]), Value::Null);
    }
}
