//! Writing archives (`save`): an OCI layout that is a docker-archive too, the
//! same bytes each time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use davit_store::{Error, Result, descriptor::Descriptor, table::Images as Table};
use futures::StreamExt;
use serde_json::{Value, json};

use super::layout::{IMAGE_NAME, REF_NAME};
use crate::{
    Digest, Images, Progress, Reference,
    image::{
        ExportRequest,
        facts::parse_manifest,
        names::{event, is_dangling},
        wire,
    },
    lease::{Operation, Resource},
    media,
    platform::Wanted,
};

const TAR_BLOCK: usize = 512;

/// An image to write, with the names that it gets.
struct Chosen {
    target: Descriptor,
    image_id: String,
    names: Vec<String>,
}

/// All that an archive is made of.
struct Plan {
    blobs: BTreeMap<Digest, u64>,
    index: Bytes,
    manifest: Bytes,
    chosen: Vec<Chosen>,
}

impl Images {
    /// Writes images as one tar stream. A name without a tag means all tags of
    /// the repository. `NotFound` when there is no such image.
    pub fn export(&self, namespace: &str, request: ExportRequest) -> Progress<Bytes> {
        let (images, namespace) = (self.clone(), namespace.to_owned());
        Box::pin(async_stream::try_stream! {
            let op = images.leases().operation(&namespace);
            let plan = images.plan_export(&op, &request).await?;
            yield directory("blobs/")?;
            yield directory("blobs/sha256/")?;
            for (digest, size) in &plan.blobs {
                yield header(&format!("blobs/{}", digest.as_str().replacen(':', "/", 1)), *size)?;
                let mut bytes = images.content().stream(&namespace, digest, 0)?.boxed();
                while let Some(block) = bytes.next().await {
                    yield block?;
                }
                yield padding(*size);
            }
            let layout = Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#);
            for (name, text) in
                [("index.json", &plan.index), ("manifest.json", &plan.manifest), ("oci-layout", &layout)]
            {
                yield header(name, text.len() as u64)?;
                yield text.clone();
                yield padding(text.len() as u64);
            }
            yield Bytes::from_static(&[0; 2 * TAR_BLOCK]);
            images.store().transaction(|tx| {
                for chosen in &plan.chosen {
                    tx.event(event(&namespace, "save", &chosen.image_id, ""))?;
                }
                Ok(())
            })?;
        })
    }

