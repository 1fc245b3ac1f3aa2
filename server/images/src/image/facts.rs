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
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

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
/// Layers that one image may have (docker and the kernel stop at 127).
const MAX_LAYERS: usize = 1024;
/// Indexes within indexes.
const MAX_DEPTH: usize = 3;
/// Marks manifests of an index that describe another one and run nowhere.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

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

/// The config and the layers that a manifest lists.
#[derive(Debug, Clone)]
pub(crate) struct ManifestParts {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Reads an image's manifest.
///
/// # Errors
/// `DataLoss` when it is not well-formed, `InvalidArgument` when it is the
/// manifest of something else than a container image.
pub(crate) fn parse_manifest(digest: &str, bytes: &[u8]) -> Result<ManifestParts> {
    #[derive(Deserialize)]
    struct Wire {
        config: WireDescriptor,
        #[serde(default)]
        layers: Vec<WireDescriptor>,
    }
    let wire: Wire = serde_json::from_slice(bytes).map_err(|error| malformed(digest, error))?;
    let config = wire.config.checked(digest)?;
    if !media::is_config(&config.media_type) {
        return Err(Error::invalid(format!(
            "manifest {digest} is no container image: its config is of type {:?}",
            config.media_type
        )));
    }
    if wire.layers.len() > MAX_LAYERS {
        return Err(Error::new(
            Kind::ResourceExhausted,
            format!("manifest {digest} has {} layers", wire.layers.len()),
        ));
    }
    let layers = wire
        .layers
        .into_iter()
        .map(|layer| layer.checked(digest))
        .collect::<Result<Vec<_>>>()?;
    if let Some(other) = layers
        .iter()
        .find(|layer| !media::is_layer(&layer.media_type))
    {
        return Err(Error::invalid(format!(
            "manifest {digest}: layer {} is of the unknown type {:?}",
            other.digest, other.media_type
        )));
    }
    Ok(ManifestParts { config, layers })
}

/// Reads the entries of an index.
pub(crate) fn parse_index(digest: &str, bytes: &[u8]) -> Result<Vec<Descriptor>> {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(default)]
        manifests: Vec<WireDescriptor>,
    }
    let wire: Wire = serde_json::from_slice(bytes).map_err(|error| malformed(digest, error))?;
    if wire.manifests.len() > MAX_LAYERS {
        return Err(Error::new(
            Kind::ResourceExhausted,
            format!("index {digest} has {} manifests", wire.manifests.len()),
        ));
    }
    wire.manifests
        .into_iter()
        .map(|entry| entry.checked(digest))
        .collect()
}

fn malformed(digest: &str, error: serde_json::Error) -> Error {
    Error::new(Kind::DataLoss, format!("{digest} is no valid manifest")).with_source(error)
}

/// Whether an entry of an index is no image but describes one.
pub(crate) fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key(REFERENCE_TYPE)
        || entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown")
}

/// A descriptor as it stands in JSON (OCI image spec, descriptor.md).
#[derive(Deserialize)]
pub(crate) struct WireDescriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<WirePlatform>,
}

#[derive(Deserialize)]
struct WirePlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(rename = "os.version", default)]
    os_version: Option<String>,
}

impl WireDescriptor {
    /// Refuses bad digests and sizes, which stand in `holder`.
    pub(crate) fn checked(self, holder: &str) -> Result<Descriptor> {
        Digest::parse(&self.digest).map_err(|error| error.context(holder))?;
        if self.size < 0 {
            return Err(Error::new(
                Kind::DataLoss,
                format!("{holder}: {} has a negative size", self.digest),
            ));
        }
        Ok(Descriptor {
            media_type: self.media_type,
            digest: self.digest,
            size: self.size,
            annotations: self.annotations.unwrap_or_default(),
            platform: self.platform.map(|platform| Platform {
                os: platform.os,
                architecture: platform.architecture,
                variant: platform.variant.unwrap_or_default(),
                os_version: platform.os_version.unwrap_or_default(),
            }),
        })
    }
}

/// A config blob, without the part that containers start from (OCI image
/// spec, config.md).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConfigFile {
    #[serde(deserialize_with = "or_default")]
    pub(crate) architecture: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) os: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) variant: String,
    #[serde(rename = "os.version", deserialize_with = "or_default")]
    pub(crate) os_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) author: String,
    #[serde(deserialize_with = "time")]
    pub(crate) created: Option<Timestamp>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) rootfs: RootFs,
    #[serde(deserialize_with = "or_default")]
    pub(crate) history: Vec<Step>,
}

/// The layers that a config speaks of.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    #[serde(deserialize_with = "or_default")]
    pub(crate) diff_ids: Vec<String>,
}

/// A step of a config's history.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Step {
    #[serde(deserialize_with = "time")]
    pub(crate) created: Option<Timestamp>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) created_by: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) author: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) comment: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) empty_layer: bool,
}

impl ConfigFile {
    /// Reads a config blob. `DataLoss` when it is none.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| {
            Error::new(Kind::DataLoss, "not the JSON of an image config").with_source(error)
        })
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A time that nobody depends on: what can't be read is not known.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
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

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(config_type: &str, layers: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{config_type}","digest":"{EMPTY}","size":0}},"layers":{layers}}}"#
        )
    }

    #[test]
    fn only_images_pass_as_images() {
        let layer = format!(
            r#"[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{EMPTY}","size":3}}]"#
        );
        let parts = parse_manifest("m", manifest(media::OCI_CONFIG, &layer).as_bytes()).unwrap();
        assert_eq!(parts.layers[0].size, 3);
        let chart = manifest("application/vnd.cncf.helm.config.v1+json", &layer);
        assert_eq!(
            parse_manifest("m", chart.as_bytes()).unwrap_err().kind(),
            Kind::InvalidArgument
        );
        for layers in [
            r#"[{"mediaType":"application/json","digest":"sha256:00","size":3}]"#.to_owned(),
            layer.replace(":3", ":-3"),
            layer.replace("layer.v1", "artifact.v1"),
            "7".to_owned(),
        ] {
            assert!(
                parse_manifest("m", manifest(media::OCI_CONFIG, &layers).as_bytes()).is_err(),
                "{layers}"
            );
        }
    }

    #[test]
    fn layers_and_config_must_agree() {
        let parts = parse_manifest("m", manifest(media::OCI_CONFIG, "[]").as_bytes()).unwrap();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"nonsense","history":null,"rootfs":{{"type":"layers","diff_ids":["{EMPTY}"]}}}}"#
        );
        let refused = Facts::new(Descriptor::default(), parts.clone(), config.as_bytes());
        assert!(refused.unwrap_err().to_string().contains("0 layers"));
        let facts = Facts::new(Descriptor::default(), parts, b"{}").unwrap();
        assert_eq!(facts.chain_id(), "");
    }
}
