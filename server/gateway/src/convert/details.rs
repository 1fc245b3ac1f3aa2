//! A container as GET /containers/{id}/json shows it.

use davit_client::{docker, v1};
use serde_json::{Map, Value, json};

use super::{config, host_config, list_or_null, mount, status, time};
use crate::version::ApiVersion;

/// Log driver of a container that asked for none.
const DEFAULT_LOG: &str = "json-file";

/// The whole object. `host_name` is the machine's, which containers in its
/// UTS or network namespace see.
pub(crate) fn of(
    details: &v1::ContainerDetails,
    size: bool,
    version: ApiVersion,
    host_name: &str,
) -> Value {
    let container = details.container.clone().unwrap_or_default();
    let options = details.options.clone().unwrap_or_default();
    let state = container.state.clone().unwrap_or_default();
    let mut value = Map::new();
    let mut put = |key: &str, item: Value| value.insert(key.to_owned(), item);
    put("Id", json!(container.id));
    put(
        "Created",
        json!(time::rfc3339(container.created_at.as_ref())),
    );
    put("Path", json!(details.path));
    put("Args", json!(details.args));
    put("State", status::to_json(&state));
    put("Image", json!(container.image_id));
    put("ResolvConfPath", json!(details.resolv_conf_path));
    put("HostnamePath", json!(details.hostname_path));
    put("HostsPath", json!(details.hosts_path));
    put("LogPath", json!(details.log_path));
    put("Name", json!(format!("/{}", container.name)));
    put("RestartCount", json!(state.restart_count));
    put("Driver", json!(details.driver));
    put(
        "Platform",
        json!(if details.platform.is_empty() {
            "linux"
        } else {
            &details.platform
        }),
    );
    put("MountLabel", json!(""));
    put("ProcessLabel", json!(""));
    put("AppArmorProfile", json!(""));
    put("ExecIDs", list_or_null(&details.exec_ids));
    put("HostConfig", host_config::of(&options, DEFAULT_LOG));
    put("GraphDriver", graph_driver(details));
    if size {
        put("SizeRw", json!(container.size_rw));
        put("SizeRootFs", json!(container.size_root_fs));
    }
    put(
        "Mounts",
        container.mounts.iter().map(mount::point).collect(),
    );
    put("Config", config_of(details, &container.id, host_name));
    put(
        "NetworkSettings",
        docker::network_settings(&container, &details.network_namespace),
    );
    if let Some(manifest) = &details.image_manifest
        && version >= ApiVersion::new(1, 48)
    {
        put(
            "ImageManifestDescriptor",
            super::image::descriptor(manifest),
        );
    }
    Value::Object(value)
}

fn config_of(details: &v1::ContainerDetails, id: &str, host_name: &str) -> Value {
    let options = details.options.clone().unwrap_or_default();
    let shared = options.uts_mode == "host" || options.network_mode == "host";
    let hostname = if shared {
        host_name
    } else {
        id.get(..12).unwrap_or(id)
    };
    let mut value = config::of_container(details, hostname);
    if let Value::Object(value) = &mut value {
        value.extend(host_config::echo_part(
            &host_config::echo(&options),
            "Config",
        ));
    }
    value
}

fn graph_driver(details: &v1::ContainerDetails) -> Value {
    let data = |name: &str| details.driver_data.get(name).cloned();
    let mut paths = Map::new();
    for (key, name) in [
        ("LowerDir", "lower"),
        ("MergedDir", "merged"),
        ("UpperDir", "upper"),
        ("WorkDir", "work"),
    ] {
        if let Some(path) = data(name) {
            paths.insert(key.into(), json!(path));
        }
    }
    let paths = if paths.is_empty() {
        Value::Null
    } else {
        Value::Object(paths)
    };
    json!({"Data": paths, "Name": details.driver})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{convert::create, version};

    #[test]
    fn inspect_gives_back_what_create_was_given() {
        let body = json!({
            "Image": "busybox", "Tty": true, "OnBuild": ["x"],
            "HostConfig": {
                "Binds": ["/a:/b"], "Init": false, "CapAdd": ["NET_ADMIN"], "Memory": 7,
                "ContainerIDFile": "/tmp/id", "OomKillDisable": null, "VolumeDriver": "local",
                "Mounts": [{"Type": "tmpfs", "Target": "/t",
                            "TmpfsOptions": {"SizeBytes": 5, "Options": [["uid", "1"], ["noexec"]]}}],
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "1"},
                                            {"HostIp": "::", "HostPort": "1"}]},
            }
        });
        let (image, options) = create::from_json(Some(&body)).unwrap();
        let container = v1::Container {
            id: "b".repeat(64),
            name: "n".into(),
            image,
            ..Default::default()
        };
        let details = v1::ContainerDetails {
            container: Some(container),
            options: Some(options),
            ..Default::default()
        };
        let value = of(&details, false, version::MAX, "machine");
        let host = &value["HostConfig"];
        for key in [
            "Binds",
            "Init",
            "CapAdd",
            "Memory",
            "ContainerIDFile",
            "VolumeDriver",
            "Mounts",
            "PortBindings",
        ] {
            assert_eq!(host[key], body["HostConfig"][key], "{key}");
        }
        assert_eq!(host["NetworkMode"], "default");
        assert_eq!(host["RestartPolicy"]["Name"], "no");
        assert_eq!(host["ShmSize"], 64 << 20);
        assert_eq!(host["MaskedPaths"][0], "/proc/asound");
        assert_eq!(value["Config"]["Hostname"], "b".repeat(12));
        assert_eq!(value["Config"]["OnBuild"], json!(["x"]));
        assert_eq!(value["Config"]["Cmd"], Value::Null);
        assert_eq!(value["Name"], "/n");
        assert_eq!(value["ExecIDs"], Value::Null);
        assert_eq!(value["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    }
}
