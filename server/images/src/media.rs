//! Media types, and what a manifest's bytes are by them.
//!
//! OCI image spec, media-types.md; docker's image manifest v2, schema 2.

use davit_store::{Error, Kind, Result};
use serde::Deserialize;

/// OCI index.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI manifest.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image config.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, a plain tar.
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// docker's index.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// docker's manifest.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// docker's image config.
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// What registries are asked for.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*";

/// Whether it lists manifests.
pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// Whether it is one image's manifest.
pub(crate) fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether it is an image's config.
pub(crate) fn is_config(media_type: &str) -> bool {
    // The last is what some early registries said of docker's.
    matches!(
        media_type,
        OCI_CONFIG | DOCKER_CONFIG | "application/octet-stream"
    )
}

/// Whether it is a layer of files, whatever its compression.
pub(crate) fn is_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.")
}

/// What only decides about the form of a manifest.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "schemaVersion", default)]
    schema_version: i64,
    #[serde(rename = "mediaType", default)]
    media_type: String,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(rename = "fsLayers", default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// The media type of a manifest or index, from what the sender calls it (may
/// be empty) and what it says itself.
///
/// # Errors
/// `Unimplemented` for docker's schema 1, `DataLoss` when it is both a
/// manifest and an index or neither, or when the two names disagree.
pub(crate) fn of_manifest(said: &str, bytes: &[u8]) -> Result<String> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| {
        Error::new(Kind::DataLoss, "the manifest is not valid JSON").with_source(error)
    })?;
    if shape.schema_version == 1 || shape.fs_layers.is_some() {
        return Err(Error::new(
            Kind::Unimplemented,
            "the image has docker's manifest schema 1, which is no longer supported; push it again with a docker of 1.10 or later",
        ));
    }
    let index = shape.manifests.is_some();
    let manifest = shape.layers.is_some() || shape.config.is_some();
    if index == manifest {
        // One that reads as either would be checked as one and run as the other.
        return Err(Error::new(
            Kind::DataLoss,
            "the manifest is neither an image nor an index",
        ));
    }
    let fits = |media_type: &str| {
        if index {
            is_index(media_type)
        } else {
            is_manifest(media_type)
        }
    };
    let known = |media_type: &str| is_index(media_type) || is_manifest(media_type);
    for name in [shape.media_type.as_str(), said] {
        if known(name) && !fits(name) {
            return Err(Error::new(
                Kind::DataLoss,
                format!("the manifest calls itself {name}, which it is not"),
            ));
        }
    }
    let name = [shape.media_type.as_str(), said]
        .into_iter()
        .find(|name| fits(name));
    Ok(name
        .unwrap_or(if index { OCI_INDEX } else { OCI_MANIFEST })
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_one_thing_only() {
        let manifest = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        assert_eq!(of_manifest("", manifest).unwrap(), OCI_MANIFEST);
        assert_eq!(
            of_manifest(DOCKER_MANIFEST, manifest).unwrap(),
            DOCKER_MANIFEST
        );
        assert_eq!(of_manifest("text/plain", manifest).unwrap(), OCI_MANIFEST);
        assert_eq!(
            of_manifest(OCI_INDEX, manifest).unwrap_err().kind(),
            Kind::DataLoss
        );
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(of_manifest("", index).unwrap(), OCI_INDEX);
        let both = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert_eq!(of_manifest("", both).unwrap_err().kind(), Kind::DataLoss);
        let old = br#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#;
        assert_eq!(
            of_manifest("", old).unwrap_err().kind(),
            Kind::Unimplemented
        );
        for rubbish in [&b"{}"[..], b"[]", b"", b"<html>"] {
            assert!(of_manifest("", rubbish).is_err());
        }
    }
}
