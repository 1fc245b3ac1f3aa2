//! Lists of images.

use davit_store::Result;

use super::{Filter, Image, filter::Filters};
use crate::{Images, platform::Wanted};

/// Keys that a list can be filtered by.
const KEYS: &[&str] = &[
    "reference",
    "label",
    "dangling",
    "before",
    "since",
    "until",
    "id",
];

impl Images {
    /// All images that pass the filters, newest first. An image whose blobs
    /// are damaged is left out, with a line in the log.
    pub async fn list(&self, namespace: &str, filters: &[Filter]) -> Result<Vec<Image>> {
        let mut filters = Filters::parse(filters, KEYS)?;
        if let Some(name) = filters.before_image.clone() {
            filters.before(&self.get(namespace, &name, None).await?);
        }
        if let Some(name) = filters.since_image.clone() {
            filters.since(&self.get(namespace, &name, None).await?);
        }
        let users = self.users(namespace)?;
        let wanted = Wanted::new(None);
        let mut images = Vec::new();
        for group in self.groups(namespace).await? {
            match self.view(namespace, &group, None, &wanted, &users).await {
                Ok(mut image) => {
                    if filters.pass(&mut image) {
                        images.push(image);
                    }
                }
                Err(error) => tracing::warn!(
                    namespace,
                    target = group.target.digest,
                    error = error.chain(),
                    "image left out of the list"
                ),
            }
        }
        images.sort_by(|a, b| {
            b.created_at
                .cmp(&a.created_at)
                .then_with(|| a.id.cmp(&b.id))
        });
        Ok(images)
    }
}
