//! What an image says about the containers made from it, with docker's
//! additions (health check, shell, ONBUILD) that the OCI types do not carry.

use crate::{Error, Result, record::sparse};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

sparse! {
    /// The part of an image's config that a container starts from (OCI image
    /// spec, config.md, "config").
    pub struct ImageConfig {
        /// "user", "uid", "user:group" or "uid:gid".
        pub user: String,
        /// "80/tcp".
        pub exposed_ports: Vec<String>,
        /// "NAME=value".
        pub env: Vec<String>,
        /// What runs; `cmd` is appended.
        pub entrypoint: Vec<String>,
        /// Default arguments, or what runs when there is no entry point.
        pub cmd: Vec<String>,
        /// Paths that get an anonymous volume.
        pub volumes: Vec<String>,
        /// Directory to start in.
        pub working_dir: String,
        /// Labels that containers inherit.
        pub labels: BTreeMap<String, String>,
        /// Signal that stops the container, by name or number.
        pub stop_signal: String,
        /// How to find out whether the container is well.
        pub healthcheck: Option<HealthCheck>,
        /// Instructions for a build on top of this image.
        pub on_build: Vec<String>,
        /// Shell for shell-form commands; `/bin/sh -c` when empty.
        pub shell: Vec<String>,
    }

    /// A health check: a command in the container that tells how it is.
    pub struct HealthCheck {
        /// `["NONE"]`, `["CMD", argv…]` or `["CMD-SHELL", line]`; empty
        /// inherits the image's.
        pub test: Vec<String>,
        /// Nanoseconds between two checks; 0 means 30 s.
        pub interval_ns: i64,
        /// Nanoseconds that one check may take; 0 means 30 s.
        pub timeout_ns: i64,
        /// Failures in a row that make it unhealthy; 0 means 3.
        pub retries: i32,
        /// Nanoseconds after the start in which failures do not count.
        pub start_period_ns: i64,
        /// Nanoseconds between two checks in the start period; 0 means 5 s.
        pub start_interval_ns: i64,
    }
}

impl ImageConfig {
    /// Reads the `config` object out of an image config blob.
    ///
    /// Absent and `null` parts are empty, as docker and the OCI spec allow.
    ///
    /// # Errors
    /// `DataLoss` when `blob` is not the JSON of an image config.
    pub fn from_config_blob(blob: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Blob {
            config: Option<Wire>,
        }
        let blob: Blob = serde_json::from_slice(blob).map_err(|error| {
            Error::new(
                crate::Kind::DataLoss,
                "the image's config is not valid JSON of an image config",
            )
            .with_source(error)
        })?;
        Ok(blob.config.unwrap_or_default().into())
    }

    /// The `config` object as it stands in an image config blob (docker's
    /// names and forms; empty parts left out).
    pub fn to_config_object(&self) -> serde_json::Value {
        use serde_json::{Map, Value, json};
        let mut object = Map::new();
        let mut put = |name: &str, value: Value, empty: bool| {
            if !empty {
                object.insert(name.to_owned(), value);
            }
        };
        let set = |keys: &[String]| {
            Value::Object(keys.iter().map(|key| (key.clone(), json!({}))).collect())
        };
        put("User", json!(self.user), self.user.is_empty());
        put(
            "ExposedPorts",
            set(&self.exposed_ports),
            self.exposed_ports.is_empty(),
        );
        put("Env", json!(self.env), self.env.is_empty());
        put(
            "Entrypoint",
            json!(self.entrypoint),
            self.entrypoint.is_empty(),
        );
        put("Cmd", json!(self.cmd), self.cmd.is_empty());
        put("Volumes", set(&self.volumes), self.volumes.is_empty());
        put(
            "WorkingDir",
            json!(self.working_dir),
            self.working_dir.is_empty(),
        );
        put("Labels", json!(self.labels), self.labels.is_empty());
        put(
            "StopSignal",
            json!(self.stop_signal),
            self.stop_signal.is_empty(),
        );
        put(
            "Healthcheck",
            self.healthcheck
                .as_ref()
                .map(HealthCheck::to_object)
                .unwrap_or_default(),
            self.healthcheck.is_none(),
        );
        put("OnBuild", json!(self.on_build), self.on_build.is_empty());
        put("Shell", json!(self.shell), self.shell.is_empty());
        Value::Object(object)
    }
}

