//! Images: davit.v1's form and ours.

use davit_images::image;
use davit_proto::v1;
use davit_store::{descriptor, image_config};

use super::{to_health_check, to_i64, to_time};

pub(in super::super) fn from_platform(from: v1::Platform) -> descriptor::Platform {
    descriptor::Platform {
        os: from.os,
        architecture: from.architecture,
        variant: from.variant,
        os_version: from.os_version,
    }
}

fn to_platform(from: descriptor::Platform) -> v1::Platform {
    v1::Platform {
        os: from.os,
        architecture: from.architecture,
        variant: from.variant,
        os_version: from.os_version,
    }
}

pub(in super::super) fn to_descriptor(from: descriptor::Descriptor) -> v1::Descriptor {
    v1::Descriptor {
        media_type: from.media_type,
        digest: from.digest,
        size: from.size,
        annotations: from.annotations.into_iter().collect(),
        platform: from.platform.map(to_platform),
    }
}

pub(in super::super) fn from_auth(from: v1::RegistryAuth) -> image::RegistryAuth {
    image::RegistryAuth {
        username: from.username,
        password: from.password,
        identity_token: from.identity_token,
        registry_token: from.registry_token,
    }
}

pub(in super::super) fn from_image_filters(from: Vec<v1::Filter>) -> Vec<image::Filter> {
    from.into_iter()
        .map(|filter| image::Filter {
            key: filter.key,
            value: filter.value,
        })
        .collect()
}

pub(in super::super) fn to_image(from: image::Image) -> v1::Image {
    v1::Image {
        id: from.id,
        names: from.names,
        target: Some(to_descriptor(from.target)),
        repo_digests: from.repo_digests,
        created_at: from.created_at.map(to_time),
        size: from.size,
        labels: from.labels.into_iter().collect(),
        parent: from.parent,
        containers: from.containers,
        updated_at: from.updated_at.map(to_time),
    }
}

pub(in super::super) fn to_image_details(from: image::ImageDetails) -> v1::ImageDetails {
    v1::ImageDetails {
        image: Some(to_image(from.image)),
        config_json: from.config_json,
        manifest_json: from.manifest_json,
        manifest: Some(to_descriptor(from.manifest)),
        diff_ids: from.diff_ids,
        layers: from.layers.into_iter().map(to_descriptor).collect(),
        architecture: from.architecture,
        os: from.os,
        variant: from.variant,
        author: from.author,
        config: Some(to_image_config(from.config)),
        snapshotter: from.snapshotter,
        chain_id: from.chain_id,
        comment: from.comment,
        layer_paths: from.layer_paths,
    }
}

pub(in super::super) fn to_image_config(from: image_config::ImageConfig) -> v1::ImageConfig {
    v1::ImageConfig {
        user: from.user,
        exposed_ports: from.exposed_ports,
        env: from.env,
        entrypoint: from.entrypoint,
        cmd: from.cmd,
        volumes: from.volumes,
        working_dir: from.working_dir,
        labels: from.labels.into_iter().collect(),
        stop_signal: from.stop_signal,
        healthcheck: from.healthcheck.map(to_health_check),
        on_build: from.on_build,
        shell: from.shell,
    }
}

pub(in super::super) fn from_image_config(from: v1::ImageConfig) -> image_config::ImageConfig {
    image_config::ImageConfig {
        user: from.user,
        exposed_ports: from.exposed_ports,
        env: from.env,
        entrypoint: from.entrypoint,
        cmd: from.cmd,
        volumes: from.volumes,
        working_dir: from.working_dir,
        labels: from.labels.into_iter().collect(),
        stop_signal: from.stop_signal,
        healthcheck: from.healthcheck.map(super::from_health_check),
        on_build: from.on_build,
        shell: from.shell,
    }
}

pub(in super::super) fn from_pull(from: v1::PullRequest) -> image::PullRequest {
    image::PullRequest {
        reference: from.reference,
        platform: from.platform.map(from_platform),
        auth: from.auth.map(from_auth),
        all_tags: from.all_tags,
    }
}

