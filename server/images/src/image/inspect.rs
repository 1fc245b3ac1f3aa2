//! Everything known about an image, and what a container needs from it.

use davit_store::{
    Result,
    descriptor::{Descriptor, Platform},
};

use super::{ImageDetails, Resolved, layers::layers, lookup::By};
use crate::{
    Digest, Images,
    lease::{Operation, Resource},
    platform::Wanted,
};

impl Images {
    /// Everything known about an image.
    pub async fn inspect(
        &self,
        namespace: &str,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<ImageDetails> {
        let wanted = Wanted::new(platform);
        let found = self.find(namespace, image).await?;
        let facts = match &found.manifest {
            Some(manifest) => self.manifest_facts(namespace, manifest).await?,
            None => self.facts(namespace, &found.record.target, &wanted).await?,
        };
        let snapshots = self.snapshots("")?;
        let layer_paths = snapshots
            .layer_paths(namespace, facts.chain_id())
            .unwrap_or_default();
        let document = async |descriptor: &Descriptor| {
            self.document(namespace, &Digest::parse(&descriptor.digest)?)
                .await
        };
        let own = facts.platform();
        Ok(ImageDetails {
            image: self.image_of(namespace, &found, &wanted).await?,
            config_json: document(&facts.config).await?,
            manifest_json: document(&facts.manifest).await?,
            manifest: facts.manifest.clone(),
            diff_ids: facts.diff_ids.iter().map(ToString::to_string).collect(),
            layers: facts.layers.clone(),
            architecture: own.architecture,
            os: own.os,
            variant: own.variant,
            author: facts.file.author.clone(),
            config: facts.run.clone(),
            snapshotter: snapshots.name().to_owned(),
            chain_id: facts.chain_id().to_owned(),
            comment: facts
                .file
                .history
                .last()
                .map(|step| step.comment.clone())
                .unwrap_or_default(),
            layer_paths: layer_paths
                .into_iter()
                .map(|path| path.display().to_string())
                .collect(),
        })
    }

    /// Resolves a name, id, id prefix or digest for a platform (the host's
    /// when `None`). `NotFound` in docker's words, "No such image: …".
    /// Open an [`Operation`] first when something is going to refer to it, and
    /// call [`Images::unpack`] under it.
    pub async fn resolve(
        &self,
        namespace: &str,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<Resolved> {
        let found = self.find(namespace, image).await?;
        let facts = match &found.manifest {
            Some(manifest) => self.manifest_facts(namespace, manifest).await?,
            None => {
                self.facts(namespace, &found.record.target, &Wanted::new(platform))
                    .await?
            }
        };
        let name = match found.by {
            By::Name => found.record.name,
            By::Digest | By::Id => String::new(),
        };
        Ok(Resolved {
            name,
            target: found.record.target,
            manifest: facts.manifest.clone(),
            config_descriptor: facts.config.clone(),
            image_id: facts.config.digest.clone(),
            config_json: self
                .document(namespace, &Digest::parse(&facts.config.digest)?)
                .await?,
            config: facts.run.clone(),
            platform: facts.platform(),
            layers: facts.layers.clone(),
            diff_ids: facts.diff_ids.clone(),
            chain_id: facts.chain_id().to_owned(),
        })
    }

    /// Sees to it that the image's layers are unpacked; gives the key of the
    /// topmost snapshot, which `op` holds then. `NotFound` when the image or a
    /// layer's blob has gone meanwhile: pull it again.
    pub async fn unpack(&self, op: &Operation, image: &Resolved) -> Result<String> {
        let snapshots = self.snapshots("")?;
        op.hold(Resource::Blob(Digest::parse(&image.manifest.digest)?));
        if image.chain_id.is_empty() {
            return Ok(String::new());
        }
        op.hold(Resource::Snapshot {
            snapshotter: snapshots.name().to_owned(),
            key: image.chain_id.clone(),
        });
        if snapshots.stat(op.namespace(), &image.chain_id).is_ok() {
            return Ok(image.chain_id.clone());
        }
        let layers = layers(&image.layers, &image.diff_ids)?;
        let key = self.run_layers(op, layers, None, |_, _| ()).await?;
        self.keep_snapshot(op, &image.image_id, &key)?;
        Ok(key)
    }

    /// Makes the config keep the snapshot of the image's layers.
    pub(crate) fn keep_snapshot(&self, op: &Operation, image_id: &str, key: &str) -> Result<()> {
        let labels = crate::labels::of_config(self.snapshots("")?.name(), key);
        if labels.is_empty() {
            return Ok(());
        }
        let config = Digest::parse(image_id)?;
        let known = self.content().info(op.namespace(), &config)?;
        if labels
            .iter()
            .all(|(label, value)| known.labels.get(label) == Some(value))
        {
            return Ok(());
        }
        self.content()
            .label(op.namespace(), &config, &labels)
            .map(drop)
    }
}