impl HealthCheck {
    fn to_object(&self) -> serde_json::Value {
        use serde_json::{Map, Value, json};
        let mut object = Map::new();
        let numbers = [
            ("Interval", self.interval_ns),
            ("Timeout", self.timeout_ns),
            ("StartPeriod", self.start_period_ns),
            ("StartInterval", self.start_interval_ns),
            ("Retries", i64::from(self.retries)),
        ];
        if !self.test.is_empty() {
            object.insert("Test".to_owned(), json!(self.test));
        }
        for (name, number) in numbers {
            if number != 0 {
                object.insert(name.to_owned(), json!(number));
            }
        }
        Value::Object(object)
    }
}

/// The form in the blob. Every part may be absent or null.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Wire {
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "or_default")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "string_or_list")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "string_or_list")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    stop_signal: String,
    healthcheck: Option<WireHealth>,
    #[serde(deserialize_with = "or_default")]
    on_build: Vec<String>,
    #[serde(deserialize_with = "string_or_list")]
    shell: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireHealth {
    #[serde(deserialize_with = "or_default")]
    test: Vec<String>,
    interval: i64,
    timeout: i64,
    retries: i32,
    start_period: i64,
    start_interval: i64,
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// docker has always read a plain string as a list of one.
fn string_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(String),
        Many(Vec<String>),
        Null(()),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::One(one) => vec![one],
        Form::Many(many) => many,
        Form::Null(()) => Vec::new(),
    })
}

impl From<Wire> for ImageConfig {
    fn from(wire: Wire) -> Self {
        Self {
            user: wire.user,
            exposed_ports: wire.exposed_ports.into_keys().collect(),
            env: wire.env,
            entrypoint: wire.entrypoint,
            cmd: wire.cmd,
            volumes: wire.volumes.into_keys().collect(),
            working_dir: wire.working_dir,
            labels: wire.labels,
            stop_signal: wire.stop_signal,
            healthcheck: wire.healthcheck.map(|health| HealthCheck {
                test: health.test,
                interval_ns: health.interval,
                timeout_ns: health.timeout,
                retries: health.retries,
                start_period_ns: health.start_period,
                start_interval_ns: health.start_interval,
            }),
            on_build: wire.on_build,
            shell: wire.shell,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_survives_its_own_form() {
        let blob = br#"{"architecture":"amd64","config":{"Env":["A=b"],"Cmd":["sh"],"Entrypoint":null,
            "ExposedPorts":{"80/tcp":{}},"Volumes":null,"Labels":{"x":"y"},"StopSignal":"SIGINT",
            "Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":5000000000,"Retries":2},"Shell":["/bin/bash","-c"]}}"#;
        let config = ImageConfig::from_config_blob(blob).unwrap();
        assert_eq!(config.cmd, ["sh"]);
        assert_eq!(config.exposed_ports, ["80/tcp"]);
        assert_eq!(
            config.healthcheck.as_ref().unwrap().interval_ns,
            5_000_000_000
        );
        let again =
            serde_json::to_vec(&serde_json::json!({"config": config.to_config_object()})).unwrap();
        assert_eq!(ImageConfig::from_config_blob(&again).unwrap(), config);
    }

    #[test]
    fn odd_forms_are_read_and_rubbish_is_refused() {
        assert_eq!(
            ImageConfig::from_config_blob(b"{}").unwrap(),
            ImageConfig::default()
        );
        assert_eq!(
            ImageConfig::from_config_blob(br#"{"config":null}"#).unwrap(),
            ImageConfig::default()
        );
        assert_eq!(
            ImageConfig::from_config_blob(br#"{"config":{"Cmd":"sh"}}"#)
                .unwrap()
                .cmd,
            ["sh"]
        );
        assert!(ImageConfig::from_config_blob(b"[").is_err());
        assert!(ImageConfig::from_config_blob(br#"{"config":{"Env":7}}"#).is_err());
    }
}
