//! What image operations take and give.

use std::collections::BTreeMap;

use bytes::Bytes;
use davit_store::{
    descriptor::{Descriptor, Platform},
    image_config::ImageConfig,
};
use jiff::Timestamp;

/// An image in a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Image {
    /// Digest of the image's config for the host's platform: the image id.
    pub id: String,
    /// All names that point to it, normalised; empty for a dangling image.
    pub names: Vec<String>,
    /// What the name points to: a manifest or an index.
    pub target: Descriptor,
    /// "repo@sha256:…" for every repository that it is known in.
    pub repo_digests: Vec<String>,
    /// When the image was made, as its config says.
    pub created_at: Option<Timestamp>,
    /// Size of the unpacked layers in bytes.
    pub size: i64,
    /// Labels of the image's config.
    pub labels: BTreeMap<String, String>,
    /// Parent image id, for images that were committed or built here.
    pub parent: String,
    /// Number of containers that were made from it.
    pub containers: i64,
    /// When the name was last pointed to this image.
    pub updated_at: Option<Timestamp>,
}

/// Everything known about an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageDetails {
    /// As in a list.
    pub image: Image,
    /// The config blob as it stands in the registry.
    pub config_json: Bytes,
    /// The manifest as it stands in the registry.
    pub manifest_json: Bytes,
    /// Descriptor of the manifest for the platform.
    pub manifest: Descriptor,
    /// Uncompressed digests of the layers, lowest first.
    pub diff_ids: Vec<String>,
    /// Layers as they are in the manifest, lowest first.
    pub layers: Vec<Descriptor>,
    /// Architecture in Go's names.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// Variant of the architecture.
    pub variant: String,
    /// Who made it.
    pub author: String,
    /// The part of the config that a container starts from.
    pub config: ImageConfig,
    /// Snapshotter that has the layers unpacked.
    pub snapshotter: String,
    /// Chain id of the topmost layer: the key of its snapshot.
    pub chain_id: String,
    /// Comment of the newest history entry.
    pub comment: String,
    /// Directories of the unpacked layers, topmost first (overlayfs only).
    pub layer_paths: Vec<String>,
}

/// Credentials for one registry; they go to the host of the reference that
/// they come with, and to nobody else.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name for basic and bearer authentication.
    pub username: String,
    /// Password or access token that goes with it.
    pub password: String,
    /// OAuth2 refresh token ("identity token" in docker's words).
    pub identity_token: String,
    /// Bearer token that is sent as it is.
    pub registry_token: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stay out of logs.
        f.debug_struct("RegistryAuth")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What to pull.
#[derive(Debug, Clone, Default)]
pub struct PullRequest {
    /// Reference; a missing tag means "latest".
    pub reference: String,
    /// Platform; the host's when not set.
    pub platform: Option<Platform>,
    /// Credentials; without them those of the docker config.json are used.
    pub auth: Option<RegistryAuth>,
    /// Pull all tags of the repository.
    pub all_tags: bool,
}

/// Where a layer, or a whole pull, stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullStage {
    /// The reference was resolved; message says to what.
    #[default]
    Resolved,
    /// The layer was found in the manifest.
    Queued,
    /// Bytes are coming in (and are being unpacked as they come).
    Downloading,
    /// All bytes are here and their digest is right.
    Downloaded,
    /// The layer is being unpacked.
    Extracting,
    /// The layer is unpacked.
    Complete,
    /// The layer was here already.
    Exists,
    /// The pull is over; image is set.
    Done,
}

/// Where one layer (or all of the pull, when layer is empty) stands.
#[derive(Debug, Clone, Default)]
pub struct PullProgress {
    /// How far it is.
    pub stage: PullStage,
    /// Digest of the layer, or empty.
    pub layer: String,
    /// Bytes done so far.
    pub current: i64,
    /// Bytes in all; 0 when not known.
    pub total: i64,
    /// A sentence for people; may be empty.
    pub message: String,
    /// The image, in the last message.
    pub image: Option<Image>,
    /// The name pointed to the same image before; in the last message.
    pub up_to_date: bool,
    /// The reference that this is about (several with all_tags).
    pub reference: String,
}

/// What to push.
#[derive(Debug, Clone, Default)]
pub struct PushRequest {
    /// Name; a missing tag means "latest".
    pub reference: String,
    /// Credentials for the registry of that name.
    pub auth: Option<RegistryAuth>,
    /// More names; blobs are sent once for a registry.
    pub more_references: Vec<String>,
    /// Push all tags of the repository.
    pub all_tags: bool,
}

/// Where a blob, or a whole push, stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushStage {
    /// The blob waits for its turn.
    #[default]
    Queued,
    /// Bytes are going out.
    Uploading,
    /// The blob has arrived.
    Pushed,
    /// The registry had the blob already.
    Exists,
    /// The registry took the blob over from another repository (in message).
    Mounted,
    /// A reference is pushed: digest and size are those of its manifest.
    Done,
}

/// Where one blob of a push stands.
#[derive(Debug, Clone, Default)]
pub struct PushProgress {
    /// How far it is.
    pub stage: PushStage,
    /// Digest of the blob, or of the manifest in `Done`.
    pub digest: String,
    /// Bytes done so far.
    pub current: i64,
    /// Bytes in all.
    pub total: i64,
    /// A sentence for people; may be empty.
    pub message: String,
    /// The reference that this is about.
    pub reference: String,
}

