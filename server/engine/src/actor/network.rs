//! Connecting a container to a network, and taking it off one.

use davit_store::options::NetworkAttachment;

use super::{Actor, State};
use crate::{Error, Kind, Result, model::ContainerStatus, spec::NetworkMode};

impl Actor {
    pub(super) async fn connect(
        &mut self,
        reference: &str,
        attachment: NetworkAttachment,
    ) -> Result<()> {
        self.may_change_networks()?;
        let net = &self.shared.net;
        let (id, name) = net.to_connect(&self.ns, reference, &attachment)?;
        let details = self.details();
        if details.networks.contains_key(&id) {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!(
                    "endpoint with name {} already exists in network {name}",
                    details.name
                ),
            ));
        }
        if let State::Running(running) = &self.state {
            let bundle = &running.run.bundle;
            net.connect(&self.id, &id, &attachment, &details.options.dns, bundle)
                .await?;
        }
        self.commit(
            |record| {
                if let Some(details) = record.details.as_deref_mut() {
                    details.networks.insert(id, attachment);
                }
            },
            Vec::new(),
        )?;
        self.publish();
        self.shared.copy_record(&self.record).await;
        self.shared.store.durable().await
    }

    pub(super) async fn disconnect(&mut self, reference: &str) -> Result<()> {
        self.may_change_networks()?;
        let net = &self.shared.net;
        let (id, name) = match net.to_connect(&self.ns, reference, &NetworkAttachment::default()) {
            // A network that is gone is named by its id.
            Err(_) if self.details().networks.contains_key(reference) => {
                (reference.to_owned(), reference.to_owned())
            }
            other => other?,
        };
        if !self.details().networks.contains_key(&id) {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!("container {} is not connected to network {name}", self.id),
            ));
        }
        self.commit(
            |record| {
                if let Some(details) = record.details.as_deref_mut() {
                    details.networks.remove(&id);
                }
            },
            Vec::new(),
        )?;
        if let State::Running(running) = &self.state {
            let bundle = &running.run.bundle;
            self.shared.net.disconnect(&self.id, &id, bundle).await?;
        }
        self.publish();
        self.shared.copy_record(&self.record).await;
        self.shared.store.durable().await
    }

    fn may_change_networks(&self) -> Result<()> {
        if matches!(
            self.status(),
            ContainerStatus::Removing | ContainerStatus::Dead
        ) {
            return Err(self.gone());
        }
        let refused = |text: &str| Err(Error::new(Kind::PermissionDenied, text.to_owned()));
        match NetworkMode::parse(&self.details().options.network_mode)? {
            NetworkMode::Named(_) => Ok(()),
            NetworkMode::Host => refused(
                "container cannot be disconnected from host network or connected to host network",
            ),
            NetworkMode::Container(_) => refused(
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ),
            NetworkMode::None => refused(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ),
        }
    }
}
