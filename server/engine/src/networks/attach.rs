//! What a start makes of the network, and what its end frees.

use std::{
    collections::BTreeMap,
    fs::File,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use davit_store::{
    NewEvent,
    options::NetworkAttachment,
    table::container::{ContainerRecord, Details},
};
use ipnet::IpNet;

use super::{
    Net, dns,
    link::{LOOPBACK, Links, Pair},
    namespace,
    network::Network,
    port,
    sandbox::{Endpoint, FILE, Published, Sandbox},
    state::Known,
    subnet,
};
use crate::{Error, Kind, Result, names as ids, shim::Bundle, spec::NetworkMode};

/// What the rest of a start needs to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attachment {
    /// The namespace to join.
    pub(crate) path: PathBuf,
    /// The container's own addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Names are answered at 127.0.0.11.
    pub(crate) resolver: bool,
    /// An address of the host, as the container sees it.
    pub(crate) host: Option<IpAddr>,
}

impl Net {
    /// Connects a container that is being started to its networks. None when
    /// it has none of davit's: on the host's, another's, or no network.
    pub(crate) async fn attach(
        &self,
        ns: &str,
        record: &ContainerRecord,
        hostname: &str,
        bundle: &Bundle,
    ) -> Result<Option<Attachment>> {
        let Some(details) = record.details.as_deref() else {
            return Ok(None);
        };
        let mode = NetworkMode::parse(&details.options.network_mode)?;
        if !matches!(mode, NetworkMode::Named(_)) || details.networks.is_empty() {
            return Ok(None);
        }
        // What an earlier run left, if its end was not seen.
        self.detach(&record.id).await;
        let attached = self.make(ns, &record.id, details, hostname, bundle).await;
        match attached {
            Ok(attachment) => Ok(Some(attachment)),
            Err(error) => {
                self.detach(&record.id).await;
                Err(error)
            }
        }
    }

