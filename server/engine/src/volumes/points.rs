//! A container's mounts in their three forms: planned, recorded, and shown.

use davit_store::{
    options::Mount,
    table::{
        Volumes,
        container::{ContainerMount, ContainerRecord},
    },
};

use super::{LOCAL, list, place};
use crate::{
    Result,
    model::MountPoint,
    shared::Shared,
    spec::{self, PlannedMount, PlannedSource},
};

/// A planned mount for the record; names of volumes are still to come.
pub(super) fn record(mount: &PlannedMount) -> ContainerMount {
    let mut point = ContainerMount {
        target: mount.target.clone(),
        read_only: mount.read_only,
        propagation: mount.propagation.clone(),
        mode: mount.mode.clone(),
        non_recursive: mount.non_recursive,
        options: mount.options.clone(),
        ..Default::default()
    };
    match &mount.source {
        PlannedSource::Bind { path, create } => {
            point.kind = "bind".to_owned();
            point.source = path.to_string_lossy().into_owned();
            point.create_source = *create;
        }
        PlannedSource::Tmpfs => point.kind = "tmpfs".to_owned(),
        PlannedSource::Volume { request, .. } => {
            point.kind = "volume".to_owned();
            point.subpath.clone_from(&request.subpath);
            point.no_copy = request.no_copy;
            // docker's way to show a volume that nobody said anything of.
            if point.mode.is_empty() {
                point.mode = "z".to_owned();
            }
            // Of one that is taken from another container.
            point.anonymous = request.volume_labels.contains_key(super::ANONYMOUS);
        }
        PlannedSource::Image { request } => {
            point.kind = "image".to_owned();
            point.source.clone_from(&request.source);
            point.subpath.clone_from(&request.subpath);
        }
    }
    point
}

/// A recorded mount as it is mounted, and as others take it over.
fn plan(point: &ContainerMount) -> PlannedMount {
    let mut request = Mount {
        kind: point.kind.clone(),
        source: point.source.clone(),
        target: point.target.clone(),
        subpath: point.subpath.clone(),
        no_copy: point.no_copy,
        ..Default::default()
    };
    if point.anonymous {
        request
            .volume_labels
            .insert(super::ANONYMOUS.to_owned(), String::new());
    }
    let source = match point.kind.as_str() {
        "bind" => PlannedSource::Bind {
            path: point.source.clone().into(),
            create: point.create_source,
        },
        "volume" => {
            request.source.clone_from(&point.volume);
            PlannedSource::Volume {
                name: Some(point.volume.clone()),
                request: Box::new(request),
            }
        }
        "image" => PlannedSource::Image {
            request: Box::new(request),
        },
        _ => PlannedSource::Tmpfs,
    };
    PlannedMount {
        target: point.target.clone(),
        source,
        read_only: point.read_only,
        propagation: point.propagation.clone(),
        mode: point.mode.clone(),
        non_recursive: point.non_recursive,
        options: point.options.clone(),
        implicit: false,
    }
}

/// The mounts of a container that exists.
pub(crate) fn planned(shared: &Shared, record: &ContainerRecord) -> Result<Vec<PlannedMount>> {
    let Some(details) = record.details.as_deref() else {
        return Ok(Vec::new());
    };
    if !details.mounts.is_empty() {
        return Ok(details.mounts.iter().map(plan).collect());
    }
    let options = &details.options;
    if options.binds.is_empty() && options.mounts.is_empty() && options.tmpfs.is_empty() {
        return Ok(Vec::new());
    }
    // Made before mounts were recorded, when there were no volumes.
    let mut planned = spec::plan(&shared.inputs(&record.id, options, &details.config))?.mounts;
    planned.retain(|mount| {
        matches!(
            mount.source,
            PlannedSource::Bind { .. } | PlannedSource::Tmpfs
        )
    });
    Ok(planned)
}

/// The mounts of a container as inspect shows them.
pub(crate) fn points(shared: &Shared, ns: &str, record: &ContainerRecord) -> Vec<MountPoint> {
    let recorded = record
        .details
        .as_deref()
        .map(|details| details.mounts.as_slice())
        .unwrap_or_default();
    if recorded.is_empty() {
        // What can't be planned was right at Create; the host has changed since.
        let planned = planned(shared, record).unwrap_or_default();
        return planned
            .iter()
            .map(|mount| point(shared, ns, &self::record(mount)))
            .collect();
    }
    recorded
        .iter()
        .map(|mount| point(shared, ns, mount))
        .collect()
}

fn point(shared: &Shared, ns: &str, mount: &ContainerMount) -> MountPoint {
    let source = match mount.kind.as_str() {
        "volume" if mount.driver == LOCAL => place::data(&shared.config.root, ns, &mount.volume)
            .to_string_lossy()
            .into_owned(),
        "volume" => match shared.store.get::<Volumes>((ns, mount.volume.as_str())) {
            Ok(Some(volume)) => list::mountpoint(shared, ns, &volume),
            // It is shown without rather than not at all.
            Ok(None) | Err(_) => String::new(),
        },
        _ => mount.source.clone(),
    };
    MountPoint {
        kind: mount.kind.clone(),
        name: mount.volume.clone(),
        source,
        destination: mount.target.clone(),
        driver: mount.driver.clone(),
        mode: mount.mode.clone(),
        read_write: !mount.read_only,
        propagation: mount.propagation.clone(),
    }
}