/// How to read an archive.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Platform to unpack; the host's when not set.
    pub platform: Option<Platform>,
    /// Name for images in the stream that have none.
    pub fallback_name: String,
}

/// How far an import is.
#[derive(Debug, Clone, Default)]
pub struct ImportProgress {
    /// Bytes of the stream read so far.
    pub current: i64,
    /// An image that is ready.
    pub image: Option<Image>,
    /// The name under which it was stored; empty when it has none.
    pub name: String,
}

/// What to export.
#[derive(Debug, Clone, Default)]
pub struct ExportRequest {
    /// Names or ids; several images go into one stream.
    pub images: Vec<String>,
    /// Only this platform of an index.
    pub platform: Option<Platform>,
}

/// One filter; an object passes when, for every key that is given, at least
/// one of that key's filters matches it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// What is looked at: reference, label, dangling, before, since, until, id.
    pub key: String,
    /// The value to match, in docker's form.
    pub value: String,
}

/// What [`crate::Images::remove`] took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// Image id, then layers by chain id, that nothing holds any more.
    pub deleted: Vec<String>,
}

/// A step that made an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryEntry {
    /// Image id, for the newest entry; "<missing>" otherwise.
    pub id: String,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// The instruction that made the step.
    pub created_by: String,
    /// Size of the step's layer in bytes; 0 for steps without a layer.
    pub size: i64,
    /// Comment.
    pub comment: String,
    /// Who made it.
    pub author: String,
    /// The step has no layer.
    pub empty_layer: bool,
    /// Names that point to this entry's image.
    pub names: Vec<String>,
}

/// What to prune.
#[derive(Debug, Clone, Default)]
pub struct PruneRequest {
    /// Every image that no container uses, not only dangling ones.
    pub all: bool,
    /// Only tell what would be removed.
    pub dry_run: bool,
    /// label, label!, until.
    pub filters: Vec<Filter>,
}

/// What a prune removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What was taken away, as docker prints it.
    pub removed: Vec<String>,
    /// The same apart: names, and image ids and chain ids.
    pub detail: Removed,
    /// Disk space given back, in bytes.
    pub space_reclaimed: u64,
}

/// What a registry says about an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RemoteManifest {
    /// The manifest or index that the reference points to.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub manifest_json: Bytes,
    /// Platforms that it offers.
    pub platforms: Vec<Platform>,
}

/// What the images of a namespace cost on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DiskUsage {
    /// Compressed blobs, in bytes.
    pub blobs: i64,
    /// Unpacked layers, in bytes.
    pub snapshots: i64,
    /// What pruning all would give back, in bytes.
    pub reclaimable: i64,
    /// Partial downloads, in bytes.
    pub ingests: i64,
    /// Image by image.
    pub images: Vec<ImageUsage>,
}

/// What one image costs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageUsage {
    /// The image.
    pub image: Image,
    /// Bytes that only this image has.
    pub unique: i64,
    /// Bytes that it shares with others.
    pub shared: i64,
}

/// How to make an image of one layer out of a root file system tar.
#[derive(Debug, Clone, Default)]
pub struct CreateFromTarOptions {
    /// Name for the image; may be empty.
    pub name: String,
    /// Dockerfile instructions that set the config.
    pub changes: Vec<String>,
    /// Comment of the history entry.
    pub message: String,
    /// Platform; the host's when not set.
    pub platform: Option<Platform>,
}

/// A new image on top of another: `commit`, or a step of a build.
#[derive(Debug, Clone, Default)]
pub struct NewImage {
    /// Name for it; empty for none.
    pub name: String,
    /// Id or name of the image below; empty for none.
    pub parent: String,
    /// Its new top layer, if it has one.
    pub layer: Option<crate::diff::NewLayer>,
    /// The config; `None` keeps the parent's.
    pub config: Option<ImageConfig>,
    /// Dockerfile instructions on top of the config.
    pub changes: Vec<String>,
    /// What the history says made it.
    pub created_by: String,
    /// Comment of the history entry.
    pub comment: String,
    /// Who made it; empty keeps the parent's.
    pub author: String,
    /// Container that it was committed from; goes into the config's
    /// `container` field as docker does.
    pub container: String,
    /// Platform, for an image without parent.
    pub platform: Option<Platform>,
}

/// An image resolved for one platform: all that a container needs from it.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The name that was asked for, normalised; empty when asked by id.
    pub name: String,
    /// What the name points to: a manifest or an index.
    pub target: Descriptor,
    /// The manifest for the platform.
    pub manifest: Descriptor,
    /// Its config's descriptor.
    pub config_descriptor: Descriptor,
    /// Image id: the config's digest.
    pub image_id: String,
    /// The config blob, as it stands in the registry.
    pub config_json: Bytes,
    /// The part of the config that a container starts from.
    pub config: ImageConfig,
    /// What the image was made for.
    pub platform: Platform,
    /// Layers as they are in the manifest, lowest first.
    pub layers: Vec<Descriptor>,
    /// Uncompressed digests of the layers, lowest first.
    pub diff_ids: Vec<crate::Digest>,
    /// Chain id of the topmost layer: the key of its snapshot; empty for an
    /// image without layers.
    pub chain_id: String,
}

/// What was found on disk and recorded again after the store was lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Image names.
    pub images: usize,
    /// Blobs.
    pub blobs: usize,
    /// Names whose blobs are not there, as (namespace, name).
    pub lost: Vec<(String, String)>,
}
