//! Networks for doors: one function for each call of davit.v1's service
//! `Networks`.
//!
//! Wherever a network is named, its name, its id or a unique prefix of its id
//! is understood.

use davit_store::{options::NetworkAttachment, table::container::Details};

use super::{
    Net,
    create::PREDEFINED,
    network::{self, HOST_ID, NONE_ID},
    state::Known,
};
use crate::{
    Engine, Error, Kind, Result,
    actor::Command,
    model::{
        CreateNetworkRequest, Filter, Network, NetworkEndpoint, NetworkMember, Pruned,
        PublishedPort,
    },
};

/// The handle that [`Engine::networks`] gives.
#[derive(Debug, Clone)]
pub struct Networks {
    engine: Engine,
}

const LIST_KEYS: [&str; 7] = ["driver", "type", "name", "id", "label", "scope", "dangling"];
const PRUNE_KEYS: [&str; 3] = ["label", "label!", "until"];

impl Networks {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    fn net(&self) -> &Net {
        &self.engine.shared().net
    }

    /// Makes a network; gives its id. `Conflict` when the name is taken,
    /// `PermissionDenied` when the subnet is.
    pub async fn create(&self, ns: &str, request: CreateNetworkRequest) -> Result<String> {
        let (engine, ns) = (self.engine.clone(), ns.to_owned());
        // To its end, also when the caller goes away.
        let work = tokio::spawn(async move { engine.shared().net.create(&ns, request).await });
        work.await.unwrap_or_else(|panic| {
            Err(
                Error::internal("the making of a network panicked; this is a bug")
                    .with_source(panic),
            )
        })
    }

    /// One network.
    pub fn get(&self, ns: &str, reference: &str) -> Result<Network> {
        if let Some(found) = self.fixed(ns).into_iter().find(|one| {
            one.name == reference || reference.len() > 2 && one.id.starts_with(reference)
        }) {
            return Ok(found);
        }
        let known = self.net().known();
        let network = known.find(ns, reference)?;
        Ok(view(&known, &network, ns))
    }

