//! /networks: host and none, which need nothing. Others are not served yet.

use serde_json::{Value, json};

use crate::{
    convert::time,
    failure::{Failure, Result},
    filters::Filters,
    reply::{self, Reply},
    request::Call,
};

/// Name, driver and id. The ids never change: clients keep them.
const PREDEFINED: [(&str, &str, &str); 2] = [
    ("host", "host", "d0c4e5a1f7b2938c6d5e4f3021b0a9988776655443322110ffeeddccbbaa0001"),
    ("none", "null", "d0c4e5a1f7b2938c6d5e4f3021b0a9988776655443322110ffeeddccbbaa0002"),
];

const FILTERS: &[&str] = &["driver", "type", "name", "id", "label", "scope", "dangling"];

/// The id of the network that every host has under this name.
pub(crate) fn predefined_id(name: &str) -> Option<&'static str> {
    PREDEFINED.iter().find(|(known, ..)| *known == name).map(|(_, _, id)| *id)
}

pub(crate) async fn list(call: Call) -> Result<Reply> {
    let filters = call.filters(FILTERS)?;
    let shown = PREDEFINED.iter().filter(|network| passes(network, &filters));
    Ok(reply::ok(&shown.map(to_json).collect()))
}

fn passes((name, driver, id): &(&str, &str, &str), filters: &Filters) -> bool {
    let fits = |key: &str, test: &dyn Fn(&str) -> bool| {
        let mut values = filters.all(key).peekable();
        values.peek().is_none() || values.any(test)
    };
    fits("name", &|value| name.contains(value))
        && fits("driver", &|value| *driver == value)
        && fits("id", &|value| id.starts_with(value))
        && fits("type", &|value| value == "builtin")
        && fits("scope", &|value| value == "local")
        && fits("label", &|_| false)
        && fits("dangling", &|value| matches!(value, "false" | "0"))
}

pub(crate) async fn inspect(call: Call) -> Result<Reply> {
    let name = call.name();
    let found = PREDEFINED
        .iter()
        .find(|(known, _, id)| *known == name || (name.len() > 2 && id.starts_with(&name)));
    match found {
        Some(network) => Ok(reply::ok(&to_json(network))),
        None => Err(Failure::not_found(format!("network {name} not found"))),
    }
}

fn to_json((name, driver, id): &(&str, &str, &str)) -> Value {
    json!({
        "Name": name,
        "Id": id,
        "Created": time::ZERO,
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": null},
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": {},
        "Options": {},
        "Labels": {},
    })
}

/// There is nothing that could be unused.
pub(crate) async fn prune(call: Call) -> Result<Reply> {
    call.filters(&["label", "label!", "until"])?;
    Ok(reply::ok(&json!({ "NetworksDeleted": null })))
}

pub(crate) async fn remove(call: Call) -> Result<Reply> {
    let name = call.name();
    match predefined_id(&name) {
        Some(_) => Err(Failure::new(
            http::StatusCode::FORBIDDEN,
            format!("{name} is a pre-defined network and cannot be removed"),
        )),
        None => Err(Failure::not_found(format!("network {name} not found"))),
    }
}

pub(crate) async fn unsupported(_: Call) -> Result<Reply> {
    Err(Failure::not_implemented(
        "this daemon has the networks host and none only; making networks and joining them is \
         not supported yet",
    ))
}
