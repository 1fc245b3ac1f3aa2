//! What callers see of a container, short and in full.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use async_stream::try_stream;
use futures::stream::BoxStream;

use crate::{
    Kind, Result,
    index::Handle,
    model::{Container, ContainerDetails, ContainerUsage},
    shared::Shared,
    shim::Bundle,
    spec,
    view::View,
    volumes,
};

/// A container in short form.
pub(crate) fn container(shared: &Shared, ns: &str, view: &View) -> Container {
    let details = view.details().cloned().unwrap_or_default();
    let mut command = vec![details.path.clone()];
    command.extend(details.args.iter().cloned());
    Container {
        id: view.record.id.clone(),
        name: details.name.clone(),
        image: view.record.image.clone(),
        image_id: details.image_id.clone(),
        command,
        created_at: view.record.created_at,
        state: view.state(),
        labels: view.record.labels.clone(),
        size_rw: None,
        size_root_fs: None,
        network_mode: match details.options.network_mode.as_str() {
            "" => "default".to_owned(),
            mode => mode.to_owned(),
        },
        mounts: volumes::points(shared, ns, &view.record),
        exposed_ports: details.config.exposed_ports.clone(),
        endpoints: shared.net.endpoints(&view.record.id, &details),
        published: shared.net.published(&view.record.id),
    }
}

/// [`container`] with the sizes of its layers.
pub(crate) async fn with_sizes(shared: &Shared, handle: &Handle, view: &View) -> Result<Container> {
    let mut short = container(shared, &handle.ns, view);
    let (writable, all) = sizes(shared, &handle.ns, view).await?;
    (short.size_rw, short.size_root_fs) = (Some(writable), Some(all));
    Ok(short)
}

/// Bytes of the writable layer, and of all layers.
async fn sizes(shared: &Shared, ns: &str, view: &View) -> Result<(u64, u64)> {
    let snapshots = shared.images.snapshots(&view.record.snapshotter)?;
    let writable = snapshots.usage(ns, &view.record.snapshot_key).await?.size;
    let mut all = writable;
    let mut key = snapshots.stat(ns, &view.record.snapshot_key)?.parent;
    while !key.is_empty() {
        all += snapshots.usage(ns, &key).await?.size;
        key = snapshots.stat(ns, &key)?.parent;
    }
    Ok((writable, all))
}

/// Everything known about a container.
pub(crate) async fn details(
    shared: &Arc<Shared>,
    handle: &Handle,
    view: &View,
    size: bool,
) -> Result<ContainerDetails> {
    let short = if size {
        with_sizes(shared, handle, view).await?
    } else {
        container(shared, &handle.ns, view)
    };
    let details = view.details().cloned().unwrap_or_default();
    let bundle = Bundle::of(&shared.config.state, &handle.ns, &handle.id);
    let spec_json = if view.run.is_some() {
        tokio::fs::read(bundle.dir.join("config.json"))
            .await
            .unwrap_or_default()
    } else {
        Vec::new()
    };
    let plan = spec::plan(&shared.inputs(&view.record.id, &details.options, &details.config)).ok();
    Ok(ContainerDetails {
        container: short,
        config: details.config,
        path: details.path,
        args: details.args,
        driver: view.record.snapshotter.clone(),
        platform: details.platform,
        log_path: details.log_path,
        hostname_path: details.hostname_path,
        hosts_path: details.hosts_path,
        resolv_conf_path: details.resolv_conf_path,
        spec_json,
        exec_ids: shared.execs.open_of(&handle.id),
        runtime: details.runtime,
        driver_data: driver_data(shared, &handle.ns, view, &bundle.dir),
        image_manifest: details.image_manifest,
        event_number: view.event,
        cgroup_path: plan.map(|plan| plan.cgroup_path).unwrap_or_default(),
        network_namespace: match view.state().pid {
            Some(pid) => format!("/proc/{pid}/ns/net"),
            None => String::new(),
        },
        user: details.options.user.clone(),
        options: details.options,
    })
}

/// The overlay's directories, by docker's names.
fn driver_data(shared: &Shared, ns: &str, view: &View, bundle: &Path) -> BTreeMap<String, String> {
    let mounts = shared
        .images
        .snapshots(&view.record.snapshotter)
        .and_then(|snapshots| snapshots.mounts(ns, &view.record.snapshot_key));
    let mut data = BTreeMap::new();
    for option in mounts.iter().flatten().flat_map(|mount| &mount.options) {
        let (name, value) = match option.split_once('=') {
            Some(("lowerdir", value)) => ("LowerDir", value),
            Some(("upperdir", value)) => ("UpperDir", value),
            Some(("workdir", value)) => ("WorkDir", value),
            Some(_) | None => continue,
        };
        data.insert(name.to_owned(), value.to_owned());
    }
    if !data.is_empty() && view.run.is_some() {
        data.insert(
            "MergedDir".to_owned(),
            bundle.join("rootfs").to_string_lossy().into_owned(),
        );
    }
    data
}

/// The details now, and again on each change until the container is gone.
pub(crate) fn watch(
    shared: Arc<Shared>,
    handle: Handle,
    size: bool,
) -> BoxStream<'static, Result<ContainerDetails>> {
    Box::pin(try_stream! {
        let mut changes = handle.view.clone();
        loop {
            let view = changes.borrow_and_update().clone();
            if view.removed {
                return;
            }
            match details(&shared, &handle, &view, size).await {
                Ok(details) => yield details,
                // It is being removed: the next view says so.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => Err(error)?,
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    })
}

/// What a container costs on disk.
pub(crate) async fn usage(shared: &Shared, handle: &Handle) -> Result<ContainerUsage> {
    let view = handle.now();
    let snapshots = shared.images.snapshots(&view.record.snapshotter)?;
    let writable = snapshots
        .usage(&handle.ns, &view.record.snapshot_key)
        .await?
        .size;
    let log_path = view
        .details()
        .map(|details| details.log_path.clone())
        .unwrap_or_default();
    let logs = tokio::task::spawn_blocking(move || {
        if log_path.is_empty() {
            0
        } else {
            crate::logs::size(Path::new(&log_path))
        }
    });
    Ok(ContainerUsage {
        id: handle.id.to_string(),
        namespace: handle.ns.to_string(),
        writable,
        logs: logs.await.unwrap_or(0),
        reclaimable: !view.is_running() && view.status != crate::model::ContainerStatus::Restarting,
    })
}