    async fn make(
        &self,
        ns: &str,
        id: &str,
        details: &Details,
        hostname: &str,
        bundle: &Bundle,
    ) -> Result<Attachment> {
        let mut joined = Vec::new();
        for (network, attachment) in self.ordered(ns, details)? {
            let network = self.up(&network).await?;
            joined.push((network, attachment));
        }
        let path = namespace::directory(&self.state_dir).join(id);
        let base = Sandbox {
            ns: ns.to_owned(),
            container: id.to_owned(),
            name: details.name.clone(),
            hostname: hostname.to_owned(),
            path: path.clone(),
            endpoints: Vec::new(),
            ports: Vec::new(),
            files: PathBuf::from(&details.dir),
        };
        let networks: Vec<_> = joined
            .iter()
            .map(|(network, attachment)| (network.as_ref(), attachment))
            .collect();
        let sandbox = self.allocate(base, &networks, details)?;
        bundle.write(FILE, &sandbox)?;
        fail::fail_point!("engine.network.after-intent");
        let inside = {
            let runtime = tokio::runtime::Handle::current();
            namespace::make(&path, || {
                let _inside = runtime.enter();
                Links::here()
            })?
        };
        fail::fail_point!("engine.network.after-namespace");
        let file = File::open(&path)
            .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))?;
        inside.set_up(LOOPBACK).await?;
        for (number, endpoint) in sandbox.endpoints.iter().enumerate() {
            self.plumb(endpoint, &inside, &file, number == 0).await?;
        }
        fail::fail_point!("engine.network.after-links");
        self.rules.write().await?;
        fail::fail_point!("engine.network.after-rules");
        let resolver = joined.iter().any(|(network, _)| !network.is_default());
        if resolver {
            self.serve_names(&sandbox, &details.options.dns)?;
        }
        for endpoint in &sandbox.endpoints {
            self.tell("connect", &sandbox.ns, &endpoint.network, id);
        }
        Ok(Attachment {
            path,
            addresses: own_addresses(&sandbox),
            resolver,
            host: sandbox
                .endpoints
                .first()
                .and_then(|one| one.gateways.first().copied()),
        })
    }

    /// The networks of a container: the one with the default route first.
    fn ordered(&self, ns: &str, details: &Details) -> Result<Vec<(String, NetworkAttachment)>> {
        let known = self.known();
        let first = known
            .find(ns, &details.options.network_mode)
            .map(|network| network.record.id.clone())
            .unwrap_or_default();
        let mut list = Vec::new();
        for (id, attachment) in &details.networks {
            let network = known
                .networks
                .get(id)
                .ok_or_else(|| Error::not_found(format!("network {id} not found")))?;
            let rank = (
                network.record.internal,
                std::cmp::Reverse(attachment.gw_priority),
                *id != first,
                network.record.name.clone(),
            );
            list.push((rank, id.clone(), attachment.clone()));
        }
        list.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(list
            .into_iter()
            .map(|(_, id, attachment)| (id, attachment))
            .collect())
    }

    /// Picks addresses and ports, in one step with making them known: nobody
    /// else gets them from here on.
    fn allocate(
        &self,
        mut sandbox: Sandbox,
        networks: &[(&Network, &NetworkAttachment)],
        details: &Details,
    ) -> Result<Sandbox> {
        let wanted = port::wanted(&details.options, &details.config.exposed_ports)?;
        let mut known = self.known();
        for (number, (network, attachment)) in networks.iter().enumerate() {
            let inner = format!("eth{number}");
            let endpoint = endpoint(&mut known, &self.tag, network, attachment, inner)?;
            sandbox.endpoints.push(endpoint);
        }
        let way_in = sandbox
            .endpoints
            .iter()
            .find(|endpoint| !endpoint.gateways.is_empty());
        if let Some(way_in) = way_in {
            let ipv6 = way_in.addresses.iter().any(|net| net.addr().is_ipv6());
            let taken = |wanted: &Published| {
                known.sandboxes.values().find_map(|other| {
                    other
                        .ports
                        .iter()
                        .any(|held| port::clash(held, wanted))
                        .then_some(other.name.as_str())
                })
            };
            let start = known.last_port.saturating_add(1);
            sandbox.ports = port::allocate(&wanted, ipv6, taken, start, port::is_free)
                .map_err(|taken| taken.error(&sandbox.name, &way_in.id))?;
            if let (Some(last), Some(_)) = (
                sandbox.ports.last(),
                wanted.iter().find(|wanted| wanted.host_ports.is_none()),
            ) {
                known.last_port = last.host_port;
            }
        }
        known
            .sandboxes
            .insert(sandbox.container.clone(), sandbox.clone());
        Ok(sandbox)
    }

    /// Makes the interfaces of one connection.
    pub(super) async fn plumb(
        &self,
        endpoint: &Endpoint,
        inside: &Links,
        namespace: &File,
        default: bool,
    ) -> Result<()> {
        let (bridge, mtu) = {
            let known = self.known();
            let network = known.networks.get(&endpoint.network).ok_or_else(|| {
                Error::not_found(format!("network {} not found", endpoint.network))
            })?;
            (network.record.bridge.clone(), network.mtu()?)
        };
        let index = self.links.index(&bridge).await?.ok_or_else(|| {
            Error::new(
                Kind::Unavailable,
                format!("the bridge {bridge} has just been deleted; start it again"),
            )
        })?;
        let pair = Pair {
            outer: &endpoint.outer,
            inner: &endpoint.inner,
            bridge: index,
            mac: endpoint.mac,
            mtu,
        };
        self.links.pair(&pair, namespace).await?;
        let index = inside.index(&endpoint.inner).await?.ok_or_else(|| {
            Error::internal(format!(
                "the interface {} is gone as soon as it was made",
                endpoint.inner
            ))
        })?;
        inside.set_up(index).await?;
        for net in &endpoint.addresses {
            inside.address(index, net.addr(), net.prefix_len()).await?;
        }
        if default {
            for gateway in &endpoint.gateways {
                inside.default_route(*gateway).await?;
            }
        }
        Ok(())
    }

    pub(super) fn serve_names(&self, sandbox: &Sandbox, servers: &[String]) -> Result<()> {
        let servers = servers
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        let server = dns::start(
            &sandbox.path,
            &sandbox.container,
            servers,
            Arc::clone(&self.known),
        )?;
        self.servers().insert(sandbox.container.clone(), server);
        Ok(())
    }

    /// Frees everything that a run had. A container that had nothing is fine.
    pub(crate) async fn detach(&self, container: &str) {
        let Some(sandbox) = self.known().sandboxes.remove(container) else {
            return;
        };
        drop(self.servers().remove(container));
        if !sandbox.ports.is_empty()
            && let Err(error) = self.rules.write().await
        {
            tracing::warn!(container, error = %error.chain(), "published ports of an ended container still lead somewhere");
        }
        let path = sandbox.path.clone();
        let removed = tokio::task::spawn_blocking(move || namespace::remove(&path)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(container, error = %error.chain(), "the next start removes it");
        }
        for endpoint in &sandbox.endpoints {
            self.tell("disconnect", &sandbox.ns, &endpoint.network, container);
        }
        self.peers.notify_one();
    }

    /// Records an event about a network.
    pub(super) fn tell(&self, action: &str, ns: &str, network: &str, container: &str) {
        let found = self.known().networks.get(network).cloned();
        let Some(network) = found else { return };
        let mut attributes: BTreeMap<String, String> = [
            ("name".to_owned(), network.record.name.clone()),
            ("type".to_owned(), network.record.driver.clone()),
        ]
        .into();
        if !container.is_empty() {
            attributes.insert("container".to_owned(), container.to_owned());
        }
        let event = NewEvent {
            namespace: ns.to_owned(),
            kind: "network".to_owned(),
            action: action.to_owned(),
            id: network.record.id.clone(),
            attributes,
        };
        if let Err(error) = self.store.transaction(|tx| tx.event(event)) {
            tracing::error!(error = %error.chain(), "cannot record an event of a network");
        }
    }

    /// The bridge of a network is up after this.
    pub(super) async fn up(&self, id: &str) -> Result<Arc<Network>> {
        let find = || {
            let known = self.known();
            let network = known.networks.get(id).cloned();
            let up = known.up.contains(id);
            network
                .map(|network| (network, up))
                .ok_or_else(|| Error::not_found(format!("network {id} not found")))
        };
        let (network, up) = find()?;
        if up && self.links.index(&network.record.bridge).await?.is_some() {
            return Ok(network);
        }
        let hold = super::create::Hold::take().await?;
        let (mut network, _) = find()?;
        let there = self.links.index(&network.record.bridge).await?.is_some();
        if !there && network.is_default() {
            network = self.settle_default(network).await?;
        }
        let index = self
            .links
            .bridge(&network.record.bridge, network.mtu()?)
            .await?;
        for subnet in &network.subnets {
            self.links
                .address(index, subnet.gateway, subnet.net.prefix_len())
                .await?;
        }
        set_parameters(&network)?;
        self.known().up.insert(id.to_owned());
        drop(hold);
        self.rules.write().await?;
        Ok(network)
    }
}

