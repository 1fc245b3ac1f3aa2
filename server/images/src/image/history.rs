//! The steps that made an image.

use davit_store::{Result, descriptor::Platform};

use super::HistoryEntry;
use crate::{Images, platform::Wanted};

impl Images {
    /// The steps that made an image, newest first.
    pub async fn history(
        &self,
        namespace: &str,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<HistoryEntry>> {
        let wanted = Wanted::new(platform);
        let found = self.find(namespace, image).await?;
        let facts = match &found.manifest {
            Some(manifest) => self.manifest_facts(namespace, manifest).await?,
            None => self.facts(namespace, &found.record.target, &wanted).await?,
        };
        let names = self.group_of(namespace, &found).await?.names();
        let mut layers = facts.chain.iter().zip(&facts.layers);
        let mut entries = Vec::new();
        for step in &facts.file.history {
            // A history that speaks of more layers than there are is not worth
            // an error.
            let layer = if step.empty_layer {
                None
            } else {
                layers.next()
            };
            let size = match layer {
                None => 0,
                Some((chain_id, layer)) => match self.layer_size(namespace, chain_id).await {
                    Some(size) => i64::try_from(size).unwrap_or(i64::MAX),
                    None => layer.size,
                },
            };
            entries.push(HistoryEntry {
                id: "<missing>".to_owned(),
                created_at: step.created,
                created_by: step.created_by.clone(),
                size,
                comment: step.comment.clone(),
                author: step.author.clone(),
                empty_layer: step.empty_layer,
                names: Vec::new(),
            });
        }
        entries.reverse();
        if let Some(newest) = entries.first_mut() {
            newest.id.clone_from(&facts.config.digest);
            newest.names = names;
        }
        Ok(entries)
    }
}
