//! Making and removing networks: the record is the intent, the bridge is made
//! after it and deleted before it.

use std::{fs::File, sync::Arc};

use davit_store::table::{NetworkRecord, Networks as Table};
use ipnet::IpNet;
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};

use super::{
    Net,
    network::{BRIDGE_NAME, DEFAULT, Network, picked},
    subnet,
};
use crate::{Error, Kind, Result, model::CreateNetworkRequest, names};

/// Names that are never a network of somebody's own.
pub(super) const PREDEFINED: [&str; 3] = [DEFAULT, "host", "none"];

/// The right to pick subnets on this host, one daemon at a time: what is free
/// is read from the kernel, so between reading and taking nobody may take it.
#[derive(Debug)]
pub(super) struct Hold {
    _lock: Flock<File>,
}

impl Hold {
    pub(super) async fn take() -> Result<Self> {
        // The kernel's own list of links: it is there on every host, and
        // nothing has to be made or left behind for it.
        let take = || {
            let failed = |error| Error::io("cannot take the lock on the host's networks", error);
            let file = File::open("/sys/class/net").map_err(failed)?;
            let lock = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| failed(errno.into()))?;
            Ok(Self { _lock: lock })
        };
        tokio::task::spawn_blocking(take).await.map_err(|panic| {
            Error::internal("taking a lock panicked; this is a bug").with_source(panic)
        })?
    }
}

impl Net {
    /// Reads the stored networks, and makes the default one known.
    pub(super) fn load(&self) -> Result<()> {
        let mut default = None;
        for ((ns, id), record) in self.store.scan::<Table>(())? {
            if ns.is_empty() {
                default = Some(record);
                continue;
            }
            match Network::read(&ns, record) {
                Ok(network) => {
                    self.known().networks.insert(id, Arc::new(network));
                }
                Err(error) => {
                    tracing::error!(network = id, error = %error.chain(), "a stored network cannot be used");
                }
            }
        }
        let stored = default.map(|record| Network::read("", record)).transpose();
        let network = match stored.ok().flatten() {
            Some(network) if self.still_fits(&network) => network,
            Some(network) => self.default_network(network.record.id, &[])?,
            // The same id again when the store is lost: containers name it.
            None => {
                let digits = self.tag.get(1..).unwrap_or_default();
                self.default_network(format!("{digits:0>64}"), &[])?
            }
        };
        self.keep_default(network)?;
        Ok(())
    }

    /// Whether the default network is as the configuration has it.
    fn still_fits(&self, network: &Network) -> bool {
        network.record.bridge == self.default_bridge
            && network
                .subnets
                .first()
                .is_some_and(|one| match self.default_subnet {
                    Some(wanted) => one.net == IpNet::V4(wanted),
                    None => one.automatic,
                })
    }

    fn default_network(&self, id: String, taken: &[IpNet]) -> Result<Network> {
        let mut taken = taken.to_vec();
        taken.extend(self.own_subnets());
        let (net, automatic) = match self.default_subnet {
            Some(net) => (net, false),
            None => (subnet::pick(&self.pools, &taken)?, true),
        };
        let mut record = picked(IpNet::V4(net));
        record.automatic = automatic;
        let options = [
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", "true"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            (BRIDGE_NAME, self.default_bridge.as_str()),
            ("com.docker.network.driver.mtu", "1500"),
        ];
        let record = NetworkRecord {
            id,
            name: DEFAULT.to_owned(),
            driver: "bridge".to_owned(),
            bridge: self.default_bridge.clone(),
            options: options
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            subnets: vec![record],
            created_at: Timestamp::now(),
            ..Default::default()
        };
        Network::read("", record)
    }

    fn keep_default(&self, network: Network) -> Result<Arc<Network>> {
        let id = network.record.id.clone();
        let stored = self.store.get::<Table>(("", id.as_str()))?;
        if stored.as_ref() != Some(&network.record) {
            self.store
                .transaction(|tx| tx.put::<Table>(("", id.as_str()), &network.record))?;
        }
        let network = Arc::new(network);
        let mut known = self.known();
        known.networks.retain(|_, other| !other.is_default());
        known.networks.insert(id, Arc::clone(&network));
        Ok(network)
    }

