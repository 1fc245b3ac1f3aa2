//! Containers: davit.v1's form and ours.

use davit_engine::model;
use davit_proto::v1;

use super::{
    from_options, from_platform, from_resources, from_restart_policy, to_descriptor, to_i64,
    to_image_config, to_options, to_time,
};

pub(in super::super) fn from_create(
    from: v1::CreateContainerRequest,
) -> model::CreateContainerRequest {
    model::CreateContainerRequest {
        name: from.name,
        image: from.image,
        platform: from.platform.map(from_platform),
        options: from.options.map(from_options).unwrap_or_default(),
        id: from.id,
    }
}

pub(in super::super) fn from_filters(from: Vec<v1::Filter>) -> Vec<model::Filter> {
    from.into_iter()
        .map(|filter| model::Filter {
            key: filter.key,
            value: filter.value,
        })
        .collect()
}

pub(in super::super) fn from_update(
    from: v1::UpdateContainerRequest,
) -> model::UpdateContainerRequest {
    model::UpdateContainerRequest {
        resources: from.resources.map(from_resources),
        restart_policy: from.restart_policy.map(from_restart_policy),
        labels: from.labels.into_iter().collect(),
    }
}

fn to_status(from: model::ContainerStatus) -> v1::ContainerStatus {
    match from {
        model::ContainerStatus::Created => v1::ContainerStatus::Created,
        model::ContainerStatus::Running => v1::ContainerStatus::Running,
        model::ContainerStatus::Paused => v1::ContainerStatus::Paused,
        model::ContainerStatus::Restarting => v1::ContainerStatus::Restarting,
        model::ContainerStatus::Removing => v1::ContainerStatus::Removing,
        model::ContainerStatus::Exited => v1::ContainerStatus::Exited,
        model::ContainerStatus::Dead => v1::ContainerStatus::Dead,
    }
}

fn to_state(from: model::ContainerState) -> v1::ContainerState {
    v1::ContainerState {
        status: to_status(from.status).into(),
        pid: from.pid.map_or(0, u32::cast_signed),
        exit_code: from.exit_code,
        error: from.error,
        oom_killed: from.oom_killed,
        started_at: from.started_at.map(to_time),
        finished_at: from.finished_at.map(to_time),
        restart_count: i32::try_from(from.restart_count).unwrap_or(i32::MAX),
        health: from.health.map(to_health),
        manually_stopped: from.manually_stopped,
    }
}

fn to_health(from: model::Health) -> v1::Health {
    v1::Health {
        status: from.status.as_str().to_owned(),
        failing_streak: i32::try_from(from.failing_streak).unwrap_or(i32::MAX),
        log: from
            .log
            .into_iter()
            .map(|result| v1::HealthResult {
                start: Some(to_time(result.start)),
                end: Some(to_time(result.end)),
                exit_code: result.exit_code,
                output: result.output,
            })
            .collect(),
    }
}

pub(in super::super) fn to_container(from: model::Container) -> v1::Container {
    v1::Container {
        id: from.id,
        name: from.name,
        image: from.image,
        image_id: from.image_id,
        command: from.command,
        created_at: Some(to_time(from.created_at)),
        state: Some(to_state(from.state)),
        labels: from.labels.into_iter().collect(),
        size_rw: from.size_rw.map_or(0, to_i64),
        size_root_fs: from.size_root_fs.map_or(0, to_i64),
        network_mode: from.network_mode,
        mounts: from.mounts.into_iter().map(to_mount_point).collect(),
        endpoints: from
            .endpoints
            .into_iter()
            .map(super::network::to_endpoint)
            .collect(),
        published: from
            .published
            .into_iter()
            .map(super::network::to_published)
            .collect(),
        exposed_ports: from.exposed_ports,
    }
}

fn to_mount_point(from: model::MountPoint) -> v1::MountPoint {
    v1::MountPoint {
        r#type: from.kind,
        name: from.name,
        source: from.source,
        destination: from.destination,
        driver: from.driver,
        mode: from.mode,
        read_write: from.read_write,
        propagation: from.propagation,
    }
}

pub(in super::super) fn to_details(from: model::ContainerDetails) -> v1::ContainerDetails {
    v1::ContainerDetails {
        container: Some(to_container(from.container)),
        options: Some(to_options(from.options)),
        config: Some(to_image_config(from.config)),
        path: from.path,
        args: from.args,
        driver: from.driver,
        platform: from.platform,
        log_path: from.log_path,
        hostname_path: from.hostname_path,
        hosts_path: from.hosts_path,
        resolv_conf_path: from.resolv_conf_path,
        spec_json: from.spec_json.into(),
        exec_ids: from.exec_ids,
        runtime: from.runtime,
        driver_data: from.driver_data.into_iter().collect(),
        image_manifest: from.image_manifest.map(to_descriptor),
        event_number: from.event_number,
        cgroup_path: from.cgroup_path,
        network_namespace: from.network_namespace,
        user: from.user,
    }
}

pub(in super::super) fn to_change(from: &model::Change) -> v1::Change {
    let kind = match from.kind {
        model::ChangeKind::Modified => v1::change::Kind::Modified,
        model::ChangeKind::Added => v1::change::Kind::Added,
        model::ChangeKind::Deleted => v1::change::Kind::Deleted,
    };
    // protobuf strings are UTF-8; what is not is shown with replacement marks.
    v1::Change {
        kind: kind.into(),
        path: from.path.to_string_lossy().into_owned(),
    }
}

pub(in super::super) fn to_path_stat(from: model::PathStat) -> v1::PathStat {
    v1::PathStat {
        name: from.name,
        size: to_i64(from.size),
        mode: from.mode,
        mtime: Some(to_time(from.mtime)),
        link_target: from.link_target,
    }
}

pub(in super::super) fn from_commit(from: v1::CommitRequest) -> model::CommitRequest {
    model::CommitRequest {
        name: from.name,
        comment: from.comment,
        author: from.author,
        pause: from.pause,
        changes: from.changes,
        config: from.config.map(super::from_image_config),
    }
}
