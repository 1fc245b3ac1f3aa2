//! Networks, and what containers have of them.

use std::net::IpAddr;

use davit_engine::model;
use davit_proto::v1;
use davit_store::table::SubnetRecord;

use super::{options::to_network, to_time};

pub(in super::super) fn from_create_network(
    from: v1::CreateNetworkRequest,
) -> model::CreateNetworkRequest {
    let subnet = |from: v1::NetworkSubnet| SubnetRecord {
        subnet: from.subnet,
        gateway: from.gateway,
        ip_range: from.ip_range,
        auxiliary: from.auxiliary_addresses.into_iter().collect(),
        automatic: false,
    };
    model::CreateNetworkRequest {
        name: from.name,
        driver: from.driver,
        internal: from.internal,
        enable_ipv6: from.enable_ipv6,
        attachable: from.attachable,
        labels: from.labels.into_iter().collect(),
        options: from.options.into_iter().collect(),
        subnets: from.subnets.into_iter().map(subnet).collect(),
    }
}

pub(in super::super) fn to_v1_network(from: model::Network) -> v1::Network {
    let subnet = |from: SubnetRecord| v1::NetworkSubnet {
        subnet: from.subnet,
        gateway: from.gateway,
        ip_range: from.ip_range,
        auxiliary_addresses: from.auxiliary.into_iter().collect(),
    };
    v1::Network {
        id: from.id,
        name: from.name,
        driver: from.driver,
        internal: from.internal,
        enable_ipv6: from.enable_ipv6,
        attachable: from.attachable,
        labels: from.labels.into_iter().collect(),
        options: from.options.into_iter().collect(),
        subnets: from.subnets.into_iter().map(subnet).collect(),
        created_at: from.created_at.map(to_time),
        bridge: from.bridge,
        members: from.members.into_iter().map(to_member).collect(),
    }
}

fn to_member(from: model::NetworkMember) -> v1::NetworkMember {
    let text = |ipv4: bool| {
        let found = from
            .addresses
            .iter()
            .find(|net| net.addr().is_ipv4() == ipv4);
        found.map(ToString::to_string).unwrap_or_default()
    };
    v1::NetworkMember {
        ipv4_address: text(true),
        ipv6_address: text(false),
        container: from.container,
        name: from.name,
        endpoint_id: from.endpoint,
        mac_address: from.mac_address,
    }
}

pub(super) fn to_endpoint(from: model::NetworkEndpoint) -> v1::NetworkEndpoint {
    let address = |ipv4: bool| {
        from.addresses
            .iter()
            .find(|net| net.addr().is_ipv4() == ipv4)
    };
    let text = |ipv4| {
        address(ipv4)
            .map(|net| net.addr().to_string())
            .unwrap_or_default()
    };
    let prefix = |ipv4| address(ipv4).map_or(0, |net| net.prefix_len().into());
    let gateway = |ipv4: bool| {
        let found = from
            .gateways
            .iter()
            .find(|address| address.is_ipv4() == ipv4);
        found.map(IpAddr::to_string).unwrap_or_default()
    };
    v1::NetworkEndpoint {
        ipv4_address: text(true),
        ipv4_prefix: prefix(true),
        ipv4_gateway: gateway(true),
        ipv6_address: text(false),
        ipv6_prefix: prefix(false),
        ipv6_gateway: gateway(false),
        network: from.network,
        network_id: from.network_id,
        endpoint_id: from.endpoint_id,
        mac_address: from.mac_address,
        dns_names: from.dns_names,
        attachment: Some(to_network(from.attachment)),
    }
}

pub(super) fn to_published(from: model::PublishedPort) -> v1::PortBinding {
    v1::PortBinding {
        container_port: from.container_port.into(),
        protocol: from.protocol,
        host_ip: from.host_ip.to_string(),
        host_port: from.host_port.to_string(),
    }
}
