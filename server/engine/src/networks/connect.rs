//! Which networks a container is on: as it is made, and changed while it
//! runs.

use std::{collections::BTreeMap, fs::File};

use davit_store::options::{ContainerOptions, NetworkAttachment};

use super::{
    Net,
    attach::{endpoint, parse_mac},
    link::Links,
    network::Network,
    sandbox::FILE,
};
use crate::{Error, Kind, Result, shim::Bundle, spec::NetworkMode};

impl Net {
    /// The networks that options mean, by their ids. Empty for containers on
    /// the host's network, another container's, or none.
    ///
    /// # Errors
    /// `NotFound` for a network that is not there, `InvalidArgument` for
    /// addresses that cannot be had on it.
    pub(crate) fn resolve(
        &self,
        ns: &str,
        options: &ContainerOptions,
    ) -> Result<BTreeMap<String, NetworkAttachment>> {
        let NetworkMode::Named(primary) = NetworkMode::parse(&options.network_mode)? else {
            return Ok(BTreeMap::new());
        };
        super::port::wanted(options, &[])?;
        let known = self.known();
        let first = known.find(ns, &primary)?;
        let mut resolved = BTreeMap::new();
        let mut given = options.networks.clone();
        // docker's clients name the default network in several ways.
        let mut attachment = [
            primary.as_str(),
            "default",
            &first.record.name,
            &first.record.id,
        ]
        .into_iter()
        .find_map(|name| given.remove(name))
        .unwrap_or_default();
        if attachment.mac_address.is_empty() {
            attachment.mac_address.clone_from(&options.mac_address);
        }
        check(&first, &attachment)?;
        resolved.insert(first.record.id.clone(), attachment);
        for (name, attachment) in given {
            let network = known.find(ns, &name)?;
            check(&network, &attachment)?;
            resolved.insert(network.record.id.clone(), attachment);
        }
        Ok(resolved)
    }