pub(in super::super) fn to_pull_progress(from: image::PullProgress) -> v1::PullProgress {
    use v1::pull_progress::Stage;
    let stage = match from.stage {
        image::PullStage::Resolved => Stage::Resolved,
        image::PullStage::Queued => Stage::Queued,
        image::PullStage::Downloading => Stage::Downloading,
        image::PullStage::Downloaded => Stage::Downloaded,
        image::PullStage::Extracting => Stage::Extracting,
        image::PullStage::Complete => Stage::Complete,
        image::PullStage::Exists => Stage::Exists,
        image::PullStage::Done => Stage::Done,
    };
    v1::PullProgress {
        stage: stage.into(),
        layer: from.layer,
        current: from.current,
        total: from.total,
        message: from.message,
        image: from.image.map(to_image),
        up_to_date: from.up_to_date,
        reference: from.reference,
    }
}

pub(in super::super) fn from_push(from: v1::PushRequest) -> image::PushRequest {
    image::PushRequest {
        reference: from.reference,
        auth: from.auth.map(from_auth),
        more_references: from.more_references,
        all_tags: from.all_tags,
    }
}

pub(in super::super) fn to_push_progress(from: image::PushProgress) -> v1::PushProgress {
    use v1::push_progress::Stage;
    let stage = match from.stage {
        image::PushStage::Queued => Stage::Queued,
        image::PushStage::Uploading => Stage::Uploading,
        image::PushStage::Pushed => Stage::Pushed,
        image::PushStage::Exists => Stage::Exists,
        image::PushStage::Mounted => Stage::Mounted,
        image::PushStage::Done => Stage::Done,
    };
    v1::PushProgress {
        stage: stage.into(),
        digest: from.digest,
        current: from.current,
        total: from.total,
        message: from.message,
        reference: from.reference,
    }
}

pub(in super::super) fn from_import_options(from: v1::ImportOptions) -> image::ImportOptions {
    image::ImportOptions {
        platform: from.platform.map(from_platform),
        fallback_name: from.fallback_name,
    }
}

pub(in super::super) fn to_import_progress(from: image::ImportProgress) -> v1::ImportProgress {
    v1::ImportProgress {
        current: from.current,
        image: from.image.map(to_image),
        name: from.name,
    }
}

pub(in super::super) fn to_history_entry(from: image::HistoryEntry) -> v1::HistoryEntry {
    v1::HistoryEntry {
        id: from.id,
        created_at: from.created_at.map(to_time),
        created_by: from.created_by,
        size: from.size,
        comment: from.comment,
        author: from.author,
        empty_layer: from.empty_layer,
        names: from.names,
    }
}

pub(in super::super) fn to_remote_manifest(
    from: image::RemoteManifest,
) -> v1::RemoteManifestResponse {
    v1::RemoteManifestResponse {
        descriptor: Some(to_descriptor(from.descriptor)),
        manifest_json: from.manifest_json,
        platforms: from.platforms.into_iter().map(to_platform).collect(),
    }
}

pub(in super::super) fn to_image_usage(from: image::DiskUsage) -> v1::ImageDiskUsageResponse {
    v1::ImageDiskUsageResponse {
        blobs: from.blobs,
        snapshots: from.snapshots,
        reclaimable: from.reclaimable,
        ingests: from.ingests,
        images: from
            .images
            .into_iter()
            .map(|usage| v1::ImageUsage {
                image: Some(to_image(usage.image)),
                unique: usage.unique,
                shared: usage.shared,
            })
            .collect(),
    }
}

pub(in super::super) fn from_create_from_tar(
    from: v1::CreateFromTarOptions,
) -> image::CreateFromTarOptions {
    image::CreateFromTarOptions {
        name: from.name,
        changes: from.changes,
        message: from.message,
        platform: from.platform.map(from_platform),
    }
}

pub(in super::super) fn to_container_usage(
    from: davit_engine::model::ContainerUsage,
) -> v1::ContainerUsage {
    v1::ContainerUsage {
        id: from.id,
        writable: to_i64(from.writable),
        logs: to_i64(from.logs),
        reclaimable: from.reclaimable,
    }
}
