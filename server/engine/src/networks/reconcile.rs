//! What a daemon finds at its start: what its containers use is taken up, and
//! what nobody uses is taken off the host.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Net, namespace,
    sandbox::{FILE, Sandbox},
};
use crate::{Result, shim::Bundle};

impl Net {
    /// Takes up the network of a container that runs on.
    pub(crate) fn adopt(&self, container: &str, name: &str, bundle: &Bundle) {
        if let Some(mut sandbox) = bundle.read::<Sandbox>(FILE) {
            name.clone_into(&mut sandbox.name);
            self.known().sandboxes.insert(container.to_owned(), sandbox);
        }
    }

    /// Brings the host in line with the containers that were taken up.
    /// `servers` gives a container's own name servers.
    pub(crate) async fn reconcile(&self, servers: impl Fn(&str) -> Vec<String>) -> Result<()> {
        let links: BTreeSet<String> = self.links.names().await?.into_iter().collect();
        let used = self.drop_half_made(&links);
        for network in &used {
            if let Err(error) = self.up(network).await {
                tracing::error!(network, error = %error.chain(), "containers are on a network that cannot be brought up");
            }
        }
        for name in self.unowned_links(&links) {
            tracing::info!(link = name, "a link belongs to nobody; it is deleted");
            if let Err(error) = self.links.delete(&name).await {
                tracing::warn!(link = name, error = %error.chain(), "cannot delete it");
            }
        }
        self.drop_namespaces();
        // Also when there is nothing to write: the old rules go.
        self.rules.write().await?;
        let sandboxes: Vec<Sandbox> = self.known().sandboxes.values().cloned().collect();
        for sandbox in sandboxes {
            let named = sandbox.endpoints.iter().any(|endpoint| {
                let known = self.known();
                known
                    .networks
                    .get(&endpoint.network)
                    .is_some_and(|one| !one.is_default())
            });
            if named && let Err(error) = self.serve_names(&sandbox, &servers(&sandbox.container)) {
                tracing::error!(container = sandbox.container, error = %error.chain(), "names do not resolve in it");
            }
        }
        self.peers.notify_one();
        Ok(())
    }

    /// Forgets connections that were about to be made; gives the networks
    /// that containers are on.
    fn drop_half_made(&self, links: &BTreeSet<String>) -> BTreeSet<String> {
        let mut known = self.known();
        let networks: BTreeSet<String> = known.networks.keys().cloned().collect();
        for sandbox in known.sandboxes.values_mut() {
            sandbox.endpoints.retain(|endpoint| {
                links.contains(&endpoint.outer) && networks.contains(&endpoint.network)
            });
        }
        known
            .sandboxes
            .values()
            .flat_map(|sandbox| {
                sandbox
                    .endpoints
                    .iter()
                    .map(|endpoint| endpoint.network.clone())
            })
            .collect()
    }

    /// Links with this daemon's mark that no container has, and bridges that
    /// nobody is on: they are made again when somebody needs them.
    fn unowned_links(&self, links: &BTreeSet<String>) -> Vec<String> {
        let known = self.known();
        let (mut used, mut idle) = (BTreeSet::new(), BTreeSet::new());
        for sandbox in known.sandboxes.values() {
            used.extend(sandbox.endpoints.iter().map(|one| one.outer.as_str()));
        }
        for network in known.networks.values() {
            if known.on(&network.record.id).next().is_some() {
                used.insert(network.record.bridge.as_str());
            } else if !network.is_default() {
                idle.insert(network.record.bridge.as_str());
            }
        }
        links
            .iter()
            .map(String::as_str)
            .filter(|name| (self.is_ours(name) || idle.contains(name)) && !used.contains(name))
            .map(str::to_owned)
            .collect()
    }

    /// Whether a link's name is one that only this daemon gives.
    pub(super) fn is_ours(&self, link: &str) -> bool {
        link.starts_with(&self.tag) || link == "davit0" && link == self.default_bridge
    }

    fn drop_namespaces(&self) {
        let directory = namespace::directory(&self.state_dir);
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let id = entry.file_name().to_string_lossy().into_owned();
            if self.known().sandboxes.contains_key(&id) {
                continue;
            }
            if let Err(error) = namespace::remove(&entry.path()) {
                tracing::warn!(error = %error.chain(), "the next start removes it");
            }
        }
    }

    /// The signal that somebody's peers may have changed.
    pub(crate) fn changes(&self) -> Arc<tokio::sync::Notify> {
        Arc::clone(&self.peers)
    }
}
