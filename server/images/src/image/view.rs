//! Images as lists and answers show them.

use davit_store::{
    Result,
    descriptor::{Descriptor, Platform},
};

use super::{
    Image,
    lookup::{Found, Group},
    names::PARENT_LABEL,
    usage::User,
};
use crate::{Images, Reference, labels, platform::Wanted};

impl Images {
    /// Finds one image by name, id, id prefix or digest. `NotFound` when there
    /// is none, `InvalidArgument` when an id prefix is ambiguous.
    pub async fn get(
        &self,
        namespace: &str,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<Image> {
        let found = self.find(namespace, image).await?;
        self.image_of(namespace, &found, &Wanted::new(platform))
            .await
    }

    /// What a name points to.
    pub(crate) async fn image_of(
        &self,
        namespace: &str,
        found: &Found,
        wanted: &Wanted,
    ) -> Result<Image> {
        let group = self.group_of(namespace, found).await?;
        let users = self.users(namespace)?;
        self.view(namespace, &group, found.manifest.as_ref(), wanted, &users)
            .await
    }

    /// All records of the image that was found.
    pub(crate) async fn group_of(&self, namespace: &str, found: &Found) -> Result<Group> {
        let target = &found.record.target;
        let records = self
            .records(namespace)?
            .into_iter()
            .filter(|record| record.target.digest == target.digest)
            .collect();
        Ok(Group {
            image_id: self.id_of(namespace, target).await,
            target: target.clone(),
            records,
        })
    }

    /// An image as it is shown. `manifest` is one of an index that was asked
    /// for by itself.
    pub(crate) async fn view(
        &self,
        namespace: &str,
        group: &Group,
        manifest: Option<&Descriptor>,
        wanted: &Wanted,
        users: &[User],
    ) -> Result<Image> {
        let facts = match manifest {
            Some(manifest) => self.manifest_facts(namespace, manifest).await?,
            None => self.facts(namespace, &group.target, wanted).await?,
        };
        let names = group.names();
        let id = facts.config.digest.clone();
        let containers = users.iter().filter(|user| user.uses(&id, &names)).count();
        let parent = group
            .records
            .iter()
            .find_map(|record| record.labels.get(PARENT_LABEL));
        Ok(Image {
            repo_digests: self.repo_digests(namespace, &group.target, &names),
            target: group.target.clone(),
            created_at: facts.file.created,
            size: i64::try_from(self.unpacked_size(namespace, &facts).await).unwrap_or(i64::MAX),
            labels: facts.run.labels.clone(),
            parent: parent.cloned().unwrap_or_default(),
            containers: i64::try_from(containers).unwrap_or(i64::MAX),
            updated_at: group.records.iter().map(|record| record.updated_at).max(),
            names,
            id,
        })
    }

    /// The digests under which registries know an image: of the repositories
    /// of its names, or of all that it came from when it has no name.
    fn repo_digests(&self, namespace: &str, target: &Descriptor, names: &[String]) -> Vec<String> {
        let repositories: Vec<_> = names
            .iter()
            .filter_map(|name| Reference::parse(name).ok())
            .map(|name| name.name())
            .collect();
        labels::all_sources(&self.target_labels(namespace, target))
            .into_iter()
            .filter(|source| repositories.is_empty() || repositories.contains(source))
            .map(|source| format!("{source}@{}", target.digest))
            .collect()
    }
}
