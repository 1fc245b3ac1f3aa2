//! Labels of blobs: what they refer to, for garbage collection, and where
//! they came from. Names and forms are containerd's.

use davit_store::{Result, descriptor::Descriptor};

use crate::{
    Digest, Reference,
    content::{Content, Labels},
    lease::Operation,
    media,
};

/// Prefix of labels that name a blob which must stay.
const REF_CONTENT: &str = "containerd.io/gc.ref.content.";
/// Prefix of labels that name a snapshot which must stay.
const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";
/// Prefix of labels that name repositories which have the blob.
pub(crate) const SOURCE: &str = "containerd.io/distribution.source.";
/// Repositories remembered for a blob and registry.
const MAX_SOURCES: usize = 16;

/// What an index refers to.
pub(crate) fn of_index(manifests: &[Descriptor]) -> Labels {
    let label = |(index, entry): (usize, &Descriptor)| {
        (format!("{REF_CONTENT}m.{index}"), entry.digest.clone())
    };
    manifests.iter().enumerate().map(label).collect()
}

/// What a manifest refers to.
pub(crate) fn of_manifest(config: &Descriptor, layers: &[Descriptor]) -> Labels {
    let mut labels: Labels = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| (format!("{REF_CONTENT}l.{index}"), layer.digest.clone()))
        .collect();
    let name = if media::is_config(&config.media_type) {
        "config"
    } else {
        "c"
    };
    labels.insert(format!("{REF_CONTENT}{name}"), config.digest.clone());
    labels
}

/// What a config refers to: the snapshot of its layers.
pub(crate) fn of_config(snapshotter: &str, chain_id: &str) -> Labels {
    match chain_id {
        "" => Labels::new(),
        _ => Labels::from([(format!("{REF_SNAPSHOT}{snapshotter}"), chain_id.to_owned())]),
    }
}

/// That a repository has the blob.
pub(crate) fn source(repository: &Reference) -> Labels {
    Labels::from([(
        format!("{SOURCE}{}", repository.domain()),
        repository.path().to_owned(),
    )])
}

/// The repositories of `domain` that have the blob with these labels, newest
/// first.
pub(crate) fn sources(labels: &Labels, domain: &str) -> Vec<String> {
    let listed = labels
        .get(&format!("{SOURCE}{domain}"))
        .map_or("", String::as_str);
    let mut paths: Vec<_> = listed
        .split(',')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect();
    paths.reverse();
    paths
}

/// All repositories that have the blob with these labels, as "domain/path".
pub(crate) fn all_sources(labels: &Labels) -> Vec<String> {
    let mut names = Vec::new();
    for (label, paths) in labels {
        if let Some(domain) = label.strip_prefix(SOURCE) {
            let paths = paths.split(',').filter(|path| !path.is_empty());
            names.extend(paths.map(|path| format!("{domain}/{path}")));
        }
    }
    names
}

/// Notes on a blob that `repository` has it too.
pub(crate) fn add_source(
    content: &Content,
    op: &Operation,
    digest: &Digest,
    repository: &Reference,
) -> Result<()> {
    let info = content.info(op.namespace(), digest)?;
    let mut paths = sources(&info.labels, repository.domain());
    if paths.iter().any(|path| path == repository.path()) {
        return Ok(());
    }
    paths.truncate(MAX_SOURCES - 1);
    paths.reverse();
    paths.push(repository.path().to_owned());
    // Labels are bounded; the oldest repositories are the least useful.
    while paths.iter().map(|path| path.len() + 1).sum::<usize>() > 3500 {
        paths.remove(0);
    }
    let label = format!("{SOURCE}{}", repository.domain());
    let changes = Labels::from([(label, paths.join(","))]);
    content.label(op.namespace(), digest, &changes).map(drop)
}
