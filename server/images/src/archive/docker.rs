//! docker-archives: `manifest.json` (docker image specification v1.2,
//! "Combined Image JSON + Filesystem Changeset Format").

use davit_store::{Error, Kind, Result, descriptor::Descriptor};
use serde::Deserialize;
use serde_json::json;

use super::{
    contents::{Contents, Stored},
    layout::Listed,
};
use crate::{
    Images, Reference,
    content::blocking,
    image::{
        facts::{Facts, ManifestParts, parse_manifest},
        stored, wire,
    },
    labels,
    lease::Operation,
    media,
};

/// Images in one archive.
pub(super) const MAX_IMAGES: usize = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Images {
    /// The images that a `manifest.json` lists. Layers stay as they came; each
    /// image gets a manifest, the same one each time.
    pub(super) async fn docker_images(
        &self,
        op: &Operation,
        contents: &Contents,
        text: &[u8],
    ) -> Result<Vec<Listed>> {
        let entries: Vec<Entry> = serde_json::from_slice(text).map_err(|error| {
            Error::invalid("manifest.json in the archive is damaged").with_source(error)
        })?;
        if entries.len() > MAX_IMAGES {
            return Err(Error::new(
                Kind::ResourceExhausted,
                "the archive has too many images",
            ));
        }
        let mut listed = Vec::new();
        for entry in entries {
            let target = self.docker_image(op, contents, &entry).await?;
            let names = entry.repo_tags.unwrap_or_default();
            let names = names
                .iter()
                .map(|name| Ok(Reference::parse(name)?.or_latest().to_string()))
                .collect::<Result<Vec<_>>>()?;
            if names.is_empty() {
                listed.push(Listed {
                    name: String::new(),
                    target,
                });
                continue;
            }
            listed.extend(names.into_iter().map(|name| Listed {
                name,
                target: target.clone(),
            }));
        }
        Ok(listed)
    }

    async fn docker_image(
        &self,
        op: &Operation,
        contents: &Contents,
        entry: &Entry,
    ) -> Result<Descriptor> {
        let config = contents.blob(&entry.config)?;
        let config_json = self.document(op.namespace(), &config.digest).await?;
        let mut layers = Vec::new();
        for path in entry.layers.iter().flatten() {
            let layer = contents.blob(path)?;
            layers.push(describe(&self.layer_type(op, layer).await?, layer));
        }
        let config = describe(media::OCI_CONFIG, config);
        let document = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": wire(&config),
            "layers": layers.iter().map(wire).collect::<Vec<_>>(),
        });
        let (target, bytes) = stored(media::OCI_MANIFEST, &document)?;
        let parts: ManifestParts = parse_manifest(&target.digest, &bytes)?;
        Facts::new(target.clone(), parts, &config_json)
            .map_err(|error| Error::invalid(format!("{}: {}", entry.config, error.chain())))?;
        let refers = labels::of_manifest(&config, &layers);
        self.content().put(op, bytes, None, refers).await?;
        Ok(target)
    }

    /// A layer's media type, by its first bytes.
    async fn layer_type(&self, op: &Operation, layer: &Stored) -> Result<String> {
        use std::io::Read as _;
        let (file, _) = self.content().open(op.namespace(), &layer.digest)?;
        let start = blocking(move || {
            let mut start = Vec::new();
            file.take(4)
                .read_to_end(&mut start)
                .map_err(|error| Error::io("a layer can't be read", error))?;
            Ok(start)
        })
        .await?;
        let suffix = match start.as_slice() {
            [0x1f, 0x8b, ..] => "+gzip",
            [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
            _ => "",
        };
        Ok(format!("{}{suffix}", media::OCI_LAYER))
    }
}

fn describe(media_type: &str, blob: &Stored) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: blob.digest.to_string(),
        size: i64::try_from(blob.size).unwrap_or(i64::MAX),
        ..Descriptor::default()
    }
}
