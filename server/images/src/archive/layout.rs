//! OCI layouts: `index.json` (OCI image spec, image-layout.md).

use davit_store::{Error, Kind, Result, descriptor::Descriptor};

use super::{contents::Contents, docker::MAX_IMAGES};
use crate::{
    Digest, Images, Reference,
    image::facts::{is_attestation, parse_index, parse_manifest},
    labels,
    lease::Operation,
    media,
};

/// The whole name of an image (containerd's and docker's annotation).
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";
/// The tag, or all of the name, of an image (OCI's annotation).
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes within indexes.
const MAX_DEPTH: usize = 3;

/// An image that an archive lists.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// Full name; empty when it has none.
    pub(super) name: String,
    pub(super) target: Descriptor,
}

impl Images {
    /// The images that an `index.json` lists.
    pub(super) async fn layout_images(
        &self,
        op: &Operation,
        contents: &Contents,
        text: &[u8],
        fallback: Option<&Reference>,
    ) -> Result<Vec<Listed>> {
        let entries = parse_index("index.json", text)
            .map_err(|error| Error::invalid(format!("the archive: {}", error.chain())))?;
        if entries.len() > MAX_IMAGES {
            return Err(Error::new(
                Kind::ResourceExhausted,
                "the archive has too many images",
            ));
        }
        let mut listed = Vec::new();
        for mut entry in entries {
            if is_attestation(&entry) {
                continue;
            }
            let path = format!("blobs/{}", entry.digest.replacen(':', "/", 1));
            contents.blob(&path)?;
            let name = name_of(&entry, fallback)?;
            entry.media_type = self.label_tree(op, &entry, 0).await?;
            entry.annotations.clear();
            entry.platform = None;
            listed.push(Listed {
                name,
                target: entry,
            });
        }
        Ok(listed)
    }

    /// Checks a manifest or index and makes it keep what it refers to; gives
    /// its media type. What an index lists need not be in the archive.
    async fn label_tree(&self, op: &Operation, entry: &Descriptor, depth: usize) -> Result<String> {
        let namespace = op.namespace();
        let digest = Digest::parse(&entry.digest)?;
        let bytes = self.document(namespace, &digest).await?;
        if i64::try_from(bytes.len()).ok() != Some(entry.size) {
            return Err(Error::invalid(format!(
                "{digest} in the archive has {} bytes; its index says {}",
                bytes.len(),
                entry.size
            )));
        }
        let media_type = media::of_manifest(&entry.media_type, &bytes)
            .map_err(|error| error.context(format!("{digest} in the archive")))?;
        if !media::is_index(&media_type) {
            if let Ok(parts) = parse_manifest(&entry.digest, &bytes) {
                let refers = labels::of_manifest(&parts.config, &parts.layers);
                self.content().label(namespace, &digest, &refers)?;
            }
            return Ok(media_type);
        }
        let entries = parse_index(&entry.digest, &bytes)?;
        self.content()
            .label(namespace, &digest, &labels::of_index(&entries))?;
        for child in entries.iter().filter(|_| depth < MAX_DEPTH) {
            if self
                .content()
                .contains(namespace, &Digest::parse(&child.digest)?)?
            {
                Box::pin(self.label_tree(op, child, depth + 1)).await?;
            }
        }
        Ok(media_type)
    }
}

/// The name that an entry of `index.json` gives its image.
fn name_of(entry: &Descriptor, fallback: Option<&Reference>) -> Result<String> {
    if let Some(name) = entry.annotations.get(IMAGE_NAME) {
        return Ok(Reference::parse(name)?.or_latest().to_string());
    }
    let Some(name) = entry.annotations.get(REF_NAME) else {
        return Ok(String::new());
    };
    if name.contains(['/', ':']) {
        return Ok(Reference::parse(name)?.or_latest().to_string());
    }
    // A tag alone: of the repository that the caller names, if it does.
    match fallback {
        Some(fallback) => Ok(fallback.with_tag(name)?.to_string()),
        None => Ok(String::new()),
    }
}
