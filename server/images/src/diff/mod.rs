//! Differences between two trees: a layer tar for commit, and the list that
//! `diff` prints.

mod compare;
mod layer;

use std::path::{Path, PathBuf};

use davit_store::{Error, Result};

use crate::{
    Digest, Snapshots,
    content::{BlobInfo, Expected, Labels, Opened, blocking},
    lease::Operation,
    media,
    unpack::walk::open_root,
};
use compare::Trees;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is there now ("A").
    Added,
    /// It is another one now ("C").
    Modified,
    /// It is gone ("D").
    Deleted,
}

/// One changed path, absolute within the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The path; it need not be UTF-8.
    pub path: PathBuf,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// How the bytes of a new layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are.
    None,
    /// gzip, reproducibly (no time, no name).
    #[default]
    Gzip,
    /// zstd.
    Zstd,
}

/// A new layer: its blob and the digest of its tar.
#[derive(Debug, Clone)]
pub struct NewLayer {
    /// The blob as stored, labelled `containerd.io/uncompressed`.
    pub blob: BlobInfo,
    /// Its media type (OCI).
    pub media_type: String,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// What goes into a layer, and how.
#[derive(Debug, Clone, Default)]
pub struct LayerOptions {
    /// How its bytes are stored.
    pub compression: Compression,
    /// Paths in the tree that are left out where they were added and are
    /// empty: places that a runtime made to mount something on.
    pub skip: Vec<PathBuf>,
}

/// The paths that differ between a snapshot and its parent, in order; a
/// directory also when something in it was added or is gone.
///
/// # Errors
/// `NotFound` when there is no such snapshot.
pub async fn changes(snapshots: &Snapshots, namespace: &str, key: &str) -> Result<Vec<Change>> {
    let trees = trees(snapshots, namespace, key).await?;
    let what = key.to_owned();
    blocking(move || {
        let mut changes = Vec::new();
        let compared = compare::compare(&trees, &mut |found| {
            changes.push(Change {
                path: Path::new("/").join(&found.path),
                kind: found.kind,
            });
            Ok(())
        });
        compared.map_err(|error| {
            Error::io(
                format!("comparing snapshot {what:?} with its parent"),
                error,
            )
        })?;
        Ok(changes)
    })
    .await
}

/// Writes what differs between a snapshot and its parent as a layer into the
/// content store. Entries are in order of their paths and keep their times, so
/// the same differences give the same blob.
///
/// # Errors
/// `NotFound` when there is no such snapshot; those of the content store.
pub async fn layer(
    content: &crate::Content,
    snapshots: &Snapshots,
    op: &Operation,
    key: &str,
    options: LayerOptions,
) -> Result<NewLayer> {
    let trees = trees(snapshots, op.namespace(), key).await?;
    let reference = format!("layer-{}", uuid::Uuid::new_v4());
    let mut writer = match content.writer(op, &reference, Expected::default()).await? {
        Opened::Writer(writer) => writer,
        Opened::Exists(_) => return Err(Error::internal("a layer was there before it was made")),
    };
    let skip = options
        .skip
        .iter()
        .map(|path| path.strip_prefix("/").unwrap_or(path).to_owned())
        .collect();
    let mut produced = layer::produce(
        trees,
        options.compression,
        skip,
        format!("snapshot {key:?}"),
    );
    while let Some(block) = produced.blocks.recv().await {
        if let Err(error) = writer.write(block).await {
            let _ = writer.abort().await;
            return Err(error);
        }
    }
    let done = produced.done.await;
    let done = done.map_err(|panic| {
        Error::internal("writing a layer panicked; this is a bug").with_source(panic)
    });
    let diff_id = match done.and_then(|done| done) {
        Ok(diff_id) => diff_id,
        Err(error) => {
            let _ = writer.abort().await;
            return Err(error);
        }
    };
    let labels = Labels::from([("containerd.io/uncompressed".to_owned(), diff_id.to_string())]);
    let blob = writer.commit(labels).await?;
    let suffix = match options.compression {
        Compression::None => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    };
    Ok(NewLayer {
        blob,
        media_type: format!("{}{suffix}", media::OCI_LAYER),
        diff_id,
    })
}

/// Opens what is to be compared.
async fn trees(snapshots: &Snapshots, namespace: &str, key: &str) -> Result<Trees> {
    let parent = snapshots.stat(namespace, key)?.parent;
    let lower = match parent.as_str() {
        "" => None,
        parent => Some(snapshots.open_tree(namespace, parent).await?),
    };
    let own = snapshots.own_dir(namespace, key)?;
    let upper = blocking(move || {
        open_root(&own).map_err(|error| Error::io(format!("opening {}", own.display()), error))
    });
    Ok(Trees {
        upper: upper.await?,
        lower,
        whole: !snapshots.unpacks_apart(),
    })
}