    /// The network that a running or stopped container is to be connected to.
    pub(crate) fn to_connect(
        &self,
        ns: &str,
        reference: &str,
        attachment: &NetworkAttachment,
    ) -> Result<(String, String)> {
        if matches!(reference, "host" | "none") {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!(
                    "cannot connect container to {reference} network - container must be created in {reference} network mode"
                ),
            ));
        }
        let network = self.known().find(ns, reference)?;
        check(&network, attachment)?;
        Ok((network.record.id.clone(), network.record.name.clone()))
    }

    /// Connects a running container to one more network.
    pub(crate) async fn connect(
        &self,
        container: &str,
        network: &str,
        attachment: &NetworkAttachment,
        servers: &[String],
        bundle: &Bundle,
    ) -> Result<()> {
        let network = self.up(network).await?;
        let (sandbox, endpoint, first) = {
            let mut known = self.known();
            let sandbox = known
                .sandboxes
                .get(container)
                .cloned()
                .ok_or_else(|| not_here(container))?;
            // Interfaces that were taken away leave gaps.
            let inner = (0..)
                .map(|number| format!("eth{number}"))
                .find(|name| !sandbox.endpoints.iter().any(|one| one.inner == *name))
                .unwrap_or_default();
            let endpoint = endpoint(&mut known, &self.tag, &network, attachment, inner)?;
            let first = !sandbox.endpoints.iter().any(|one| !one.gateways.is_empty());
            let mut sandbox = sandbox;
            sandbox.endpoints.push(endpoint.clone());
            known
                .sandboxes
                .insert(container.to_owned(), sandbox.clone());
            (sandbox, endpoint, first)
        };
        let made = async {
            bundle.write(FILE, &sandbox)?;
            let inside = Links::within(&sandbox.path)?;
            let file = File::open(&sandbox.path).map_err(|error| {
                Error::io(format!("cannot open {}", sandbox.path.display()), error)
            })?;
            self.plumb(&endpoint, &inside, &file, first).await?;
            let served = self.servers().contains_key(container);
            if !network.is_default() && !served {
                self.serve_names(&sandbox, servers)?;
            }
            Ok(())
        };
        if let Err(error) = made.await {
            self.drop_endpoint(container, &network.record.id, bundle)
                .await;
            return Err(error);
        }
        self.tell("connect", &sandbox.ns, &network.record.id, container);
        self.peers.notify_one();
        self.rules.write().await
    }

    /// Takes a running container off a network.
    pub(crate) async fn disconnect(
        &self,
        container: &str,
        network: &str,
        bundle: &Bundle,
    ) -> Result<()> {
        let ns = self
            .known()
            .sandboxes
            .get(container)
            .map(|one| one.ns.clone());
        let Some(ns) = ns else { return Ok(()) };
        self.drop_endpoint(container, network, bundle).await;
        self.tell("disconnect", &ns, network, container);
        self.peers.notify_one();
        self.next_default(container).await;
        self.rules.write().await
    }

    /// Deletes the interfaces of one connection, and forgets it.
    async fn drop_endpoint(&self, container: &str, network: &str, bundle: &Bundle) {
        let (outer, sandbox) = {
            let mut known = self.known();
            let Some(sandbox) = known.sandboxes.get_mut(container) else {
                return;
            };
            let Some(at) = sandbox
                .endpoints
                .iter()
                .position(|one| one.network == network)
            else {
                return;
            };
            let endpoint = sandbox.endpoints.remove(at);
            (endpoint.outer, sandbox.clone())
        };
        let deleted = self.links.delete(&outer).await;
        if let Err(error) = deleted.and_then(|()| bundle.write(FILE, &sandbox)) {
            tracing::warn!(container, error = %error.chain(), "a connection that is gone has left something");
        }
    }

    /// The way out of a container whose default route may have gone with an
    /// interface: that of the next network.
    async fn next_default(&self, container: &str) {
        let Some(sandbox) = self.known().sandboxes.get(container).cloned() else {
            return;
        };
        let Some(next) = sandbox
            .endpoints
            .iter()
            .find(|one| !one.gateways.is_empty())
        else {
            return;
        };
        let set = async {
            let inside = Links::within(&sandbox.path)?;
            for gateway in &next.gateways {
                inside.default_route(*gateway).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = set.await {
            tracing::warn!(container, error = %error.chain(), "it has no default route");
        }
    }

    /// Tells that a container has another name now.
    pub(crate) fn renamed(&self, container: &str, name: &str) {
        if let Some(sandbox) = self.known().sandboxes.get_mut(container) {
            name.clone_into(&mut sandbox.name);
        }
        self.peers.notify_one();
    }
}

fn not_here(container: &str) -> Error {
    Error::precondition(format!(
        "container {container} has no network of davit's; it was made with network none, host or container"
    ))
}

/// Refuses what cannot be had on a network.
fn check(network: &Network, attachment: &NetworkAttachment) -> Result<()> {
    let fixed = [&attachment.ipv4_address, &attachment.ipv6_address];
    if !attachment.mac_address.is_empty() {
        parse_mac(&attachment.mac_address)?;
    }
    if network.is_default() {
        if fixed.iter().any(|text| !text.is_empty()) {
            return Err(Error::invalid(
                "user specified IP address is supported on user defined networks only",
            ));
        }
        if !attachment.aliases.is_empty() {
            return Err(Error::invalid(
                "network-scoped aliases are only supported for user-defined networks",
            ));
        }
        return Ok(());
    }
    for text in fixed.into_iter().filter(|text| !text.is_empty()) {
        let address: std::net::IpAddr = text
            .parse()
            .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?;
        let fitting = network
            .subnets
            .iter()
            .find(|one| super::subnet::is_usable(&one.net, address));
        match fitting {
            Some(one) if one.automatic => {
                return Err(Error::invalid(
                    "invalid config for network: user specified IP address is supported only when connecting to networks \
                     with user configured subnets",
                ));
            }
            Some(_) => {}
            None => {
                return Err(Error::invalid(format!(
                    "invalid config for network {}: no configured subnet contains IP address {address}",
                    network.record.name
                )));
            }
        }
    }
    Ok(())
}
