//! What the shim itself needs to know of a bundle's `config.json`; runtimes read the rest.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Kind, Result};

/// A container of a pod names the pod in one of these.
const GROUPS: [&str; 2] = [
    "io.containerd.runc.v2.group",
    "io.kubernetes.cri.sandbox-id",
];

/// The parts that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    annotations: Option<HashMap<String, String>>,
    linux: Option<Linux>,
    mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
    #[serde(rename = "rootfsPropagation")]
    rootfs_propagation: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mount {
    options: Option<Vec<String>>,
}

impl Config {
    /// Reads `<bundle>/config.json`.
    ///
    /// # Errors
    /// Not found, or invalid argument when it is no OCI configuration.
    pub(crate) fn read(bundle: &Path) -> Result<Config> {
        let path = bundle.join("config.json");
        let text = fs::read(&path).map_err(|error| {
            Error::new(
                Kind::NotFound,
                format!("reading {}: {error}", path.display()),
            )
        })?;
        serde_json::from_slice(&text).map_err(|error| {
            Error::new(
                Kind::InvalidArgument,
                format!("{}: {error}", path.display()),
            )
        })
    }

    /// The pod that the container belongs to.
    pub(crate) fn group(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        GROUPS
            .iter()
            .find_map(|name| annotations.get(*name))
            .map(String::as_str)
            .filter(|group| !group.is_empty())
    }

    /// Whether the container dies as a whole with its init.
    pub(crate) fn has_own_pids(&self) -> bool {
        let namespaces = self
            .linux
            .as_ref()
            .and_then(|linux| linux.namespaces.as_deref())
            .unwrap_or_default();
        namespaces.iter().any(|namespace| {
            namespace.kind == "pid" && namespace.path.as_deref().unwrap_or("").is_empty()
        })
    }

    /// Whether mounts made inside are to be seen by the host: then the shim must stay in the host's mount namespace.
    pub(crate) fn shares_mounts(&self) -> bool {
        let shared = |word: &str| matches!(word, "shared" | "rshared");
        let root = self
            .linux
            .as_ref()
            .and_then(|linux| linux.rootfs_propagation.as_deref())
            .is_some_and(shared);
        let mounts = self.mounts.as_deref().unwrap_or_default();
        root || mounts
            .iter()
            .flat_map(|mount| mount.options.iter().flatten())
            .any(|option| shared(option))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_read() {
        let plain = config(
            r#"{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"pid"},{"type":"mount"}]},"mounts":null}"#,
        );
        assert!(plain.has_own_pids() && !plain.shares_mounts() && plain.group().is_none());
        let pod = config(
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"p"},"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]},
               "mounts":[{"options":["rbind","rshared"]}]}"#,
        );
        assert!(!pod.has_own_pids() && pod.shares_mounts());
        assert_eq!(pod.group(), Some("p"));
    }
}
