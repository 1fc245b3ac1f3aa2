//! What an image's index, manifest and config say, read once and remembered:
//! blobs never change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use davit_store::{
    Error, Kind, Result,
    descriptor::{Descriptor, Platform},
    image_config::ImageConfig,
};

pub(crate) use super::document::{
    ConfigFile, ManifestParts, WireDescriptor, is_attestation, parse_index, parse_manifest,
};
use crate::{
    Digest, Images,
    digest::chain_ids,
    media,
    platform::{self, Wanted},
};

/// Largest index, manifest or config that is read, in bytes.
pub(crate) const MAX_DOCUMENT: u64 = 8 << 20;
/// Images remembered.
const MAX_CACHED: usize = 256;
/// Documents above this many bytes are read anew each time: strangers write
/// them, and memory is ours.
const MAX_REMEMBERED: usize = 256 << 10;
/// Indexes within indexes.
const MAX_DEPTH: usize = 3;

/// One image for one platform, as its manifest and config have it.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) manifest: Descriptor,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) file: ConfigFile,
    pub(crate) run: ImageConfig,
    pub(crate) diff_ids: Vec<Digest>,
    /// Keys of the layers' snapshots, lowest first.
    pub(crate) chain: Vec<Digest>,
}

impl Facts {
    /// Key of the topmost snapshot; empty without layers.
    pub(crate) fn chain_id(&self) -> &str {
        self.chain.last().map_or("", Digest::as_str)
    }

    pub(crate) fn platform(&self) -> Platform {
        platform::normalize(&Platform {
            os: self.file.os.clone(),
            architecture: self.file.architecture.clone(),
            variant: self.file.variant.clone(),
            os_version: self.file.os_version.clone(),
        })
    }

    /// Checks manifest and config against each other.
    pub(crate) fn new(
        manifest: Descriptor,
        parts: ManifestParts,
        config_json: &[u8],
    ) -> Result<Self> {
        let ManifestParts { config, layers } = parts;
        let what = |error: Error| error.context(format!("config {}", config.digest));
        let file = ConfigFile::parse(config_json).map_err(what)?;
        let run = ImageConfig::from_config_blob(config_json).map_err(what)?;
        let diff_ids = file
            .rootfs
            .diff_ids
            .iter()
            .map(|text| Digest::parse(text))
            .collect::<Result<Vec<_>>>()
            .map_err(what)?;
        if diff_ids.len() != layers.len() {
            return Err(Error::new(
                Kind::DataLoss,
                format!(
                    "manifest {} has {} layers, but its config {} speaks of {}",
                    manifest.digest,
                    layers.len(),
                    config.digest,
                    diff_ids.len()
                ),
            ));
        }
        let chain = chain_ids(&diff_ids);
        Ok(Self {
            manifest,
            config,
            layers,
            file,
            run,
            diff_ids,
            chain,
        })
    }
}

/// What was read already.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    facts: HashMap<Digest, Arc<Facts>>,
    indexes: HashMap<Digest, Arc<Vec<Descriptor>>>,
    sizes: HashMap<(String, Digest), u64>,
}

impl Cache {
    fn with<T>(&self, look: impl FnOnce(&mut Cached) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Puts an entry into a bounded map.
fn remember<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, bound: usize, key: K, value: V) {
    if map.len() >= bound {
        map.clear();
    }
    map.insert(key, value);
}

impl Images {
    /// The image that `target` is on the wanted platform. Without a platform
    /// that the caller named, one that does not fit the host is better than
    /// none. `NotFound` when no manifest that fits is here.
    pub(crate) async fn facts(
        &self,
        namespace: &str,
        target: &Descriptor,
        wanted: &Wanted,
    ) -> Result<Arc<Facts>> {
        let not_here = || {
            Error::not_found(format!(
                "image {} was found but does not provide the specified platform ({})",
                target.digest,
                platform::format(wanted.platform())
            ))
        };
        if !self.is_index(namespace, target).await? {
            let facts = self.manifest_facts(namespace, target).await?;
            let fits = wanted.rank(&facts.platform()).is_some();
            return if fits || !wanted.is_strict() {
                Ok(facts)
            } else {
                Err(not_here())
            };
        }
        let mut best: Option<(u32, Arc<Facts>)> = None;
        let mut broken = None;
        for entry in self.manifests(namespace, target, 0).await? {
            let rank = match &entry.platform {
                Some(platform) => wanted.rank(platform),
                // Its config tells.
                None => Some(0),
            };
            let rank = match rank {
                Some(rank) => rank,
                None if wanted.is_strict() => continue,
                None => u32::MAX,
            };
            if best.as_ref().is_some_and(|(than, _)| *than <= rank) {
                continue;
            }
            match self.manifest_facts(namespace, &entry).await {
                Ok(facts) => {
                    let rank = match wanted.rank(&facts.platform()) {
                        Some(real) if entry.platform.is_none() => real,
                        None if entry.platform.is_none() && wanted.is_strict() => continue,
                        _ => rank,
                    };
                    if best.as_ref().is_none_or(|(than, _)| rank < *than) {
                        best = Some((rank, facts));
                    }
                }
                Err(error) => broken = Some(error),
            }
        }
        match (best, broken) {
            (Some((_, facts)), _) => Ok(facts),
            (None, Some(error)) => Err(error),
            (None, None) => Err(not_here()),
        }
    }

