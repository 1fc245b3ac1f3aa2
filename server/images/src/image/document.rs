//! Indexes, manifests and configs: their JSON, read strictly where it decides
//! what runs and leniently where it only tells.

use davit_store::{
    Error, Kind, Result,
    descriptor::{Descriptor, Platform},
};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use crate::{Digest, media};

/// Layers that one image may have (docker and the kernel stop at 127).
const MAX_LAYERS: usize = 1024;
/// Marks manifests of an index that describe another one and run nowhere.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

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

#[cfg(test)]
mod tests {
    use super::{super::facts::Facts, *};

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