/// Addresses for the container's own lines in /etc/hosts.
fn own_addresses(sandbox: &Sandbox) -> Vec<IpAddr> {
    sandbox
        .endpoints
        .iter()
        .flat_map(|endpoint| endpoint.addresses.iter().map(IpNet::addr))
        .collect()
}

/// Picks the addresses of one connection.
pub(super) fn endpoint(
    known: &mut Known,
    tag: &str,
    network: &Network,
    attachment: &NetworkAttachment,
    inner: String,
) -> Result<Endpoint> {
    let mut addresses = Vec::new();
    for one in &network.subnets {
        let text = if one.net.addr().is_ipv4() {
            &attachment.ipv4_address
        } else {
            &attachment.ipv6_address
        };
        let taken = |address| known.is_taken(network, address);
        let address = if text.is_empty() {
            let last = known.last.get(&one.net).copied();
            subnet::next_address(&one.net, &one.range, last, taken)?
        } else {
            let address: IpAddr = text
                .parse()
                .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?;
            if taken(address) {
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "Address already in use: {address} on network {}",
                        network.record.name
                    ),
                ));
            }
            address
        };
        if text.is_empty() {
            known.last.insert(one.net, address);
        }
        let net = IpNet::new(address, one.net.prefix_len())
            .map_err(|error| Error::internal("a subnet's prefix is too long").with_source(error))?;
        addresses.push(net);
    }
    let mac = match attachment.mac_address.as_str() {
        "" => mac_of(&addresses),
        text => parse_mac(text)?,
    };
    let id = ids::new_id();
    Ok(Endpoint {
        outer: format!("{tag}v{}", id.get(..6).unwrap_or(&id)),
        id,
        network: network.record.id.clone(),
        inner,
        gateways: if network.record.internal {
            Vec::new()
        } else {
            network.subnets.iter().map(|one| one.gateway).collect()
        },
        addresses,
        mac,
        attachment: attachment.clone(),
    })
}

/// The same for the same address, so that neighbours need not learn it anew.
fn mac_of(addresses: &[IpNet]) -> [u8; 6] {
    let [a, b, c, d] = match addresses.first().map(IpNet::addr) {
        Some(IpAddr::V4(address)) => address.octets(),
        Some(IpAddr::V6(address)) => {
            let bytes = address.octets();
            [bytes[12], bytes[13], bytes[14], bytes[15]]
        }
        None => Ipv4Addr::UNSPECIFIED.octets(),
    };
    [0x02, 0x42, a, b, c, d]
}

/// Reads "02:42:ac:11:00:02".
pub(super) fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bad = || {
        Error::invalid(format!(
            "invalid mac address: {text:?} is not of the form 02:42:ac:11:00:02"
        ))
    };
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|part| part.len() == 2)
            .ok_or_else(bad)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    match parts.next() {
        // The lowest bit is that of groups.
        None if mac[0] & 1 == 0 => Ok(mac),
        _ => Err(bad()),
    }
}

/// Kernel parameters that a bridge needs.
fn set_parameters(network: &Network) -> Result<()> {
    let set = |path: &str, value: &str| {
        let path = Path::new("/proc/sys/net").join(path);
        let now = std::fs::read_to_string(&path).unwrap_or_default();
        if now.trim() == value {
            return Ok(());
        }
        std::fs::write(&path, value)
            .map_err(|error| Error::io(format!("cannot set {} to {value}", path.display()), error))
    };
    let bridge = &network.record.bridge;
    set("ipv4/ip_forward", "1")?;
    // The host's own loopback address may come out of it: see the rules.
    set(&format!("ipv4/conf/{bridge}/route_localnet"), "1")?;
    if network.record.enable_ipv6 {
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses() {
        assert_eq!(
            parse_mac("02:42:ac:11:00:02").unwrap(),
            [2, 0x42, 0xac, 0x11, 0, 2]
        );
        for bad in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "03:42:ac:11:00:02",
            "zz:42:ac:11:00:02",
            "2:42:ac:11:0:2",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
        let net = "10.0.0.9/24".parse().unwrap();
        assert_eq!(mac_of(&[net]), [2, 0x42, 10, 0, 0, 9]);
    }
}