    /// The images of an index that are here, those of indexes within it too;
    /// a manifest is its own only one.
    pub(crate) async fn manifests(
        &self,
        namespace: &str,
        target: &Descriptor,
        depth: usize,
    ) -> Result<Vec<Descriptor>> {
        if !self.is_index(namespace, target).await? {
            return Ok(vec![target.clone()]);
        }
        let mut found = Vec::new();
        if depth >= MAX_DEPTH {
            return Ok(found);
        }
        for entry in self.index_entries(namespace, target).await?.iter() {
            let digest = Digest::parse(&entry.digest)?;
            if is_attestation(entry) || !self.content().contains(namespace, &digest)? {
                continue;
            }
            if media::is_index(&entry.media_type) {
                found.extend(Box::pin(self.manifests(namespace, entry, depth + 1)).await?);
            } else {
                found.push(entry.clone());
            }
        }
        Ok(found)
    }

    /// The entries of an index, here or not.
    pub(crate) async fn index_entries(
        &self,
        namespace: &str,
        index: &Descriptor,
    ) -> Result<Arc<Vec<Descriptor>>> {
        let digest = Digest::parse(&index.digest)?;
        if let Some(entries) = self
            .cache()
            .with(|cached| cached.indexes.get(&digest).cloned())
        {
            return Ok(entries);
        }
        let bytes = self.document(namespace, &digest).await?;
        let entries = Arc::new(parse_index(&index.digest, &bytes)?);
        if bytes.len() > MAX_REMEMBERED {
            return Ok(entries);
        }
        self.cache().with(|cached| {
            remember(&mut cached.indexes, MAX_CACHED, digest, entries.clone());
        });
        Ok(entries)
    }

    /// What one manifest says.
    pub(crate) async fn manifest_facts(
        &self,
        namespace: &str,
        manifest: &Descriptor,
    ) -> Result<Arc<Facts>> {
        let digest = Digest::parse(&manifest.digest)?;
        let cached = self
            .cache()
            .with(|cached| cached.facts.get(&digest).cloned());
        if let Some(facts) = cached {
            return Ok(facts);
        }
        let bytes = self.document(namespace, &digest).await?;
        let parts = parse_manifest(&manifest.digest, &bytes)?;
        let config = Digest::parse(&parts.config.digest)?;
        let config_json = self.document(namespace, &config).await?;
        let facts = Arc::new(Facts::new(manifest.clone(), parts, &config_json)?);
        if bytes.len() + config_json.len() > MAX_REMEMBERED {
            return Ok(facts);
        }
        self.cache().with(|cached| {
            remember(&mut cached.facts, MAX_CACHED, digest, facts.clone());
        });
        Ok(facts)
    }

    /// The bytes of an index, manifest or config.
    pub(crate) async fn document(&self, namespace: &str, digest: &Digest) -> Result<Bytes> {
        self.content().read(namespace, digest, MAX_DOCUMENT).await
    }

    /// Whether a target is an index; its bytes decide when its name does not.
    async fn is_index(&self, namespace: &str, target: &Descriptor) -> Result<bool> {
        if media::is_index(&target.media_type) || media::is_manifest(&target.media_type) {
            return Ok(media::is_index(&target.media_type));
        }
        let bytes = self
            .document(namespace, &Digest::parse(&target.digest)?)
            .await?;
        Ok(media::is_index(&media::of_manifest(
            &target.media_type,
            &bytes,
        )?))
    }

    /// Bytes of an image's unpacked layers; of the packed ones when they are
    /// not unpacked.
    pub(crate) async fn unpacked_size(&self, namespace: &str, facts: &Facts) -> u64 {
        let mut size = 0;
        for (layer, chain_id) in facts.layers.iter().zip(&facts.chain) {
            size += match self.layer_size(namespace, chain_id).await {
                Some(size) => size,
                None => u64::try_from(layer.size).unwrap_or(0),
            };
        }
        size
    }

    /// Bytes of one unpacked layer. It does not change once it is committed.
    pub(crate) async fn layer_size(&self, namespace: &str, chain_id: &Digest) -> Option<u64> {
        let snapshots = self.snapshots("").ok()?;
        let key = (snapshots.name().to_owned(), chain_id.clone());
        if let Some(size) = self.cache().with(|cached| cached.sizes.get(&key).copied()) {
            return Some(size);
        }
        let usage = snapshots.usage(namespace, chain_id.as_str()).await.ok()?;
        self.cache().with(|cached| {
            remember(&mut cached.sizes, 16 * MAX_CACHED, key, usage.size);
        });
        Some(usage.size)
    }
}
