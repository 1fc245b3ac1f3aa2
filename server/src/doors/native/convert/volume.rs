//! Volumes: davit.v1's form and ours.

use davit_engine::model;
use davit_proto::v1;

use super::{to_i64, to_time};

pub(in super::super) fn from_create_volume(
    from: v1::CreateVolumeRequest,
) -> model::CreateVolumeRequest {
    model::CreateVolumeRequest {
        name: from.name,
        driver: from.driver,
        labels: from.labels.into_iter().collect(),
        options: from.options.into_iter().collect(),
    }
}

pub(in super::super) fn to_volume(from: model::Volume) -> v1::Volume {
    v1::Volume {
        name: from.name,
        driver: from.driver,
        mountpoint: from.mountpoint,
        created_at: from.created_at.map(to_time),
        labels: from.labels.into_iter().collect(),
        options: from.options.into_iter().collect(),
        scope: from.scope,
        status: from.status.into_iter().collect(),
        anonymous: from.anonymous,
        containers: from.containers,
        size: from.size.map_or(-1, to_i64),
    }
}
