//! Networks as `GET /networks/{id}` gives them, and the network part of a
//! container.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::time;
use crate::v1;

/// A network in docker's shape.
pub fn network(network: &v1::Network) -> Value {
    let subnets: Vec<Value> = network.subnets.iter().map(subnet).collect();
    let members: Map<String, Value> = network
        .members
        .iter()
        .map(|member| (member.container.clone(), self::member(member)))
        .collect();
    let has_v4 = network.subnets.is_empty()
        || network
            .subnets
            .iter()
            .any(|subnet| !subnet.subnet.contains(':'));
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": time(network.created_at.as_ref()),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": has_v4,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": Value::Null,
            "Config": if subnets.is_empty() { Value::Null } else { subnets.into() },
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": members,
        "Options": network.options.iter().collect::<BTreeMap<_, _>>(),
        "Labels": network.labels.iter().collect::<BTreeMap<_, _>>(),
    })
}

fn subnet(subnet: &v1::NetworkSubnet) -> Value {
    let mut value = json!({"Subnet": subnet.subnet});
    if let Some(object) = value.as_object_mut() {
        for (key, text) in [("IPRange", &subnet.ip_range), ("Gateway", &subnet.gateway)] {
            if !text.is_empty() {
                object.insert(key.into(), text.as_str().into());
            }
        }
        if !subnet.auxiliary_addresses.is_empty() {
            object.insert(
                "AuxiliaryAddresses".into(),
                json!(subnet.auxiliary_addresses),
            );
        }
    }
    value
}

fn member(member: &v1::NetworkMember) -> Value {
    json!({
        "Name": member.name,
        "EndpointID": member.endpoint_id,
        "MacAddress": member.mac_address,
        "IPv4Address": member.ipv4_address,
        "IPv6Address": member.ipv6_address,
    })
}

/// `NetworkSettings` of a container; `key` is the path of its namespace.
pub fn network_settings(container: &v1::Container, key: &str) -> Value {
    // docker repeats the default network's values on the outside.
    let default = container
        .endpoints
        .iter()
        .find(|endpoint| endpoint.network == "bridge")
        .cloned()
        .unwrap_or_default();
    json!({
        "Bridge": "",
        "SandboxID": if key.is_empty() { "" } else { container.id.as_str() },
        "SandboxKey": key,
        "Ports": ports(container),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": Value::Null,
        "SecondaryIPv6Addresses": Value::Null,
        "EndpointID": default.endpoint_id,
        "Gateway": default.ipv4_gateway,
        "GlobalIPv6Address": default.ipv6_address,
        "GlobalIPv6PrefixLen": default.ipv6_prefix,
        "IPAddress": default.ipv4_address,
        "IPPrefixLen": default.ipv4_prefix,
        "IPv6Gateway": default.ipv6_gateway,
        "MacAddress": default.mac_address,
        "Networks": endpoints(container),
    })
}

/// A container's networks by their names.
pub fn endpoints(container: &v1::Container) -> Value {
    let all: BTreeMap<&str, Value> = container
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.network.as_str(), self::endpoint(endpoint)))
        .collect();
    json!(all)
}

fn endpoint(endpoint: &v1::NetworkEndpoint) -> Value {
    let asked = endpoint.attachment.clone().unwrap_or_default();
    let list = |items: &[String]| {
        if items.is_empty() {
            Value::Null
        } else {
            json!(items)
        }
    };
    let mut ipam = Map::new();
    for (key, text) in [
        ("IPv4Address", &asked.ipv4_address),
        ("IPv6Address", &asked.ipv6_address),
    ] {
        if !text.is_empty() {
            ipam.insert(key.into(), text.as_str().into());
        }
    }
    json!({
        "IPAMConfig": if ipam.is_empty() { Value::Null } else { ipam.into() },
        "Links": list(&asked.links),
        "Aliases": list(&asked.aliases),
        "MacAddress": endpoint.mac_address,
        "DriverOpts": if asked.driver_opts.is_empty() { Value::Null } else { json!(asked.driver_opts) },
        "GwPriority": asked.gw_priority,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.ipv4_gateway,
        "IPAddress": endpoint.ipv4_address,
        "IPPrefixLen": endpoint.ipv4_prefix,
        "IPv6Gateway": endpoint.ipv6_gateway,
        "GlobalIPv6Address": endpoint.ipv6_address,
        "GlobalIPv6PrefixLen": endpoint.ipv6_prefix,
        "DNSNames": list(&endpoint.dns_names),
    })
}

/// Exposed ports with what leads to them: null for those that nothing does.
fn ports(container: &v1::Container) -> Value {
    let mut all: BTreeMap<String, Option<Vec<Value>>> = BTreeMap::new();
    let runs = container
        .endpoints
        .iter()
        .any(|endpoint| !endpoint.endpoint_id.is_empty());
    if runs {
        for port in &container.exposed_ports {
            let key = if port.contains('/') {
                port.clone()
            } else {
                format!("{port}/tcp")
            };
            all.insert(key, None);
        }
    }
    for port in &container.published {
        all.entry(format!("{}/{}", port.container_port, port.protocol))
            .or_default()
            .get_or_insert_default()
            .push(json!({"HostIp": port.host_ip, "HostPort": port.host_port}));
    }
    json!(all)
}

/// The `Ports` of a container in a list.
pub fn port_list(container: &v1::Container) -> Value {
    let published = container.published.iter().map(|port| {
        json!({
            "IP": port.host_ip,
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port.parse::<u16>().unwrap_or_default(),
            "Type": port.protocol,
        })
    });
    let runs = container
        .endpoints
        .iter()
        .any(|endpoint| !endpoint.endpoint_id.is_empty());
    let exposed = container.exposed_ports.iter().filter_map(|text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let port: u32 = port.parse().ok()?;
        let leads = container
            .published
            .iter()
            .any(|one| one.container_port == port && one.protocol == protocol);
        (runs && !leads).then(|| json!({"PrivatePort": port, "Type": protocol}))
    });
    published.chain(exposed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_dockers_shape() {
        let container = v1::Container {
            endpoints: vec![v1::NetworkEndpoint {
                network: "bridge".into(),
                endpoint_id: "e".into(),
                ipv4_address: "172.17.0.2".into(),
                ipv4_prefix: 16,
                ..Default::default()
            }],
            published: vec![v1::PortBinding {
                container_port: 80,
                protocol: "tcp".into(),
                host_ip: "0.0.0.0".into(),
                host_port: "8080".into(),
            }],
            exposed_ports: vec!["80/tcp".into(), "53/udp".into()],
            ..Default::default()
        };
        let settings = network_settings(&container, "/n");
        assert_eq!(settings["Ports"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(settings["Ports"]["53/udp"], Value::Null);
        assert_eq!(settings["IPAddress"], "172.17.0.2");
        assert_eq!(settings["Networks"]["bridge"]["IPPrefixLen"], 16);
        assert_eq!(port_list(&container)[0]["PublicPort"], 8080);
        assert_eq!(
            port_list(&container)[1],
            json!({"PrivatePort": 53, "Type": "udp"})
        );
    }
}
