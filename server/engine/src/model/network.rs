//! Networks as callers ask for and see them.

use std::{collections::BTreeMap, net::IpAddr};

use davit_store::{options::NetworkAttachment, table::SubnetRecord};
use ipnet::IpNet;
use jiff::Timestamp;

/// See `davit.v1.CreateNetworkRequest`.
#[derive(Debug, Clone, Default)]
pub struct CreateNetworkRequest {
    /// Unique in its namespace.
    pub name: String,
    /// "bridge", also when empty.
    pub driver: String,
    pub internal: bool,
    pub enable_ipv6: bool,
    pub attachable: bool,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Picked when there is none.
    pub subnets: Vec<SubnetRecord>,
}

/// A network and who is on it.
#[derive(Debug, Clone)]
pub struct Network {
    pub id: String,
    pub name: String,
    /// "bridge", "host" or "null".
    pub driver: String,
    pub internal: bool,
    pub enable_ipv6: bool,
    pub attachable: bool,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    pub subnets: Vec<SubnetRecord>,
    /// None for those that every host has.
    pub created_at: Option<Timestamp>,
    /// Name of the bridge on the host; empty for host and none.
    pub bridge: String,
    /// Containers that run.
    pub members: Vec<NetworkMember>,
}

/// A running container on a network.
#[derive(Debug, Clone)]
pub struct NetworkMember {
    pub container: String,
    pub name: String,
    pub endpoint: String,
    pub mac_address: String,
    pub addresses: Vec<IpNet>,
}

/// A container's connection to one network. Without addresses while the
/// container does not run.
#[derive(Debug, Clone, Default)]
pub struct NetworkEndpoint {
    pub network: String,
    pub network_id: String,
    pub endpoint_id: String,
    pub addresses: Vec<IpNet>,
    pub gateways: Vec<IpAddr>,
    pub mac_address: String,
    /// Names under which it is found; empty on the default network.
    pub dns_names: Vec<String>,
    /// What was asked for.
    pub attachment: NetworkAttachment,
}

/// A port of the host that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPort {
    pub container_port: u16,
    /// "tcp", "udp" or "sctp".
    pub protocol: String,
    pub host_ip: IpAddr,
    pub host_port: u16,
}