    /// Gives the default network another subnet if the host has a way to its
    /// own one by now: its bridge is not there yet.
    pub(super) async fn settle_default(&self, network: Arc<Network>) -> Result<Arc<Network>> {
        let routes = self.links.routes().await?;
        let in_the_way = network.subnets.iter().any(|one| {
            one.automatic && routes.iter().any(|route| subnet::overlap(&one.net, route))
        });
        if !in_the_way {
            return Ok(network);
        }
        let other = self.default_network(network.record.id.clone(), &routes)?;
        self.keep_default(other)
    }

    /// Subnets of this daemon's own networks, the default one apart.
    fn own_subnets(&self) -> Vec<IpNet> {
        self.known()
            .networks
            .values()
            .filter(|network| !network.is_default())
            .flat_map(|network| network.subnets.iter().map(|one| one.net))
            .collect()
    }

    /// Makes a network; gives its id.
    pub(super) async fn create(&self, ns: &str, request: CreateNetworkRequest) -> Result<String> {
        check(&request)?;
        let hold = Hold::take().await?;
        let network = self.read_request(ns, request).await?;
        let (id, record) = (network.record.id.clone(), network.record.clone());
        self.store
            .transaction(|tx| tx.insert::<Table>((ns, id.as_str()), &record))?;
        self.known().networks.insert(id.clone(), Arc::new(network));
        // It is known to the next picker, and `up` takes the hold itself.
        drop(hold);
        fail::fail_point!("engine.network.create.after-record");
        if let Err(error) = self.up(&id).await {
            if let Err(undone) = self.erase(ns, &id).await {
                tracing::warn!(network = id, error = %undone.chain(), "a network that was not made is not all gone");
            }
            return Err(error);
        }
        self.tell("create", ns, &id, "");
        self.store.durable().await?;
        Ok(id)
    }

