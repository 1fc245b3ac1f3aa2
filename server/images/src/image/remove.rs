//! Taking names away, and images with their last name.
//!
//! By docker's rules. A name is only untagged while the image has others. By
//! its id an image goes when all of its names are in one repository, or by
//! force. A running container keeps its image; a stopped one keeps it unless
//! force is used.

use std::collections::BTreeSet;

use davit_store::{
    Error, Kind, Result, Tx,
    table::{ImageRecord, Images as Table},
};

use super::{
    Removed,
    lookup::{By, Found, Group},
    names::{PARENT_LABEL, dangling_name, event, familiar, is_dangling},
    usage::{User, short},
};
use crate::{Images, Reference, content::Labels};

/// What is to happen to records.
struct Plan {
    /// Names to take away.
    untag: Vec<String>,
    /// The image goes with them.
    delete: bool,
}

impl Images {
    /// Takes a name away and, with the last name, the image. `NotFound` when
    /// there is no such image; `Conflict` in docker's words when a container
    /// or other names are in the way.
    pub async fn remove(&self, namespace: &str, image: &str, force: bool) -> Result<Removed> {
        let found = self.find(namespace, image).await?;
        let group = self.group_of(namespace, &found).await?;
        let chain = self.chain_of(namespace, &group).await;
        // Nobody can start to use the image between the look and the change.
        let plan = self.store().transaction(|tx| {
            let plan = self.plan(namespace, image, &found, &group, force)?;
            untag_in(tx, namespace, &group, &plan)?;
            Ok(plan)
        })?;
        let mut removed = Removed {
            untagged: plan.untag.iter().map(|name| familiar(name)).collect(),
            deleted: Vec::new(),
        };
        fail::fail_point!("images.remove.after-untag");
        self.store().durable().await?;
        if plan.delete {
            self.collector().run().await?;
            removed.deleted = self.gone(namespace, &group.image_id, &chain).await?;
        }
        Ok(removed)
    }

    fn plan(
        &self,
        namespace: &str,
        asked: &str,
        found: &Found,
        group: &Group,
        force: bool,
    ) -> Result<Plan> {
        let names = group.names();
        let users: Vec<_> = self
            .users(namespace)?
            .into_iter()
            .filter(|user| user.uses(&group.image_id, &names))
            .collect();
        let all = || {
            group
                .records
                .iter()
                .map(|record| record.name.clone())
                .collect::<Vec<_>>()
        };
        if found.by == By::Name && !is_dangling(&found.record) {
            return plan_by_name(asked, &found.record, group, &names, &users, force);
        }
        if found.by == By::Digest {
            // docker takes away the digest only; it goes with the image here.
            let repository = Reference::parse(asked)?.repository();
            let others = names.iter().any(|name| !is_of(name, &repository));
            if others {
                let untag = names
                    .into_iter()
                    .filter(|name| is_of(name, &repository))
                    .collect();
                return Ok(Plan {
                    untag,
                    delete: false,
                });
            }
        }
        let repositories: BTreeSet<_> = names
            .iter()
            .filter_map(|name| repository_of(name))
            .collect();
        let tags = names.iter().filter(|name| !name.contains('@')).count();
        let single = repositories.len() <= 1 && tags <= 1;
        if !single && !force {
            return Err(conflict(
                group,
                "must be forced",
                "image is referenced in multiple repositories",
            ));
        }
        check_users(group, &users, force)?;
        Ok(Plan {
            untag: all(),
            delete: true,
        })
    }

