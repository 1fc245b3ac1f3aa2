//! What is known of networks and of who is on them, in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    network::{DEFAULT, Network},
    rules::{Forward, Picture},
    sandbox::{Endpoint, Sandbox},
};
use crate::{Error, Result};

/// Networks and sandboxes.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// By id.
    pub(crate) networks: BTreeMap<String, Arc<Network>>,
    /// Of containers that run or are being started, by the container's id.
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    /// Ids of networks whose bridge is up.
    pub(crate) up: BTreeSet<String>,
    /// The address that was given last, by subnet.
    pub(crate) last: HashMap<IpNet, IpAddr>,
    /// The ephemeral port that was given last.
    pub(crate) last_port: u16,
}

impl Known {
    /// The network called `reference` in a namespace: by name, id, or a
    /// unique prefix of an id.
    pub(crate) fn find(&self, ns: &str, reference: &str) -> Result<Arc<Network>> {
        let reference = match reference {
            "" | "default" => DEFAULT,
            other => other,
        };
        let visible = || {
            self.networks
                .values()
                .filter(|one| one.is_default() || one.ns == ns)
        };
        if let Some(found) = visible().find(|one| one.record.id == reference) {
            return Ok(Arc::clone(found));
        }
        if let Some(found) = visible().find(|one| one.record.name == reference) {
            return Ok(Arc::clone(found));
        }
        let mut matching = visible().filter(|one| one.record.id.starts_with(reference));
        match (matching.next(), matching.next()) {
            (Some(found), None) => Ok(Arc::clone(found)),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "network {reference} is ambiguous: several ids begin with it; give more digits"
            ))),
            (None, _) => Err(Error::not_found(format!("network {reference} not found"))),
        }
    }

    /// Who is on a network.
    pub(crate) fn on<'a>(
        &'a self,
        network: &'a str,
    ) -> impl Iterator<Item = (&'a Sandbox, &'a Endpoint)> {
        self.sandboxes.values().filter_map(move |sandbox| {
            let endpoint = sandbox
                .endpoints
                .iter()
                .find(|one| one.network == network)?;
            Some((sandbox, endpoint))
        })
    }

    /// Whether an address of a network is somebody's.
    pub(crate) fn is_taken(&self, network: &Network, address: IpAddr) -> bool {
        let own = network
            .subnets
            .iter()
            .any(|subnet| subnet.gateway == address || subnet.auxiliary.contains(&address));
        own || self
            .on(&network.record.id)
            .any(|(_, endpoint)| endpoint.addresses.iter().any(|net| net.addr() == address))
    }

    /// What the rules are made from.
    pub(crate) fn picture(&self) -> Picture {
        let bridges = self
            .networks
            .values()
            .filter(|network| self.up.contains(&network.record.id))
            .map(|network| network.bridge())
            .collect();
        let mut forwards = Vec::new();
        for sandbox in self.sandboxes.values() {
            for port in &sandbox.ports {
                if let Some((_, address)) = sandbox.target(port) {
                    forwards.push(Forward {
                        protocol: port.protocol.number(),
                        host_ip: port.host_ip,
                        host_port: port.host_port,
                        address,
                        port: port.container_port,
                    });
                }
            }
        }
        // Those of one address before those of all.
        forwards.sort_by_key(|forward| forward.host_ip.is_unspecified());
        Picture { bridges, forwards }
    }
}
