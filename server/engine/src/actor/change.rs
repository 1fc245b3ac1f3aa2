//! Rename and update.

use davit_store::options::{Resources, RestartPolicy};

use super::{Actor, State};
use crate::{
    Error, Result,
    events::Draft,
    model::{ContainerStatus, UpdateContainerRequest},
    names,
    policy::Restart,
    spec::resources::{self, Occasion},
};

impl Actor {
    pub(super) async fn rename(&mut self, new_name: &str) -> Result<()> {
        if matches!(
            self.status(),
            ContainerStatus::Removing | ContainerStatus::Dead
        ) {
            return Err(self.gone());
        }
        let new_name = names::check(new_name)?.to_owned();
        let old_name = self.details().name;
        if new_name == old_name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        let reservation = self
            .shared
            .index
            .reserve_for(&self.ns, &new_name, &self.id)?;
        let old = format!("/{old_name}");
        self.commit(
            |record| {
                if let Some(details) = record.details.as_deref_mut() {
                    details.name = new_name;
                }
            },
            vec![Draft::new("rename").with("oldName", old)],
        )?;
        reservation.keep();
        self.shared
            .index
            .release_name(&self.ns, &old_name, &self.id);
        self.shared.net.renamed(&self.id, &self.details().name);
        self.publish();
        self.shared.copy_record(&self.record).await;
        self.shared.store.durable().await
    }

    pub(super) async fn update(&mut self, request: UpdateContainerRequest) -> Result<Vec<String>> {
        if matches!(
            self.status(),
            ContainerStatus::Removing | ContainerStatus::Dead
        ) {
            return Err(Error::precondition(format!(
                "container {} is marked for removal and cannot be \"update\"",
                self.id
            )));
        }
        let details = self.details();
        if let Some(policy) = &request.restart_policy {
            check_policy(policy, details.options.auto_remove)?;
        }
        let mut warnings = Vec::new();
        let resources = match &request.resources {
            Some(changes) => Some(
                self.new_limits(&details.options.resources, changes, &mut warnings)
                    .await?,
            ),
            None => None,
        };
        self.commit(
            |record| {
                for (key, value) in &request.labels {
                    if value.is_empty() {
                        record.labels.remove(key);
                    } else {
                        record.labels.insert(key.clone(), value.clone());
                    }
                }
                let Some(details) = record.details.as_deref_mut() else {
                    return;
                };
                if let Some(resources) = resources {
                    details.options.resources = resources;
                }
                if let Some(policy) = request.restart_policy {
                    details.options.restart_policy = policy;
                }
            },
            vec![Draft::new("update")],
        )?;
        self.publish();
        self.shared.copy_record(&self.record).await;
        self.shared.store.durable().await?;
        Ok(warnings)
    }

    /// The limits with `changes` on top, in force already when it runs.
    async fn new_limits(
        &self,
        limits: &Resources,
        changes: &Resources,
        warnings: &mut Vec<String>,
    ) -> Result<Resources> {
        let oom_kill_disable = self.details().options.oom_kill_disable;
        let new = resources::merge(limits, changes);
        let adapted =
            resources::adapt(&new, oom_kill_disable, &self.shared.host, Occasion::Update)?;
        warnings.extend(adapted.warnings.iter().cloned());
        if let State::Running(running) = &self.state {
            let bytes = serde_json::to_vec(&adapted.to_spec()?)
                .map_err(|error| Error::internal("cannot encode limits").with_source(error))?;
            running
                .run
                .client()
                .update(bytes)
                .await
                .map_err(|error| error.context(format!("cannot update container {}", self.id)))?;
        }
        Ok(new)
    }
}

fn check_policy(policy: &RestartPolicy, auto_remove: bool) -> Result<()> {
    if Restart::parse(policy)? != Restart::No && auto_remove {
        return Err(Error::invalid(
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ));
    }
    Ok(())
}
