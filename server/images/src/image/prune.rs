//! Removing images that nobody uses.

use std::collections::BTreeSet;

use davit_store::{NewEvent, Result, table::Images as Table};

use super::{
    PruneRequest, Pruned, Removed,
    filter::Filters,
    lookup::Group,
    names::{event, familiar, is_dangling},
};
use crate::{Images, platform::Wanted};

/// Keys that a prune can be filtered by. `dangling` is how docker says `all`.
const KEYS: &[&str] = &["label", "label!", "until", "dangling"];

impl Images {
    /// Removes dangling images, or all that no container uses. Images that are
    /// named, or taken up by a container, while it runs stay.
    pub async fn prune(&self, namespace: &str, request: PruneRequest) -> Result<Pruned> {
        let filters = Filters::parse(&request.filters, KEYS)?;
        let all = request.all || filters.dangling() == Some(false);
        let groups = self.prunable(namespace, all, &filters).await?;
        let mut pruned = Pruned::default();
        if request.dry_run {
            pruned.space_reclaimed = self.unique_bytes(namespace, &groups).await?;
        }
        let mut chains = Vec::new();
        for group in &groups {
            chains.push(self.chain_of(namespace, group).await);
            let names = group.records.iter().filter(|record| !is_dangling(record));
            pruned
                .detail
                .untagged
                .extend(names.map(|record| familiar(&record.name)));
        }
        if request.dry_run {
            pruned.detail.deleted = groups.iter().map(|group| group.image_id.clone()).collect();
        } else if !groups.is_empty() {
            pruned.space_reclaimed = self.prune_groups(namespace, &groups, all).await?;
            for (group, chain) in groups.iter().zip(&chains) {
                for id in self.gone(namespace, &group.image_id, chain).await? {
                    if !pruned.detail.deleted.contains(&id) {
                        pruned.detail.deleted.push(id);
                    }
                }
            }
        }
        let Removed { untagged, deleted } = &pruned.detail;
        pruned.removed = untagged.iter().chain(deleted).cloned().collect();
        Ok(pruned)
    }

    /// The images that a prune would take.
    async fn prunable(&self, namespace: &str, all: bool, filters: &Filters) -> Result<Vec<Group>> {
        let users = self.users(namespace)?;
        let wanted = Wanted::new(None);
        let mut groups = Vec::new();
        for group in self.groups(namespace).await? {
            let names = group.names();
            if (!all && !names.is_empty())
                || users.iter().any(|user| user.uses(&group.image_id, &names))
            {
                continue;
            }
            let Ok(mut image) = self.view(namespace, &group, None, &wanted, &users).await else {
                // One that can't be read can't be used either; but whether a
                // filter means it is not known.
                continue;
            };
            if filters.pass_but_dangling(&mut image) {
                groups.push(group);
            }
        }
        Ok(groups)
    }

    async fn prune_groups(&self, namespace: &str, groups: &[Group], all: bool) -> Result<u64> {
        self.store().transaction(|tx| {
            // As they are now: nobody can join them before the change.
            let users = self.users(namespace)?;
            for group in groups {
                let names = group.names();
                if users.iter().any(|user| user.uses(&group.image_id, &names)) {
                    continue;
                }
                let mut rest: BTreeSet<String> = BTreeSet::new();
                for (_, record) in tx.scan::<Table>(namespace)? {
                    if record.target.digest == group.target.digest {
                        rest.insert(record.name);
                    }
                }
                let known: BTreeSet<_> = group
                    .records
                    .iter()
                    .map(|record| record.name.clone())
                    .collect();
                if !all && rest != known {
                    continue;
                }
                for name in &known {
                    tx.delete::<Table>((namespace, name))?;
                    if names.contains(name) {
                        tx.event(event(namespace, "untag", &group.image_id, &familiar(name)))?;
                    }
                }
                if rest.is_subset(&known) {
                    tx.event(event(namespace, "delete", &group.image_id, ""))?;
                }
            }
            Ok(())
        })?;
        self.store().durable().await?;
        let collected = self.collector().run().await?;
        self.store().transaction(|tx| {
            let mut told = NewEvent {
                namespace: namespace.to_owned(),
                kind: "image".to_owned(),
                action: "prune".to_owned(),
                ..NewEvent::default()
            };
            told.attributes
                .insert("reclaimed".to_owned(), collected.bytes.to_string());
            tx.event(told)
        })?;
        Ok(collected.bytes)
    }
}