    /// Chain ids of the image's layers, topmost first.
    pub(crate) async fn chain_of(&self, namespace: &str, group: &Group) -> Vec<String> {
        let wanted = crate::platform::Wanted::new(None);
        match self.facts(namespace, &group.target, &wanted).await {
            Ok(facts) => facts.chain.iter().rev().map(ToString::to_string).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// What nothing holds any more: the image, and those of its layers whose
    /// snapshots have gone.
    pub(crate) async fn gone(
        &self,
        namespace: &str,
        image_id: &str,
        chain: &[String],
    ) -> Result<Vec<String>> {
        let snapshots = self.snapshots("")?;
        let mut gone = vec![image_id.to_owned()];
        for chain_id in chain {
            let found = snapshots.stat(namespace, chain_id);
            if found.is_err_and(|error| error.kind() == Kind::NotFound) {
                gone.push(chain_id.clone());
            }
        }
        Ok(gone)
    }
}

fn plan_by_name(
    asked: &str,
    record: &ImageRecord,
    group: &Group,
    names: &[String],
    users: &[User],
    force: bool,
) -> Result<Plan> {
    let mut untag = vec![record.name.clone()];
    // The digests of a repository go with its last tag.
    if !record.name.contains('@') {
        let siblings: Vec<_> = names
            .iter()
            .filter(|name| repository_of(name) == repository_of(&record.name))
            .collect();
        let tags = siblings.iter().filter(|name| !name.contains('@')).count();
        if tags == 1 {
            untag.extend(
                siblings
                    .into_iter()
                    .filter(|name| name.contains('@'))
                    .cloned(),
            );
        }
    }
    let last = names.iter().all(|name| untag.contains(name));
    if !last {
        return Ok(Plan {
            untag,
            delete: false,
        });
    }
    if let (Some(user), false) = (users.first(), force) {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "conflict: unable to remove repository reference \"{asked}\" (must force) - container {} is using its referenced image {}",
                short(&user.id),
                short(&group.image_id)
            ),
        ));
    }
    // A running container keeps the image, without a name.
    let delete = !users.iter().any(|user| user.running);
    Ok(Plan { untag, delete })
}

fn check_users(group: &Group, users: &[User], force: bool) -> Result<()> {
    if let Some(user) = users.iter().find(|user| user.running) {
        let why = format!(
            "image is being used by running container {}",
            short(&user.id)
        );
        return Err(conflict(group, "cannot be forced", &why));
    }
    if let (Some(user), false) = (users.first(), force) {
        let why = format!(
            "image is being used by stopped container {}",
            short(&user.id)
        );
        return Err(conflict(group, "must be forced", &why));
    }
    Ok(())
}

fn conflict(group: &Group, remedy: &str, why: &str) -> Error {
    let text = format!(
        "conflict: unable to delete {} ({remedy}) - {why}",
        short(&group.image_id)
    );
    Error::new(Kind::Conflict, text)
}

/// Takes the names away, with an event for each, and one for the image.
fn untag_in(tx: &Tx<'_>, namespace: &str, group: &Group, plan: &Plan) -> Result<()> {
    for name in &plan.untag {
        let Some(record) = tx.get::<Table>((namespace, name))? else {
            continue;
        };
        if record.target.digest != group.target.digest {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "{} was pointed to another image meanwhile; try again",
                    familiar(name)
                ),
            ));
        }
        tx.delete::<Table>((namespace, name))?;
        if !is_dangling(&record) {
            tx.event(event(namespace, "untag", &group.image_id, &familiar(name)))?;
        }
    }
    let rest = tx.scan::<Table>(namespace)?;
    let rest: Vec<_> = rest
        .into_iter()
        .filter(|(_, record)| record.target.digest == group.target.digest)
        .collect();
    if plan.delete {
        // Made since we looked: then the image stays, by that name.
        if rest.is_empty() {
            tx.event(event(namespace, "delete", &group.image_id, ""))?;
        }
        return Ok(());
    }
    if rest.is_empty() {
        keep(tx, namespace, group)?;
    }
    Ok(())
}

/// Keeps an image that a running container uses, without a name.
fn keep(tx: &Tx<'_>, namespace: &str, group: &Group) -> Result<()> {
    let now = jiff::Timestamp::now();
    let name = dangling_name(&group.target.digest);
    let mut labels = Labels::from([(super::DANGLING_LABEL.to_owned(), "true".to_owned())]);
    let parent = group
        .records
        .iter()
        .find_map(|record| record.labels.get(PARENT_LABEL));
    if let Some(parent) = parent {
        labels.insert(PARENT_LABEL.to_owned(), parent.clone());
    }
    let record = ImageRecord {
        name: name.clone(),
        target: group.target.clone(),
        labels,
        created_at: group
            .records
            .first()
            .map_or(now, |record| record.created_at),
        updated_at: now,
    };
    tx.put::<Table>((namespace, &name), &record)
}

fn repository_of(name: &str) -> Option<String> {
    Reference::parse(name)
        .ok()
        .map(|reference| reference.name())
}

fn is_of(name: &str, repository: &Reference) -> bool {
    repository_of(name).is_some_and(|name| name == repository.name())
}
