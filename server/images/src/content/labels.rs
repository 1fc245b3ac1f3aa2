//! The labels by which content refers to content: what garbage collection
//! follows. Names and values are containerd's.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Digest;

/// Labels of a blob, a snapshot or an image.
pub type Labels = BTreeMap<String, String>;

/// Refers to a blob; a suffix after `.` or `/` tells several apart.
pub const GC_REF_CONTENT: &str = "containerd.io/gc.ref.content";
/// Refers to a snapshot; `.<snapshotter>` follows.
pub const GC_REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot";
/// Refers to an image name.
pub const GC_REF_IMAGE: &str = "containerd.io/gc.ref.image";
/// Refers to what keeps this object alive; `.container`, `.content`, `.image`
/// or `.snapshot.<snapshotter>` follows.
pub const GC_BACK_REF: &str = "containerd.io/gc.bref";
/// Keeps blob or snapshot whatever refers to it.
pub const GC_ROOT: &str = "containerd.io/gc.root";
/// RFC 3339 time from which a lease or an image holds nothing.
pub const GC_EXPIRE: &str = "containerd.io/gc.expire";
/// On a lease: what it lists is kept, what that refers to is not.
pub const GC_FLAT: &str = "containerd.io/gc.flat";
/// Digest of the uncompressed tar of a layer blob.
pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Repositories that a blob came from; `.<host>` follows.
pub const DISTRIBUTION_SOURCE: &str = "containerd.io/distribution.source";

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<Child>,
    #[serde(default)]
    layers: Vec<Child>,
    #[serde(default)]
    manifests: Vec<Child>,
}

#[derive(Deserialize)]
struct Child {
    digest: String,
}

/// The labels that make a manifest or index keep its children: config as
/// `….config`, layers as `….l.<n>`, manifests as `….m.<n>`. Anything else
/// refers to nothing.
pub fn child_labels(document: &[u8]) -> Labels {
    let Ok(document) = serde_json::from_slice::<Document>(document) else {
        return Labels::new();
    };
    let mut labels = Labels::new();
    let mut add = |suffix: String, child: Child| {
        if Digest::parse(&child.digest).is_ok() {
            labels.insert(format!("{GC_REF_CONTENT}.{suffix}"), child.digest);
        }
    };
    if let Some(config) = document.config {
        add("config".to_owned(), config);
    }
    for (n, layer) in document.layers.into_iter().enumerate() {
        add(format!("l.{n}"), layer);
    }
    for (n, manifest) in document.manifests.into_iter().enumerate() {
        add(format!("m.{n}"), manifest);
    }
    labels
}

/// The label that makes an image's config keep its unpacked layers.
pub fn snapshot_label(snapshotter: &str, chain_id: &str) -> (String, String) {
    (
        format!("{GC_REF_SNAPSHOT}.{snapshotter}"),
        chain_id.to_owned(),
    )
}

/// Puts `changes` into `labels`; an empty value takes a label away.
pub(crate) fn merge(labels: &mut Labels, changes: &Labels) {
    for (key, value) in changes {
        if value.is_empty() {
            labels.remove(key);
        } else {
            labels.insert(key.clone(), value.clone());
        }
    }
}

/// Longest label, key and value together, in bytes (containerd's bound).
const MAX_LABEL: usize = 4096;

/// Refuses labels that containerd would refuse.
pub(crate) fn check(labels: &Labels) -> davit_store::Result<()> {
    for (key, value) in labels {
        if key.len() + value.len() > MAX_LABEL {
            let start: String = key.chars().take(60).collect();
            return Err(davit_store::Error::invalid(format!(
                "label {start:?} is longer than {MAX_LABEL} bytes, key and value together"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_keep_their_children() {
        let (a, b) = (Digest::of(b"a").to_string(), Digest::of(b"b").to_string());
        let manifest = format!(
            r#"{{"config":{{"digest":"{a}"}},"layers":[{{"digest":"{b}"}},{{"digest":"../x"}}]}}"#
        );
        let labels = child_labels(manifest.as_bytes());
        assert_eq!(labels.len(), 2);
        assert_eq!(labels["containerd.io/gc.ref.content.config"], a);
        assert_eq!(labels["containerd.io/gc.ref.content.l.0"], b);
        let index = format!(r#"{{"manifests":[{{"digest":"{a}"}}]}}"#);
        assert_eq!(
            child_labels(index.as_bytes())["containerd.io/gc.ref.content.m.0"],
            a
        );
        assert!(child_labels(b"\x1f\x8b").is_empty());
    }

    #[test]
    fn empty_values_remove() {
        let mut labels = Labels::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
        merge(
            &mut labels,
            &Labels::from([("a".into(), String::new()), ("c".into(), "3".into())]),
        );
        assert_eq!(labels.into_keys().collect::<Vec<_>>(), ["b", "c"]);
    }
}