    /// The network that a request means, with what it leaves to us picked.
    async fn read_request(&self, ns: &str, request: CreateNetworkRequest) -> Result<Network> {
        if self
            .known()
            .networks
            .values()
            .any(|one| one.ns == ns && one.record.name == request.name)
        {
            return Err(Error::new(
                Kind::Conflict,
                format!("network with name {} already exists", request.name),
            ));
        }
        let id = self.free_id();
        let mut taken = self.links.routes().await?;
        taken.extend(self.own_subnets());
        let mut subnets = request.subnets;
        let is_v6 = |text: &str| text.contains(':');
        if !subnets
            .iter()
            .any(|one| !one.subnet.is_empty() && !is_v6(&one.subnet))
        {
            let net = IpNet::V4(subnet::pick(&self.pools, &taken)?);
            let mut automatic = picked(net);
            // docker takes a gateway without a subnet as it is not meant.
            if let Some(at) = subnets.iter().position(|one| one.subnet.is_empty()) {
                automatic.auxiliary = subnets.remove(at).auxiliary;
            }
            subnets.insert(0, automatic);
        }
        subnets.retain(|one| !one.subnet.is_empty());
        if request.enable_ipv6 && !subnets.iter().any(|one| is_v6(&one.subnet)) {
            subnets.push(picked(IpNet::V6(subnet::local_v6(&id))));
        }
        if !request.enable_ipv6 {
            subnets.retain(|one| !is_v6(&one.subnet));
        }
        subnets.sort_by_key(|one| is_v6(&one.subnet));
        let bridge = match request.options.get(BRIDGE_NAME) {
            Some(name) if !name.is_empty() => name.clone(),
            _ => format!("{}-{}", self.tag, id.get(..6).unwrap_or(&id)),
        };
        let record = NetworkRecord {
            id,
            name: request.name,
            driver: "bridge".to_owned(),
            internal: request.internal,
            enable_ipv6: request.enable_ipv6,
            attachable: request.attachable,
            labels: request.labels,
            options: request.options,
            subnets,
            bridge,
            created_at: Timestamp::now(),
        };
        let mut network = Network::read(ns, record)?;
        let overlaps = |one: &IpNet| taken.iter().any(|other| subnet::overlap(one, other));
        if network.subnets.iter().any(|one| overlaps(&one.net)) {
            return Err(Error::new(
                Kind::PermissionDenied,
                "invalid pool request: Pool overlaps with other one on this address space: the host or another network \
                 has a part of the subnet; give another one or none",
            ));
        }
        if self.links.index(&network.record.bridge).await?.is_some() {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "the host has a link of the name {} already; give the network another {BRIDGE_NAME}",
                    network.record.bridge
                ),
            ));
        }
        for (record, read) in network.record.subnets.iter_mut().zip(&network.subnets) {
            record.subnet = read.net.to_string();
            record.gateway = read.gateway.to_string();
        }
        Ok(network)
    }

    /// An id whose first digits, which name the bridge, are nobody else's.
    fn free_id(&self) -> String {
        loop {
            let id = names::new_id();
            let start = id.get(..6).unwrap_or(&id);
            if !self
                .known()
                .networks
                .keys()
                .any(|other| other.starts_with(start))
            {
                return id;
            }
        }
    }

    /// Removes a network that nobody is on.
    pub(super) async fn remove(&self, ns: &str, reference: &str) -> Result<()> {
        refuse_predefined(reference)?;
        let network = self.known().find(ns, reference)?;
        refuse_predefined(&network.record.name)?;
        {
            let known = self.known();
            let members: Vec<String> = known
                .on(&network.record.id)
                .map(|(sandbox, endpoint)| {
                    format!(
                        "name:{:?} id:{:?}",
                        sandbox.name,
                        endpoint.id.get(..12).unwrap_or_default()
                    )
                })
                .collect();
            if !members.is_empty() {
                return Err(Error::new(
                    Kind::PermissionDenied,
                    format!(
                        "error while removing network: network {} has active endpoints ({}): disconnect or stop them first",
                        network.record.name,
                        members.join(", ")
                    ),
                ));
            }
        }
        let id = network.record.id.clone();
        self.tell("destroy", ns, &id, "");
        self.erase(ns, &id).await?;
        self.store.durable().await
    }

    /// Deletes bridge, rules and record.
    async fn erase(&self, ns: &str, id: &str) -> Result<()> {
        let Some(network) = self.known().networks.get(id).cloned() else {
            return Ok(());
        };
        self.down(&network).await?;
        fail::fail_point!("engine.network.remove.after-bridge");
        self.store
            .transaction(|tx| tx.delete::<Table>((ns, id)).map(|_| ()))?;
        let mut known = self.known();
        known.networks.remove(id);
        for one in &network.subnets {
            known.last.remove(&one.net);
        }
        Ok(())
    }

    /// Takes a network that nobody is on off the host.
    pub(super) async fn down(&self, network: &Network) -> Result<()> {
        self.known().up.remove(&network.record.id);
        self.rules.write().await?;
        // One that the host's owner has made for us stays.
        if network.is_default() && !self.is_ours(&network.record.bridge) {
            return Ok(());
        }
        self.links.delete(&network.record.bridge).await
    }

    /// Takes everything off the host that nobody uses: it is made again when
    /// somebody needs it.
    pub(crate) async fn close(&self) {
        let idle: Vec<Arc<Network>> = {
            let known = self.known();
            let used = |id: &str| known.on(id).next().is_some();
            known
                .networks
                .values()
                .filter(|network| {
                    known.up.contains(&network.record.id) && !used(&network.record.id)
                })
                .cloned()
                .collect()
        };
        for network in idle {
            if let Err(error) = self.down(&network).await {
                tracing::warn!(network = network.record.name, error = %error.chain(), "a bridge that nobody uses is left");
            }
        }
    }
}

pub(super) fn refuse_predefined(name: &str) -> Result<()> {
    if PREDEFINED.contains(&name) {
        return Err(Error::new(
            Kind::PermissionDenied,
            format!("{name} is a pre-defined network and cannot be removed"),
        ));
    }
    Ok(())
}

fn check(request: &CreateNetworkRequest) -> Result<()> {
    if PREDEFINED.contains(&request.name.as_str()) || request.name == "default" {
        return Err(Error::new(
            Kind::PermissionDenied,
            format!(
                "operation is not permitted on predefined {} network",
                request.name
            ),
        ));
    }
    names::check(&request.name).map_err(|_| {
        Error::invalid(format!(
            "invalid network name {:?}: letters, digits, '_', '.' and '-' are allowed, the first a letter or digit",
            request.name
        ))
    })?;
    if request.name.starts_with("container:") {
        return Err(Error::invalid(
            "invalid network name: \"container:\" is no network",
        ));
    }
    match request.driver.as_str() {
        "" | "default" | "bridge" => Ok(()),
        other => Err(Error::new(
            Kind::NotFound,
            format!(
                "could not find plugin {other} in v1 plugin registry: this daemon has the driver bridge"
            ),
        )),
    }
}