    async fn plan_export(&self, op: &Operation, request: &ExportRequest) -> Result<Plan> {
        if request.images.is_empty() {
            return Err(Error::invalid("no image to export was named"));
        }
        let wanted = Wanted::new(request.platform.as_ref());
        let mut chosen: Vec<Chosen> = Vec::new();
        for image in &request.images {
            for one in self.choose(op, image, &wanted).await? {
                let same = chosen
                    .iter_mut()
                    .find(|other| other.target.digest == one.target.digest);
                match same {
                    Some(other) => {
                        let new = one
                            .names
                            .into_iter()
                            .filter(|name| !other.names.contains(name));
                        let new: Vec<_> = new.collect();
                        other.names.extend(new);
                    }
                    None => chosen.push(one),
                }
            }
        }
        let mut blobs = BTreeMap::new();
        let mut index = Vec::new();
        let mut manifest = Vec::new();
        for one in &chosen {
            self.gather(op, &one.target, &mut blobs, 0).await?;
            index.extend(index_entries(one)?);
            manifest.push(self.docker_entry(op, one, &wanted).await?);
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_INDEX,
            "manifests": index,
        });
        let written = |value: &Value| {
            serde_json::to_vec(value)
                .map(Bytes::from)
                .map_err(|error| Error::internal("a document can't be written").with_source(error))
        };
        Ok(Plan {
            blobs,
            index: written(&index)?,
            manifest: written(&Value::Array(manifest))?,
            chosen,
        })
    }

    /// What one of the asked images means.
    async fn choose(&self, op: &Operation, image: &str, wanted: &Wanted) -> Result<Vec<Chosen>> {
        let namespace = op.namespace();
        let mut records = Vec::new();
        if let Ok(name) = Reference::parse(image) {
            if name.tag().is_none() && name.digest().is_none() {
                records = self.records(namespace)?;
                records.retain(|record| {
                    Reference::parse(&record.name)
                        .is_ok_and(|other| other.name() == name.name() && other.tag().is_some())
                });
            } else {
                let name = name.into_record_name().to_string();
                records.extend(self.store().get::<Table>((namespace, name.as_str()))?);
            }
        }
        if records.is_empty() {
            // By id: the image alone, without its names.
            let found = self.find(namespace, image).await?;
            let target = found.manifest.unwrap_or(found.record.target);
            return Ok(vec![self.chosen(op, target, Vec::new(), wanted).await?]);
        }
        let mut chosen = Vec::new();
        for record in records {
            let names = if is_dangling(&record) {
                Vec::new()
            } else {
                vec![record.name]
            };
            chosen.push(self.chosen(op, record.target, names, wanted).await?);
        }
        Ok(chosen)
    }

    async fn chosen(
        &self,
        op: &Operation,
        target: Descriptor,
        names: Vec<String>,
        wanted: &Wanted,
    ) -> Result<Chosen> {
        op.hold(Resource::Blob(Digest::parse(&target.digest)?));
        let facts = self.facts(op.namespace(), &target, wanted).await?;
        Ok(Chosen {
            image_id: facts.config.digest.clone(),
            target: if wanted.is_strict() {
                facts.manifest.clone()
            } else {
                target
            },
            names,
        })
    }

    /// Adds the blobs of a manifest, or of an index as far as they are here.
    async fn gather(
        &self,
        op: &Operation,
        target: &Descriptor,
        blobs: &mut BTreeMap<Digest, u64>,
        depth: usize,
    ) -> Result<()> {
        let namespace = op.namespace();
        let digest = Digest::parse(&target.digest)?;
        let bytes = self.document(namespace, &digest).await?;
        blobs.insert(digest, bytes.len() as u64);
        if media::is_index(&media::of_manifest(&target.media_type, &bytes)?) {
            for entry in self.index_entries(namespace, target).await?.iter() {
                let here = self
                    .content()
                    .contains(namespace, &Digest::parse(&entry.digest)?)?;
                if here && depth < 3 {
                    Box::pin(self.gather(op, entry, blobs, depth + 1)).await?;
                }
            }
            return Ok(());
        }
        let parts = parse_manifest(&target.digest, &bytes)?;
        for blob in parts.layers.iter().chain([&parts.config]) {
            let digest = Digest::parse(&blob.digest)?;
            let info = self.content().info(namespace, &digest)?;
            blobs.insert(digest, info.size);
        }
        Ok(())
    }

    /// An entry of `manifest.json`, for docker before 25 and others.
    async fn docker_entry(
        &self,
        op: &Operation,
        chosen: &Chosen,
        wanted: &Wanted,
    ) -> Result<Value> {
        let facts = self.facts(op.namespace(), &chosen.target, wanted).await?;
        let path = |digest: &str| format!("blobs/{}", digest.replacen(':', "/", 1));
        let tags: BTreeSet<String> = chosen
            .names
            .iter()
            .filter_map(|name| Reference::parse(name).ok())
            .filter(|name| name.tag().is_some())
            .map(|name| name.familiar())
            .collect();
        let tags = if tags.is_empty() {
            Value::Null
        } else {
            json!(tags)
        };
        Ok(json!({
            "Config": path(&facts.config.digest),
            "RepoTags": tags,
            "Layers": facts.layers.iter().map(|layer| path(&layer.digest)).collect::<Vec<_>>(),
        }))
    }
}

/// Entries of `index.json`: one for each name, or one without.
fn index_entries(chosen: &Chosen) -> Result<Vec<Value>> {
    if chosen.names.is_empty() {
        return Ok(vec![wire(&chosen.target)]);
    }
    let entry = |name: &String| {
        let reference = Reference::parse(name)?;
        let mut entry = wire(&chosen.target);
        entry["annotations"] = json!({ IMAGE_NAME: name, REF_NAME: reference.target() });
        Ok(entry)
    };
    chosen.names.iter().map(entry).collect()
}

fn header(name: &str, size: u64) -> Result<Bytes> {
    entry(name, size, tar::EntryType::Regular, 0o644)
}

fn directory(name: &str) -> Result<Bytes> {
    entry(name, 0, tar::EntryType::Directory, 0o755)
}

/// A header without time or owner: the same archive each time.
fn entry(name: &str, size: u64, kind: tar::EntryType, mode: u32) -> Result<Bytes> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).map_err(|error| {
        Error::internal(format!("{name} does not go into a tar")).with_source(error)
    })?;
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

/// Zeros up to the next block.
fn padding(size: u64) -> Bytes {
    // Less than a block, so it fits.
    let used = usize::try_from(size % TAR_BLOCK as u64).unwrap_or(0);
    let mut zeros = BytesMut::new();
    if used > 0 {
        zeros.resize(TAR_BLOCK - used, 0);
    }
    zeros.freeze()
}
