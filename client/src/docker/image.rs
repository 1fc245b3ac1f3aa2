//! An image as `GET /images/{name}/json` gives it.

use serde_json::{Map, Value, json};

use super::time;
use crate::v1;

/// An image in docker's shape.
pub fn image(details: &v1::ImageDetails) -> Value {
    let image = details.image.clone().unwrap_or_default();
    let tags: Vec<&str> = image
        .names
        .iter()
        .filter(|name| !name.contains('@'))
        .map(|name| familiar(name))
        .collect();
    let digests: Vec<&str> = image
        .repo_digests
        .iter()
        .map(|name| familiar(name))
        .collect();
    let mut value = json!({
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": image.parent,
        "Comment": details.comment,
        "Created": time(image.created_at.as_ref()),
        "DockerVersion": "",
        "Author": details.author,
        "Config": details.config.as_ref().map(config).unwrap_or(Value::Null),
        "Architecture": details.architecture,
        "Os": details.os,
        "Size": image.size,
        "GraphDriver": {"Data": layers(&details.layer_paths), "Name": driver(&details.snapshotter)},
        "RootFS": {"Type": "layers", "Layers": details.diff_ids},
        "Metadata": {"LastTagTime": time(image.updated_at.as_ref())},
    });
    if let (false, Some(object)) = (details.variant.is_empty(), value.as_object_mut()) {
        object.insert("Variant".into(), details.variant.clone().into());
    }
    if let (Some(target), Some(object)) = (&image.target, value.as_object_mut()) {
        object.insert(
            "Descriptor".into(),
            json!({"mediaType": target.media_type, "digest": target.digest, "size": target.size}),
        );
    }
    value
}

/// "docker.io/library/busybox:latest" as "busybox:latest".
fn familiar(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

/// docker's name of a snapshotter.
pub(super) fn driver(snapshotter: &str) -> &str {
    match snapshotter {
        "overlayfs" => "overlay2",
        "native" => "vfs",
        other => other,
    }
}

fn layers(paths: &[String]) -> Value {
    let Some((upper, lower)) = paths.split_first() else {
        return Value::Null;
    };
    let mut data = Map::new();
    data.insert("UpperDir".into(), upper.as_str().into());
    if !lower.is_empty() {
        data.insert("LowerDir".into(), lower.join(":").into());
    }
    Value::Object(data)
}

/// The part of an image that a container starts from.
fn config(config: &v1::ImageConfig) -> Value {
    let list = |items: &[String]| {
        if items.is_empty() {
            Value::Null
        } else {
            json!(items)
        }
    };
    let set = |items: &[String]| -> Value {
        if items.is_empty() {
            return Value::Null;
        }
        items
            .iter()
            .map(|item| (item.clone(), json!({})))
            .collect::<Map<_, _>>()
            .into()
    };
    let mut value = json!({
        "Hostname": "",
        "Domainname": "",
        "User": config.user,
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Tty": false,
        "OpenStdin": false,
        "StdinOnce": false,
        "Env": config.env,
        "Cmd": list(&config.cmd),
        "Image": "",
        "Volumes": set(&config.volumes),
        "WorkingDir": config.working_dir,
        "Entrypoint": list(&config.entrypoint),
        "OnBuild": list(&config.on_build),
        "Labels": if config.labels.is_empty() { Value::Null } else { json!(config.labels) },
    });
    if let Some(object) = value.as_object_mut() {
        if !config.exposed_ports.is_empty() {
            object.insert("ExposedPorts".into(), set(&config.exposed_ports));
        }
        if !config.stop_signal.is_empty() {
            object.insert("StopSignal".into(), config.stop_signal.clone().into());
        }
        if !config.shell.is_empty() {
            object.insert("Shell".into(), json!(config.shell));
        }
        if let Some(check) = &config.healthcheck {
            object.insert("Healthcheck".into(), healthcheck(check));
        }
    }
    value
}

/// A health check in docker's shape; spans are nanoseconds.
pub(super) fn healthcheck(check: &v1::HealthCheck) -> Value {
    let mut value = Map::new();
    if !check.test.is_empty() {
        value.insert("Test".into(), json!(check.test));
    }
    let spans = [
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("StartPeriod", check.start_period_ns),
        ("StartInterval", check.start_interval_ns),
        ("Retries", check.retries.into()),
    ];
    for (key, span) in spans {
        if span != 0 {
            value.insert(key.into(), span.into());
        }
    }
    Value::Object(value)
}
