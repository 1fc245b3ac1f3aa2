//! Containers: what was asked for, and the facts of their last run that must
//! survive the daemon.
//!
//! The outer record has the shape of containerd's `Container`; what docker
//! adds is in [`Details`]. A record without details came through the
//! containerd door and carries its spec; one with details carries the options,
//! and the engine builds the spec from them at each start.

use crate::{
    descriptor::Descriptor,
    image_config::ImageConfig,
    options::{ContainerOptions, NetworkAttachment},
    record::{byte_string, sparse},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

sparse! {
    /// One container (containerd's `containers.Container`, and [`Details`]).
    pub struct ContainerRecord {
        /// Id; for containers with details 64 hex digits.
        pub id: String,
        /// Labels (containerd's and docker's are the same).
        pub labels: BTreeMap<String, String>,
        /// Image as it was asked for: a name of the images table, or an id.
        pub image: String,
        /// Runtime shim and its options.
        pub runtime: Runtime,
        /// OCI runtime spec as the containerd door was given it; `None` with
        /// details.
        pub spec: Option<TypedBytes>,
        /// Snapshotter that holds the writable layer.
        pub snapshotter: String,
        /// Key of the writable layer's snapshot.
        pub snapshot_key: String,
        /// When it was made.
        pub created_at: Timestamp,
        /// When the record was last changed.
        pub updated_at: Timestamp,
        /// Typed extensions of containerd's clients, kept as they are.
        pub extensions: BTreeMap<String, TypedBytes>,
        /// Sandbox (pod) that it belongs to; empty for none.
        pub sandbox_id: String,
        /// davit's and docker's part.
        pub details: Option<Box<Details>>,
    }

    /// Which shim runs it.
    pub struct Runtime {
        /// Shim by its containerd name, "io.containerd.runc.v2".
        pub name: String,
        /// Options for the shim.
        pub options: Option<TypedBytes>,
    }

    /// A protobuf `Any`: bytes and the name of their type.
    pub struct TypedBytes {
        /// Name of the type.
        pub type_url: String,
        /// The value, in the type's encoding.
        #[serde(with = "byte_string")]
        pub value: Vec<u8>,
    }

    /// What a container has beyond containerd's record.
    pub struct Details {
        /// Name, unique in its namespace, without a leading "/".
        pub name: String,
        /// Options as they were given to Create (and changed by Update).
        pub options: ContainerOptions,
        /// Image id: digest of the image's config.
        pub image_id: String,
        /// Manifest that the container was made from.
        pub image_manifest: Option<Descriptor>,
        /// The image's config with the options on top.
        pub config: ImageConfig,
        /// What runs.
        pub path: String,
        /// Its arguments, without argv\[0\].
        pub args: Vec<String>,
        /// Platform, "linux".
        pub platform: String,
        /// Runtime that was chosen at Create: "builtin", "runc", "crun",
        /// "youki" or a path.
        pub runtime: String,
        /// Log file; empty when nothing is logged.
        pub log_path: String,
        /// Directory of the files below, which lives as long as the container.
        pub dir: String,
        /// Generated /etc/hostname.
        pub hostname_path: String,
        /// Generated /etc/hosts; empty when the host's or another's is used.
        pub hosts_path: String,
        /// Generated /etc/resolv.conf; likewise.
        pub resolv_conf_path: String,
        /// Facts of the last run.
        pub state: StateFacts,
        /// Networks that it joins at its start, by their ids.
        pub networks: BTreeMap<String, NetworkAttachment>,
        /// The mounts as Create settled them, outer before inner.
        pub mounts: Vec<ContainerMount>,
        /// Its removal takes its anonymous volumes along.
        pub remove_volumes: bool,
    }

    /// A mount as Create settled it: what starts mount and inspect shows, even
    /// when the options' other containers and images are long gone.
    pub struct ContainerMount {
        /// "bind", "tmpfs", "volume" or "image".
        pub kind: String,
        /// Clean absolute path in the container.
        pub target: String,
        /// bind: path on the host; image: its name as it was asked for.
        pub source: String,
        /// volume: its name.
        pub volume: String,
        /// volume: its driver.
        pub driver: String,
        /// volume: it was given no name.
        pub anonymous: bool,
        /// volume: the image's files are not copied into it.
        pub no_copy: bool,
        /// image: its id.
        pub image_id: String,
        /// image: key of the view that shows its files.
        pub snapshot_key: String,
        /// volume, image: path inside.
        pub subpath: String,
        /// Mounted read-only.
        pub read_only: bool,
        /// Propagation; empty for all but bind.
        pub propagation: String,
        /// What inspect shows as mode.
        pub mode: String,
        /// Without the mounts below the source.
        pub non_recursive: bool,
        /// bind: make the source when it is missing.
        pub create_source: bool,
        /// Further mount options.
        pub options: Vec<String>,
    }

    /// What is known of the last run. Whether something runs *now* is not in
    /// here: the shim is asked.
    pub struct StateFacts {
        /// Where the container stood when the record was written.
        pub phase: Phase,
        /// It was started at least once.
        pub has_been_started: bool,
        /// Start of the last run.
        pub started_at: Option<Timestamp>,
        /// End of the last run.
        pub finished_at: Option<Timestamp>,
        /// How the last run ended: the process's own code, 128+n for signal n,
        /// 125 to 127 when it could not start, 255 when it is not known.
        pub exit_code: i32,
        /// Why the last start failed, or what else went wrong.
        pub error: String,
        /// The kernel killed it for want of memory.
        pub oom_killed: bool,
        /// Somebody stopped it by hand, so "unless-stopped" leaves it alone.
        pub manually_stopped: bool,
        /// Starts by the restart policy since the last start by hand.
        pub restart_count: i32,
    }
}

/// Where a container stood when its record was last written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Made and never started.
    #[default]
    Created,
    /// Started; after a reboot or a crash it may not run any more.
    Running,
    /// Started and frozen.
    Paused,
    /// Ended, and the restart policy was about to start it again.
    Restarting,
    /// Ended.
    Exited,
    /// Its removal was under way.
    Removing,
    /// Its removal failed.
    Dead,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_container_is_a_small_record() {
        let record = ContainerRecord {
            id: "a".repeat(64),
            image: "docker.io/library/busybox:latest".to_owned(),
            snapshotter: "overlayfs".to_owned(),
            snapshot_key: "a".repeat(64),
            created_at: Timestamp::now(),
            details: Some(Box::new(Details {
                name: "n".to_owned(),
                path: "sh".to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let bytes = rmp_serde::to_vec_named(&record).unwrap();
        assert!(bytes.len() < 512, "{} bytes", bytes.len());
        assert_eq!(
            rmp_serde::from_slice::<ContainerRecord>(&bytes).unwrap(),
            record
        );
    }

    #[test]
    fn extensions_keep_their_bytes() {
        let any = TypedBytes {
            type_url: "t".to_owned(),
            value: vec![200; 100],
        };
        let bytes = rmp_serde::to_vec_named(&any).unwrap();
        assert!(bytes.len() < 130, "{} bytes", bytes.len());
        assert_eq!(rmp_serde::from_slice::<TypedBytes>(&bytes).unwrap(), any);
    }
}
