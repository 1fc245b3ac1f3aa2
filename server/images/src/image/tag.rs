//! One more name for an image.

use davit_store::{Error, Result};

use super::{
    Image,
    names::{Pointing, event},
};
use crate::{Images, Reference, lease::Resource, platform::Wanted};

impl Images {
    /// Gives an image one more name. A name that pointed to another image is
    /// taken from it. `NotFound` when there is no such image,
    /// `InvalidArgument` when the name is none.
    pub async fn tag(&self, namespace: &str, source: &str, target: &str) -> Result<Image> {
        let reference = Reference::parse(target)
            .map_err(|error| error.context(format!("can't tag {target:?}")))?;
        if reference.digest().is_some() {
            return Err(Error::invalid(
                "refusing to create a tag with a digest reference",
            ));
        }
        let name = reference.or_latest();
        let op = self.leases().operation(namespace);
        let mut found = self.find(namespace, source).await?;
        // One image of an index by its own id becomes the name's only one.
        if let Some(manifest) = found.manifest.take() {
            found.record.target = manifest;
        }
        let digest = crate::Digest::parse(&found.record.target.digest)?;
        op.hold(Resource::Blob(digest.clone()));
        self.content().info(namespace, &digest)?;
        let image_id = self.id_of(namespace, &found.record.target).await;
        self.point(Pointing {
            namespace,
            name: &name.to_string(),
            target: &found.record.target,
            image_id: &image_id,
            labels: Default::default(),
            event: event(namespace, "tag", &image_id, &name.familiar()),
        })
        .await?;
        self.image_of(namespace, &found, &Wanted::new(None)).await
    }
}
