//! Making a container: nothing runs, but its files and its record are there.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use davit_images::{Kind as ImagesKind, Operation, images::Images};
use davit_store::{
    options::ContainerOptions,
    table::{
        Containers, IntentRecord, Intents,
        container::{ContainerRecord, Details, Runtime},
    },
};
use jiff::Timestamp;

use crate::{
    Error, Kind, Result,
    actor::{self, Revived},
    events::Draft,
    index::Reservation,
    log_options::LogOptions,
    model::{CreateContainerRequest, CreateContainerResponse},
    names,
    policy::Restart,
    shared::Shared,
    spec,
    volumes::{self, Settled},
};

/// Tries for a made-up name that is free.
const NAME_TRIES: u32 = 10;

/// Makes a container. The work goes on to its end when the caller goes away:
/// half of it must not be left.
pub(crate) async fn create(
    shared: &Arc<Shared>,
    ns: &str,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse> {
    let (shared, ns) = (Arc::clone(shared), ns.to_owned());
    let work = tokio::spawn(async move { make(&shared, &ns, request).await });
    work.await.unwrap_or_else(|panic| {
        Err(Error::internal("the making of a container panicked; this is a bug").with_source(panic))
    })
}

async fn make(
    shared: &Arc<Shared>,
    ns: &str,
    mut request: CreateContainerRequest,
) -> Result<CreateContainerResponse> {
    names::check_namespace(ns)?;
    check(shared, &request)?;
    let options = &mut request.options;
    for mode in [
        &mut options.network_mode,
        &mut options.pid_mode,
        &mut options.ipc_mode,
    ] {
        pin_donor(shared, ns, mode)?;
    }
    let id = if request.id.is_empty() {
        names::new_id()
    } else {
        request.id.clone()
    };
    let (name, reservation) = reserve(shared, ns, &request.name, &id)?;
    let op = shared.images.leases().operation(ns);
    let image = shared
        .images
        .resolve(ns, &request.image, request.platform.as_ref())
        .await?;
    let plan = spec::plan(&shared.inputs(&id, &request.options, &image.config))?;
    let networks = shared.net.resolve(ns, &request.options)?;
    let mut warnings = plan.warnings.clone();
    warnings.extend(unpublished(&request.options)?);
    let settled = volumes::settle(
        shared,
        (ns, &id),
        &op,
        &request.options,
        plan.mounts,
        &mut warnings,
    )
    .await?;
    let dir = container_dir(&shared.config.root, ns, &id);
    let runtime = chosen(shared, &request.options);
    let details = Details {
        name: name.clone(),
        image_id: image.image_id.clone(),
        image_manifest: Some(image.manifest.clone()),
        config: plan.config,
        path: plan.path,
        args: plan.args,
        platform: "linux".to_owned(),
        runtime,
        log_path: log_path(shared, &request.options, &dir, &id)?,
        hostname_path: dir.join("hostname").to_string_lossy().into_owned(),
        hosts_path: dir.join("hosts").to_string_lossy().into_owned(),
        resolv_conf_path: dir.join("resolv.conf").to_string_lossy().into_owned(),
        dir: dir.to_string_lossy().into_owned(),
        options: request.options,
        networks,
        mounts: settled.mounts.clone(),
        ..Default::default()
    };
    let now = Timestamp::now();
    let record = ContainerRecord {
        id: id.clone(),
        labels: details.config.labels.clone(),
        image: request.image,
        runtime: Runtime {
            name: "io.containerd.davit.v2".to_owned(),
            options: None,
        },
        snapshotter: shared
            .images
            .snapshots(&shared.config.snapshotter)?
            .name()
            .to_owned(),
        snapshot_key: id.clone(),
        created_at: now,
        updated_at: now,
        details: Some(Box::new(details)),
        ..Default::default()
    };
    intend(shared, ns, &record, &settled)?;
    if let Err(error) = store(shared, ns, &op, &image, &record, &settled, &dir).await {
        undo(shared, ns, &record, &settled).await;
        return Err(error);
    }
    let handle = actor::spawn(shared, ns, record, Revived::Idle);
    shared.index.insert(handle);
    reservation.keep();
    shared.store.durable().await?;
    fail::fail_point!("engine.create.after-durable");
    Ok(CreateContainerResponse { id, warnings, name })
}

/// What can be refused without looking at the image.
fn check(shared: &Shared, request: &CreateContainerRequest) -> Result<()> {
    let options = &request.options;
    if !request.id.is_empty() && !names::is_id(&request.id) {
        return Err(Error::invalid(format!(
            "invalid container id {:?}: 64 lower-case hex digits are needed",
            request.id
        )));
    }
    if request.image.is_empty() {
        return Err(Error::invalid(
            "no image given: name the image that the container is to be made from",
        ));
    }
    if Restart::parse(&options.restart_policy)? != Restart::No && options.auto_remove {
        return Err(Error::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    LogOptions::of(&shared.config, &options.log)?;
    shared.runtime_path(&options.runtime)?;
    Ok(())
}

/// Makes "container:<name>" name the container that has the name now.
fn pin_donor(shared: &Shared, ns: &str, mode: &mut String) -> Result<()> {
    if let Some(donor) = mode
        .strip_prefix("container:")
        .filter(|donor| !donor.is_empty())
    {
        *mode = format!("container:{}", shared.index.find(ns, donor)?.id);
    }
    Ok(())
}

fn reserve(shared: &Arc<Shared>, ns: &str, name: &str, id: &str) -> Result<(String, Reservation)> {
    if !name.is_empty() {
        let name = names::check(name)?;
        return Ok((name.to_owned(), shared.index.reserve(ns, name, id)?));
    }
    let mut attempt = 0;
    loop {
        let name = names::generate(uuid::Uuid::new_v4().as_u128(), attempt);
        match shared.index.reserve(ns, &name, id) {
            Ok(reservation) => return Ok((name, reservation)),
            Err(error) if error.kind() == Kind::Conflict && attempt < NAME_TRIES => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Ports are published on davit's own networks only; whoever asks for them
/// elsewhere is told so, in docker's words for the host's network.
fn unpublished(options: &ContainerOptions) -> Result<Option<String>> {
    let publishes = !options.ports.is_empty() || options.publish_all_ports;
    Ok(match spec::NetworkMode::parse(&options.network_mode)? {
        spec::NetworkMode::Host if publishes => {
            Some("Published ports are discarded when using host network mode".to_owned())
        }
        spec::NetworkMode::None if publishes => {
            Some("Published ports are discarded when using no network".to_owned())
        }
        spec::NetworkMode::Container(_) if publishes => {
            return Err(Error::invalid(
                "conflicting options: port publishing and the container type network mode",
            ));
        }
        _ => None,
    })
}

fn chosen(shared: &Shared, options: &ContainerOptions) -> String {
    if options.runtime.is_empty() {
        shared.config.default_runtime.clone()
    } else {
        options.runtime.clone()
    }
}

fn log_path(shared: &Shared, options: &ContainerOptions, dir: &Path, id: &str) -> Result<String> {
    Ok(match LogOptions::of(&shared.config, &options.log)? {
        LogOptions::None => String::new(),
        LogOptions::JsonFile { .. } => dir
            .join(format!("{id}-json.log"))
            .to_string_lossy()
            .into_owned(),
    })
}

/// Where a container's own files lie.
pub(crate) fn container_dir(root: &Path, ns: &str, id: &str) -> PathBuf {
    root.join("containers").join(ns).join(id)
}

/// Label of the snapshot that says whose writable layer it is.
pub(crate) const LABEL: &str = "davit.io/container";

/// Names of the volumes that are made with a container, in its intent.
pub(crate) const VOLUMES: &str = "volumes";

/// Kind of the intent to make a container.
pub(crate) const INTENT: &str = "container.create";

fn intent_id(ns: &str, id: &str) -> String {
    format!("{INTENT}/{ns}/{id}")
}

/// Records what is about to be made, so that a crash leaves none of it.
fn intend(shared: &Shared, ns: &str, record: &ContainerRecord, settled: &Settled) -> Result<()> {
    let key = intent_id(ns, &record.id);
    let intent = IntentRecord {
        id: key.clone(),
        namespace: ns.to_owned(),
        kind: INTENT.to_owned(),
        object: record.id.clone(),
        data: [
            ("snapshotter".to_owned(), record.snapshotter.clone()),
            (VOLUMES.to_owned(), settled.names().join(",")),
        ]
        .into(),
        at: Timestamp::now(),
    };
    shared
        .store
        .transaction(|tx| tx.put::<Intents>(&key, &intent))
}

async fn store(
    shared: &Arc<Shared>,
    ns: &str,
    op: &Operation,
    image: &davit_images::image::Resolved,
    record: &ContainerRecord,
    settled: &Settled,
    dir: &Path,
) -> Result<()> {
    fail::fail_point!("engine.create.after-intent");
    let parent = shared.images.unpack(op, image).await?;
    let labels = [(LABEL.to_owned(), record.id.clone())].into();
    shared
        .images
        .snapshots(&record.snapshotter)?
        .prepare(op, &record.snapshot_key, &parent, labels)
        .await?;
    fail::fail_point!("engine.create.after-snapshot");
    make_views(shared, op, record, settled).await?;
    volumes::create_for(shared, ns, settled).await?;
    volumes::fill(shared, ns, record).await?;
    tokio::fs::create_dir_all(dir)
        .await
        .map_err(|error| Error::io(format!("cannot make {}", dir.display()), error))?;
    shared.copy_record(record).await;
    fail::fail_point!("engine.create.after-dir");
    let key = intent_id(ns, &record.id);
    shared.store.transaction(|tx| {
        volumes::still_there(tx, ns, &settled.mounts)?;
        tx.insert::<Containers>((ns, record.id.as_str()), record)?;
        tx.event(Draft::new("create").about(ns, record))?;
        tx.delete::<Intents>(&key)
    })?;
    fail::fail_point!("engine.create.after-record");
    Ok(())
}

/// Views of the images that the container mounts.
async fn make_views(
    shared: &Shared,
    op: &Operation,
    record: &ContainerRecord,
    settled: &Settled,
) -> Result<()> {
    let snapshots = shared.images.snapshots(&record.snapshotter)?;
    for (key, image) in &settled.views {
        let parent = shared.images.unpack(op, image).await?;
        let labels = [(LABEL.to_owned(), record.id.clone())].into();
        snapshots.view(op, key, &parent, labels).await?;
    }
    Ok(())
}

async fn undo(shared: &Shared, ns: &str, record: &ContainerRecord, settled: &Settled) {
    volumes::undo_created(shared, ns, &record.id, &settled.names()).await;
    if let Ok(snapshots) = shared.images.snapshots(&record.snapshotter) {
        for (key, _) in &settled.views {
            // One that stays is removed at the next start: it has no owner.
            let _ = snapshots.remove(ns, key).await;
        }
    }
    let undone = erase(
        &shared.images,
        &shared.config.root,
        ns,
        &record.snapshotter,
        &record.id,
    )
    .await;
    let undone = undone.and_then(|()| {
        shared
            .store
            .transaction(|tx| tx.delete::<Intents>(&intent_id(ns, &record.id)).map(|_| ()))
    });
    if let Err(error) = undone {
        // The intent stays, and the next daemon tries again.
        tracing::warn!(container = record.id, error = %error.chain(), "a container that was not made is not all gone");
    }
}

/// Removes what a container that has no record may have left.
pub(crate) async fn erase(
    images: &Images,
    root: &Path,
    ns: &str,
    snapshotter: &str,
    id: &str,
) -> Result<()> {
    match images.snapshots(snapshotter)?.remove(ns, id).await {
        Ok(()) => {}
        Err(error) if error.kind() == ImagesKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let dir = container_dir(root, ns, id);
    match tokio::fs::remove_dir_all(&dir).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("cannot remove {}", dir.display()), error)),
    }
}
