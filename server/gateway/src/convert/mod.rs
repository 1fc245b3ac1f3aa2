//! Docker's JSON from and to davit.v1. Each conversion is written once, here;
//! nothing in here talks to anybody.

pub(crate) mod auth;
pub(crate) mod config;
pub(crate) mod create;
pub(crate) mod details;
pub(crate) mod event;
pub(crate) mod host_config;
pub(crate) mod image;
pub(crate) mod mount;
pub(crate) mod progress;
pub(crate) mod reference;
pub(crate) mod resources;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod summary;
pub(crate) mod time;

use serde_json::Value;

/// An empty list is null in docker's answers where nobody gave one.
fn list_or_null(items: &[String]) -> Value {
    if items.is_empty() {
        Value::Null
    } else {
        items.iter().cloned().map(Value::from).collect()
    }
}

/// A list of names as a set, `{"name": {}}`; null when there are none.
fn set_or_null(items: &[String]) -> Value {
    if items.is_empty() {
        return Value::Null;
    }
    let empty = || Value::Object(serde_json::Map::new());
    Value::Object(items.iter().map(|item| (item.clone(), empty())).collect())
}

/// A map in the order of its keys, so that two answers are the same.
fn sorted(map: &std::collections::HashMap<String, String>) -> Value {
    let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
    sorted
        .into_iter()
        .map(|(key, value)| (key.clone(), Value::from(value.clone())))
        .collect()
}
