//! /networks.

use davit_client::{docker, v1};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    convert::create,
    failure::{Failure, Result},
    fields::Fields,
    reply::{self, Reply},
    request::Call,
};

const FILTERS: &[&str] = &["driver", "type", "name", "id", "label", "scope", "dangling"];

pub(crate) async fn list(call: Call) -> Result<Reply> {
    let filters = call.filters(FILTERS)?.to_v1();
    let request = v1::ListNetworksRequest { filters };
    let networks = call
        .gateway
        .calls()
        .networks()
        .list(request)
        .await?
        .into_inner()
        .networks;
    // A list has no members: docker gives them with one network only.
    let shown = networks.into_iter().map(|mut network| {
        network.members.clear();
        docker::network(&network)
    });
    Ok(reply::ok(&shown.collect()))
}

pub(crate) async fn inspect(call: Call) -> Result<Reply> {
    let request = v1::GetNetworkRequest {
        network: call.name(),
    };
    let network = call
        .gateway
        .calls()
        .networks()
        .get(request)
        .await?
        .into_inner();
    Ok(reply::ok(&docker::network(&network)))
}

pub(crate) async fn create(mut call: Call) -> Result<Reply> {
    let body = call.json().await?.unwrap_or_default();
    let fields = Fields::root(&body, "CreateRequest")?;
    let ipam = fields.object("IPAM")?;
    let subnets = ipam
        .objects("Config")?
        .iter()
        .map(|config| {
            Ok(v1::NetworkSubnet {
                subnet: config.string("Subnet")?,
                gateway: config.string("Gateway")?,
                ip_range: config.string("IPRange")?,
                auxiliary_addresses: config.string_map("AuxiliaryAddresses")?,
            })
        })
        .collect::<Result<_>>()?;
    if fields.flag("ConfigOnly")? || fields.flag("Ingress")? {
        return Err(Failure::not_implemented(
            "networks of a swarm are not supported",
        ));
    }
    let request = v1::CreateNetworkRequest {
        name: fields.string("Name")?,
        driver: fields.string("Driver")?,
        internal: fields.flag("Internal")?,
        enable_ipv6: fields.flag("EnableIPv6")?,
        attachable: fields.flag("Attachable")?,
        labels: fields.string_map("Labels")?,
        options: fields.string_map("Options")?,
        subnets,
    };
    let made = call
        .gateway
        .calls()
        .networks()
        .create(request)
        .await?
        .into_inner();
    let warning = made.warnings.join("\n");
    Ok(reply::json(
        StatusCode::CREATED,
        &json!({"Id": made.id, "Warning": warning}),
    ))
}

pub(crate) async fn connect(mut call: Call) -> Result<Reply> {
    let body = call.json().await?.unwrap_or_default();
    let fields = Fields::root(&body, "ConnectRequest")?;
    let request = v1::ConnectNetworkRequest {
        network: call.name(),
        container: fields.string("Container")?,
        attachment: Some(create::attachment(&fields.object("EndpointConfig")?)?),
    };
    call.gateway.calls().networks().connect(request).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn disconnect(mut call: Call) -> Result<Reply> {
    let body = call.json().await?.unwrap_or_default();
    let fields = Fields::root(&body, "DisconnectRequest")?;
    let request = v1::DisconnectNetworkRequest {
        network: call.name(),
        container: fields.string("Container")?,
        force: fields.flag("Force")?,
    };
    call.gateway.calls().networks().disconnect(request).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn remove(call: Call) -> Result<Reply> {
    let request = v1::RemoveNetworkRequest {
        network: call.name(),
    };
    call.gateway.calls().networks().remove(request).await?;
    Ok(reply::no_content())
}

pub(crate) async fn prune(call: Call) -> Result<Reply> {
    let filters = call.filters(&["label", "label!", "until"])?.to_v1();
    let request = v1::PruneNetworksRequest {
        dry_run: false,
        filters,
    };
    let pruned = call
        .gateway
        .calls()
        .networks()
        .prune(request)
        .await?
        .into_inner();
    let removed = if pruned.removed.is_empty() {
        Value::Null
    } else {
        json!(pruned.removed)
    };
    Ok(reply::ok(&json!({"NetworksDeleted": removed})))
}
