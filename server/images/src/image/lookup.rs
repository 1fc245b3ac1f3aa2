//! Finding an image by what people type: a name, an id, the start of an id,
//! or a digest.

use davit_store::{
    Error, Result,
    descriptor::Descriptor,
    table::{ImageRecord, Images as Table},
};

use super::names::is_dangling;
use crate::{Digest, Images, Reference, content::Labels, labels};

/// How an image was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// One of its names.
    Name,
    /// A repository and a digest under which it is known there.
    Digest,
    /// Its id, or the start of it.
    Id,
}

/// An image that was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) by: By,
    /// The record that was named; without a name the first of the image's.
    pub(crate) record: ImageRecord,
    /// The manifest that was asked for by its own digest, within an index.
    pub(crate) manifest: Option<Descriptor>,
}

/// All records of one image.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) image_id: String,
    pub(crate) target: Descriptor,
    pub(crate) records: Vec<ImageRecord>,
}

impl Group {
    /// All names, without those that are none.
    pub(crate) fn names(&self) -> Vec<String> {
        let named = self.records.iter().filter(|record| !is_dangling(record));
        named.map(|record| record.name.clone()).collect()
    }
}

impl Images {
    /// Finds an image. `NotFound` in docker's words when there is none,
    /// `InvalidArgument` when the start of an id fits several.
    pub(crate) async fn find(&self, namespace: &str, text: &str) -> Result<Found> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = (1..=64).contains(&hex.len())
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let mut said = text.to_owned();
        // An id is never a name: names have no algorithm and no 64 hex digits.
        if !is_hex || (hex.len() != 64 && hex == text) {
            match Reference::parse(text) {
                Ok(reference) => {
                    if let Some(found) = self.find_by_name(namespace, &reference)? {
                        return Ok(found);
                    }
                    said = reference.or_latest().familiar();
                }
                Err(error) if !is_hex => return Err(error),
                Err(_) => {}
            }
        }
        let found = if is_hex {
            self.find_by_id(namespace, hex).await?
        } else {
            None
        };
        found.ok_or_else(|| no_such(&said))
    }

    fn find_by_name(&self, namespace: &str, reference: &Reference) -> Result<Option<Found>> {
        let name = reference.clone().into_record_name();
        if let Some(record) = self
            .store()
            .get::<Table>((namespace, name.to_string().as_str()))?
        {
            return Ok(Some(Found {
                by: By::Name,
                record,
                manifest: None,
            }));
        }
        let Some(digest) = name.digest() else {
            return Ok(None);
        };
        let repository = name.name();
        for record in self.records(namespace)? {
            if record.target.digest == digest.as_str()
                && self.is_in(namespace, &record, &repository)
            {
                return Ok(Some(Found {
                    by: By::Digest,
                    record,
                    manifest: None,
                }));
            }
        }
        Ok(None)
    }

    /// Whether a repository has the image, or one of its names is in it.
    fn is_in(&self, namespace: &str, record: &ImageRecord, repository: &str) -> bool {
        let of_name = Reference::parse(&record.name).is_ok_and(|name| name.name() == repository);
        of_name
            || labels::all_sources(&self.target_labels(namespace, &record.target))
                .iter()
                .any(|source| source == repository)
    }

    /// Labels of the blob that a name points to.
    pub(crate) fn target_labels(&self, namespace: &str, target: &Descriptor) -> Labels {
        Digest::parse(&target.digest)
            .and_then(|digest| self.content().info(namespace, &digest))
            .map(|info| info.labels)
            .unwrap_or_default()
    }

    async fn find_by_id(&self, namespace: &str, hex: &str) -> Result<Option<Found>> {
        let prefix = format!("sha256:{hex}");
        let mut found: Option<(String, ImageRecord)> = None;
        for record in self.records(namespace)? {
            let id = self.id_of(namespace, &record.target).await;
            if !id.starts_with(&prefix) {
                continue;
            }
            match &found {
                Some((other, _)) if *other != id => {
                    return Err(Error::invalid(format!(
                        "image id prefix {hex} is ambiguous: it fits {other} and {id}"
                    )));
                }
                // A real name tells more than one that is none.
                Some((_, other)) if !is_dangling(other) => {}
                _ => found = Some((id, record)),
            }
        }
        if let Some((_, record)) = found {
            return Ok(Some(Found {
                by: By::Id,
                record,
                manifest: None,
            }));
        }
        self.find_by_manifest(namespace, &prefix).await
    }

    /// Finds by the digest of an index, or of a manifest within one.
    async fn find_by_manifest(&self, namespace: &str, prefix: &str) -> Result<Option<Found>> {
        let records = self.records(namespace)?;
        if let Some(record) = records
            .iter()
            .find(|record| record.target.digest.starts_with(prefix))
        {
            return Ok(Some(Found {
                by: By::Id,
                record: record.clone(),
                manifest: None,
            }));
        }
        for record in records {
            let manifests = self.manifests(namespace, &record.target, 0).await;
            let manifest = manifests
                .unwrap_or_default()
                .into_iter()
                .find(|manifest| manifest.digest.starts_with(prefix));
            if manifest.is_some() {
                return Ok(Some(Found {
                    by: By::Id,
                    record,
                    manifest,
                }));
            }
            // An image for another platform than the host's, by its own id.
            for entry in self
                .manifests(namespace, &record.target, 0)
                .await
                .unwrap_or_default()
            {
                let facts = self.manifest_facts(namespace, &entry).await;
                if facts.is_ok_and(|facts| facts.config.digest.starts_with(prefix)) {
                    return Ok(Some(Found {
                        by: By::Id,
                        record,
                        manifest: Some(entry),
                    }));
                }
            }
        }
        Ok(None)
    }

    /// All image records of a namespace, in order of their names.
    pub(crate) fn records(&self, namespace: &str) -> Result<Vec<ImageRecord>> {
        let records = self.store().scan::<Table>(namespace)?;
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    /// All images of a namespace with their records.
    pub(crate) async fn groups(&self, namespace: &str) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        for record in self.records(namespace)? {
            let known = groups
                .iter_mut()
                .find(|group| group.target.digest == record.target.digest);
            if let Some(group) = known {
                group.records.push(record);
                continue;
            }
            groups.push(Group {
                image_id: self.id_of(namespace, &record.target).await,
                target: record.target.clone(),
                records: vec![record],
            });
        }
        Ok(groups)
    }
}

/// docker's words for an image that is not there.
pub(crate) fn no_such(text: &str) -> Error {
    Error::not_found(format!("No such image: {text}"))
}
