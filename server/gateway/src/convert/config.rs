//! The part of a container that comes from its image: docker's Config, from
//! and to davit.v1, and health checks.

use davit_client::v1;
use serde_json::{Map, Value, json};

use crate::{failure::Result, fields::Fields};

/// Reads Config.Healthcheck; `None` when the image's holds.
pub(crate) fn health_from_json(config: &Fields<'_>) -> Result<Option<v1::HealthCheck>> {
    if !config.has("Healthcheck") {
        return Ok(None);
    }
    let check = config.object("Healthcheck")?;
    Ok(Some(v1::HealthCheck {
        test: check.strings("Test")?,
        interval_ns: check.int("Interval")?,
        timeout_ns: check.int("Timeout")?,
        retries: check.small("Retries", "int")?,
        start_period_ns: check.int("StartPeriod")?,
        start_interval_ns: check.int("StartInterval")?,
    }))
}

fn health_to_json(check: &v1::HealthCheck) -> Value {
    let mut value = Map::new();
    if !check.test.is_empty() {
        value.insert("Test".into(), json!(check.test));
    }
    for (key, number) in [
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("StartPeriod", check.start_period_ns),
        ("StartInterval", check.start_interval_ns),
        ("Retries", check.retries.into()),
    ] {
        if number != 0 {
            value.insert(key.into(), json!(number));
        }
    }
    Value::Object(value)
}

/// Config as a container's inspect shows it. `hostname` is what the container
/// sees when nobody gave one.
pub(crate) fn of_container(details: &v1::ContainerDetails, hostname: &str) -> Value {
    let container = details.container.clone().unwrap_or_default();
    let options = details.options.clone().unwrap_or_default();
    let config = details.config.clone().unwrap_or_default();
    let hostname = if options.hostname.is_empty() {
        hostname
    } else {
        &options.hostname
    };
    let mut value = Map::new();
    let mut put = |key: &str, item: Value| value.insert(key.to_owned(), item);
    put("Hostname", json!(hostname));
    put("Domainname", json!(options.domainname));
    put("User", json!(config.user));
    put("AttachStdin", json!(options.attach_stdin));
    put("AttachStdout", json!(options.attach_stdout));
    put("AttachStderr", json!(options.attach_stderr));
    if !config.exposed_ports.is_empty() {
        put("ExposedPorts", super::set_or_null(&config.exposed_ports));
    }
    put("Tty", json!(options.tty));
    put("OpenStdin", json!(options.open_stdin));
    put("StdinOnce", json!(options.stdin_once));
    put("Env", json!(config.env));
    put("Cmd", super::list_or_null(&config.cmd));
    if let Some(check) = &config.healthcheck {
        put("Healthcheck", health_to_json(check));
    }
    put("Image", json!(container.image));
    put("Volumes", super::set_or_null(&config.volumes));
    put("WorkingDir", json!(config.working_dir));
    put("Entrypoint", super::list_or_null(&config.entrypoint));
    if !options.mac_address.is_empty() {
        put("MacAddress", json!(options.mac_address));
    }
    put("OnBuild", super::list_or_null(&config.on_build));
    put("Labels", super::sorted(&container.labels));
    if !config.stop_signal.is_empty() {
        put("StopSignal", json!(config.stop_signal));
    }
    if options.stop_timeout_set {
        put("StopTimeout", json!(options.stop_timeout));
    }
    if !options.shell.is_empty() {
        put("Shell", json!(options.shell));
    }
    Value::Object(value)
}

/// Puts the fields that a commit's body gives over the container's own.
pub(crate) fn overlay(base: v1::ImageConfig, config: &Fields<'_>) -> Result<v1::ImageConfig> {
    let text = |key: &str, old: String| -> Result<String> {
        let new = config.string(key)?;
        Ok(if new.is_empty() { old } else { new })
    };
    let list = |key: &str, old: Vec<String>| -> Result<Vec<String>> {
        let new = config.words(key)?.unwrap_or_default();
        Ok(if new.is_empty() { old } else { new })
    };
    let set = |key: &str, mut old: Vec<String>| -> Result<Vec<String>> {
        old.extend(config.set(key)?);
        old.sort();
        old.dedup();
        Ok(old)
    };
    let mut labels = base.labels;
    labels.extend(config.string_map("Labels")?);
    Ok(v1::ImageConfig {
        user: text("User", base.user)?,
        exposed_ports: set("ExposedPorts", base.exposed_ports)?,
        env: merge_env(base.env, config.strings("Env")?),
        entrypoint: list("Entrypoint", base.entrypoint)?,
        cmd: list("Cmd", base.cmd)?,
        volumes: set("Volumes", base.volumes)?,
        working_dir: text("WorkingDir", base.working_dir)?,
        labels,
        stop_signal: text("StopSignal", base.stop_signal)?,
        healthcheck: health_from_json(config)?.or(base.healthcheck),
        on_build: list("OnBuild", base.on_build)?,
        shell: list("Shell", base.shell)?,
    })
}

/// New variables win over old ones of the same name.
fn merge_env(old: Vec<String>, new: Vec<String>) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or("").to_owned();
    let names: Vec<String> = new.iter().map(|variable| name(variable)).collect();
    let kept = old
        .into_iter()
        .filter(|variable| !names.contains(&name(variable)));
    kept.chain(new.iter().cloned()).collect()
}
