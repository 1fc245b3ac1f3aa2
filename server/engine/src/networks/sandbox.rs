//! What a container that runs has of the network: its namespace, where it is
//! connected, and the ports that are published for it. Kept in memory and, as
//! the record of what is about to be made, in the run's bundle.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use davit_store::options::NetworkAttachment;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The file in the bundle.
pub(crate) const FILE: &str = "network.json";

/// The network side of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub(crate) ns: String,
    pub(crate) container: String,
    /// The container's name.
    pub(crate) name: String,
    /// Host name that it was given.
    pub(crate) hostname: String,
    /// The mounted namespace.
    pub(crate) path: PathBuf,
    /// The one with the default route first.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) ports: Vec<Published>,
    /// Where the generated files lie.
    pub(crate) files: PathBuf,
}

/// One connection of a container to a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// Id, 64 hex digits.
    pub(crate) id: String,
    /// Id of the network.
    pub(crate) network: String,
    /// Name of the interface on the host.
    pub(crate) outer: String,
    /// Name of the interface in the container.
    pub(crate) inner: String,
    /// IPv4 first; with the length of the subnet's prefix.
    pub(crate) addresses: Vec<IpNet>,
    /// The network's own addresses, one a subnet; empty when internal.
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) mac: [u8; 6],
    pub(crate) attachment: NetworkAttachment,
}

/// A port of the host that leads to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) container_port: u16,
    pub(crate) protocol: Protocol,
    /// 0.0.0.0 or :: for all addresses.
    pub(crate) host_ip: IpAddr,
    pub(crate) host_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Reads "tcp" (also when empty), "udp" or "sctp".
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "" | "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The number in IP headers.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl Endpoint {
    /// The address of the kind of `like`.
    pub(crate) fn address_like(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses
            .iter()
            .map(IpNet::addr)
            .find(|address| address.is_ipv4() == like.is_ipv4())
    }

    pub(crate) fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

impl Sandbox {
    /// Names under which others on a network find it.
    pub(crate) fn names(&self, endpoint: &Endpoint) -> Vec<String> {
        let short = self.container.get(..12).unwrap_or(&self.container);
        let mut names = vec![self.name.clone()];
        names.extend(endpoint.attachment.aliases.iter().cloned());
        names.push(short.to_owned());
        if !self.hostname.is_empty() {
            names.push(self.hostname.clone());
        }
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.to_lowercase()));
        names
    }

    /// Where a published port leads: the connection that others come in by.
    pub(crate) fn target(&self, port: &Published) -> Option<(&Endpoint, IpAddr)> {
        self.endpoints
            .iter()
            .filter(|endpoint| !endpoint.gateways.is_empty())
            .find_map(|endpoint| Some((endpoint, endpoint.address_like(port.host_ip)?)))
    }
}