    /// The networks that pass the filters, by name.
    pub fn list(&self, ns: &str, filters: &[Filter]) -> Result<Vec<Network>> {
        refuse_unknown(filters, &LIST_KEYS)?;
        let mut all = self.fixed(ns);
        {
            let known = self.net().known();
            let visible = known
                .networks
                .values()
                .filter(|one| one.is_default() || one.ns == ns);
            all.extend(visible.map(|network| view(&known, network, ns)));
        }
        let used = self.used(ns);
        all.retain(|network| passes(network, filters, used.contains(&network.id)));
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Removes a network. `PermissionDenied` while containers that run are on
    /// it, and for those that every host has.
    pub async fn remove(&self, ns: &str, reference: &str) -> Result<()> {
        let (engine, ns, reference) = (self.engine.clone(), ns.to_owned(), reference.to_owned());
        let work = tokio::spawn(async move { engine.shared().net.remove(&ns, &reference).await });
        work.await.unwrap_or_else(|panic| {
            Err(
                Error::internal("the removal of a network panicked; this is a bug")
                    .with_source(panic),
            )
        })
    }

    /// Removes the networks that no container is made for. Filters: label,
    /// label!, until.
    pub async fn prune(&self, ns: &str, filters: &[Filter], dry_run: bool) -> Result<Pruned> {
        refuse_unknown(filters, &PRUNE_KEYS)?;
        let until = match filters.iter().find(|filter| filter.key == "until") {
            Some(filter) => Some(crate::filter::parse_until(&filter.value)?),
            None => None,
        };
        let used = self.used(ns);
        let mut pruned = Pruned::default();
        for network in self.list(ns, &[])? {
            let young = until.is_some_and(|until| network.created_at.is_some_and(|at| at > until));
            if PREDEFINED.contains(&network.name.as_str())
                || used.contains(&network.id)
                || young
                || !labels_pass(&network, filters)
            {
                continue;
            }
            if !dry_run {
                match self.remove(ns, &network.id).await {
                    Ok(()) => {}
                    // Somebody uses or removes it just now.
                    Err(error)
                        if matches!(error.kind(), Kind::PermissionDenied | Kind::NotFound) =>
                    {
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            pruned.removed.push(network.name);
        }
        Ok(pruned)
    }

    /// Connects a container to a network, at once when it runs.
    pub async fn connect(
        &self,
        ns: &str,
        network: &str,
        container: &str,
        attachment: NetworkAttachment,
    ) -> Result<()> {
        let handle = self.engine.shared().index.find(ns, container)?;
        handle
            .ask(|reply| Command::Connect(network.to_owned(), Box::new(attachment), reply))
            .await
    }

    /// Takes a container off a network. With `force` a container that is not
    /// on it (or not there) is no error.
    pub async fn disconnect(
        &self,
        ns: &str,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<()> {
        let done = match self.engine.shared().index.find(ns, container) {
            Ok(handle) => {
                handle
                    .ask(|reply| Command::Disconnect(network.to_owned(), reply))
                    .await
            }
            Err(error) => Err(error),
        };
        match done {
            Err(error)
                if force && matches!(error.kind(), Kind::NotFound | Kind::PermissionDenied) =>
            {
                self.get(ns, network).map(|_| ())
            }
            other => other,
        }
    }

    /// Host and none.
    fn fixed(&self, ns: &str) -> Vec<Network> {
        let network = |id: &str, name: &str, driver: &str| Network {
            id: id.to_owned(),
            name: name.to_owned(),
            driver: driver.to_owned(),
            internal: false,
            enable_ipv6: false,
            attachable: false,
            labels: Default::default(),
            options: Default::default(),
            subnets: Vec::new(),
            created_at: None,
            bridge: String::new(),
            members: self.members_by_mode(ns, name),
        };
        vec![
            network(HOST_ID, "host", "host"),
            network(NONE_ID, "none", "null"),
        ]
    }

    /// Containers that run on the host's network, or on none.
    fn members_by_mode(&self, ns: &str, mode: &str) -> Vec<NetworkMember> {
        self.engine
            .shared()
            .index
            .list(ns)
            .into_iter()
            .map(|handle| handle.now())
            .filter(|view| {
                view.is_running()
                    && view
                        .details()
                        .is_some_and(|details| details.options.network_mode == mode)
            })
            .map(|view| NetworkMember {
                container: view.record.id.clone(),
                name: view.name().to_owned(),
                endpoint: String::new(),
                mac_address: String::new(),
                addresses: Vec::new(),
            })
            .collect()
    }

    /// Networks that containers, running or not, are made for.
    fn used(&self, ns: &str) -> std::collections::BTreeSet<String> {
        self.engine
            .shared()
            .index
            .list(ns)
            .into_iter()
            .flat_map(|handle| {
                let view = handle.now();
                view.details()
                    .map(|details| details.networks.keys().cloned().collect::<Vec<_>>())
                    .unwrap_or_default()
            })
            .collect()
    }
}

impl Net {
    /// A container's connections, with addresses while it runs.
    pub(crate) fn endpoints(&self, container: &str, details: &Details) -> Vec<NetworkEndpoint> {
        let mode = details.options.network_mode.as_str();
        if let Some((name, id)) = [("host", HOST_ID), ("none", NONE_ID)]
            .into_iter()
            .find(|(name, _)| *name == mode)
        {
            return vec![NetworkEndpoint {
                network: name.to_owned(),
                network_id: id.to_owned(),
                ..Default::default()
            }];
        }
        let known = self.known();
        let sandbox = known.sandboxes.get(container);
        details
            .networks
            .iter()
            .map(|(id, attachment)| {
                let network = known.networks.get(id);
                let mut shown = NetworkEndpoint {
                    network: network.map_or_else(|| id.clone(), |one| one.record.name.clone()),
                    network_id: id.clone(),
                    attachment: attachment.clone(),
                    ..Default::default()
                };
                let live = sandbox.and_then(|sandbox| {
                    let endpoint = sandbox.endpoints.iter().find(|one| one.network == *id)?;
                    Some((sandbox, endpoint))
                });
                if let Some((sandbox, endpoint)) = live {
                    shown.endpoint_id.clone_from(&endpoint.id);
                    shown.addresses.clone_from(&endpoint.addresses);
                    shown.gateways.clone_from(&endpoint.gateways);
                    shown.mac_address = endpoint.mac_text();
                    if network.is_some_and(|one| !one.is_default()) {
                        shown.dns_names = sandbox.names(endpoint);
                    }
                }
                shown
            })
            .collect()
    }

    /// The ports that lead to a container now.
    pub(crate) fn published(&self, container: &str) -> Vec<PublishedPort> {
        let known = self.known();
        let ports = known
            .sandboxes
            .get(container)
            .map(|one| one.ports.as_slice());
        ports
            .unwrap_or_default()
            .iter()
            .map(|port| PublishedPort {
                container_port: port.container_port,
                protocol: port.protocol.as_str().to_owned(),
                host_ip: port.host_ip,
                host_port: port.host_port,
            })
            .collect()
    }
}

fn view(known: &Known, network: &network::Network, ns: &str) -> Network {
    let record = &network.record;
    let members = known
        .on(&record.id)
        .filter(|(sandbox, _)| sandbox.ns == ns)
        .map(|(sandbox, endpoint)| NetworkMember {
            container: sandbox.container.clone(),
            name: sandbox.name.clone(),
            endpoint: endpoint.id.clone(),
            mac_address: endpoint.mac_text(),
            addresses: endpoint.addresses.clone(),
        })
        .collect();
    Network {
        id: record.id.clone(),
        name: record.name.clone(),
        driver: record.driver.clone(),
        internal: record.internal,
        enable_ipv6: record.enable_ipv6,
        attachable: record.attachable,
        labels: record.labels.clone(),
        options: record.options.clone(),
        subnets: record.subnets.clone(),
        created_at: Some(record.created_at),
        bridge: record.bridge.clone(),
        members,
    }
}

fn refuse_unknown(filters: &[Filter], keys: &[&str]) -> Result<()> {
    match filters
        .iter()
        .find(|filter| !keys.contains(&filter.key.as_str()))
    {
        Some(filter) => Err(Error::invalid(format!("invalid filter '{}'", filter.key))),
        None => Ok(()),
    }
}

fn passes(network: &Network, filters: &[Filter], used: bool) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let mut values = filters.iter().filter(|filter| filter.key == key).peekable();
        values.peek().is_none() || values.any(|filter| test(&filter.value))
    };
    let builtin = PREDEFINED.contains(&network.name.as_str());
    any("name", &|value| network.name.contains(value))
        && any("driver", &|value| network.driver == value)
        && any("id", &|value| network.id.starts_with(value))
        && any("type", &|value| {
            value == if builtin { "builtin" } else { "custom" }
        })
        && any("scope", &|value| value == "local")
        && any("dangling", &|value| {
            matches!(value, "true" | "1") != (used || builtin)
        })
        && labels_pass(network, filters)
}

fn labels_pass(network: &Network, filters: &[Filter]) -> bool {
    let has = |text: &str| match text.split_once('=') {
        Some((key, value)) => network.labels.get(key).is_some_and(|own| own == value),
        None => network.labels.contains_key(text),
    };
    filters.iter().all(|filter| match filter.key.as_str() {
        "label" => has(&filter.value),
        "label!" => !has(&filter.value),
        _ => true,
    })
}
