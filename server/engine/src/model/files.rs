//! What file operations on a container take and give.

use jiff::Timestamp;

/// A path that differs from the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    /// Absolute path in the container; not always UTF-8.
    pub path: std::path::PathBuf,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// What is at a path in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last component of the path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Mode as in stat(2), type bits included.
    pub mode: u32,
    pub mtime: Timestamp,
    /// Where a symbolic link points to, seen from the container's root.
    pub link_target: String,
}

/// How CopyIn unpacks.
#[derive(Debug, Clone, Default)]
pub struct CopyInOptions {
    /// Directory of the container that the tar is unpacked into.
    pub path: String,
    /// Refuse to replace a directory by something else and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Owners are those of the tar either way; see davit.v1.
    pub copy_uid_gid: bool,
}

/// What Commit makes.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// Name for the image; may be empty.
    pub name: String,
    pub comment: String,
    pub author: String,
    /// Pause the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions that change the config.
    pub changes: Vec<String>,
    /// Config that replaces the container's, when set.
    pub config: Option<davit_store::image_config::ImageConfig>,
}

/// A tar stream: chunks of up to 1 MiB. Dropping it stops the work behind it.
pub type TarStream = futures::stream::BoxStream<'static, davit_store::Result<bytes::Bytes>>;
