//! Making a volume: the intent first, then what the driver does, then the
//! record, its event and the end of the intent in one transaction.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use davit_store::table::{IntentRecord, Intents, VolumeRecord, Volumes};
use jiff::Timestamp;

use super::{
    ANONYMOUS, LOCAL, blocking, event, list, local, place, plugin::Plugin, settle::Settled,
};
use crate::{
    Error, Kind, Result,
    model::{CreateVolumeRequest, CreateVolumeResponse},
    names,
    shared::Shared,
    spec,
};

/// Kind of the intent to make a volume.
pub(super) const INTENT: &str = "volume.create";

/// Makes the volume that a caller asks for. Goes on to its end when the caller
/// goes away.
pub(super) async fn create(
    shared: &Arc<Shared>,
    ns: &str,
    request: CreateVolumeRequest,
) -> Result<CreateVolumeResponse> {
    names::check_namespace(ns)?;
    spec::volume_name(&request.name)?;
    let mut new = VolumeRecord {
        name: request.name,
        driver: request.driver,
        labels: request.labels,
        options: request.options,
        ..Default::default()
    };
    if new.name.is_empty() {
        new.name = names::new_id();
        new.labels.insert(ANONYMOUS.to_owned(), String::new());
    }
    let (labels, options) = (new.labels.clone(), new.options.clone());
    let (task, of) = (Arc::clone(shared), ns.to_owned());
    let work = tokio::spawn(async move { make(&task, &of, new).await });
    let (record, created) = work.await.unwrap_or_else(|panic| {
        Err(Error::internal("the making of a volume panicked; this is a bug").with_source(panic))
    })?;
    shared.store.durable().await?;
    let mut warnings = Vec::new();
    if !created && (labels != record.labels || options != record.options) {
        warnings.push(format!(
            "volume `{}` is there already, with other labels or options; they stay as they are",
            record.name
        ));
    }
    let volume = if created {
        list::unused(shared, ns, record)
    } else {
        list::one(shared, ns, record)?
    };
    Ok(CreateVolumeResponse {
        volume,
        created,
        warnings,
    })
}

/// Makes the volumes that a container is to have and that are not there.
pub(crate) async fn create_for(shared: &Shared, ns: &str, settled: &Settled) -> Result<()> {
    for new in &settled.make {
        make(shared, ns, new.clone()).await?;
        fail::fail_point!("engine.volume.create.of-container");
    }
    Ok(())
}

/// Makes one, or finds it; true when it was made.
pub(super) async fn make(
    shared: &Shared,
    ns: &str,
    mut new: VolumeRecord,
) -> Result<(VolumeRecord, bool)> {
    if new.driver.is_empty() {
        new.driver = LOCAL.to_owned();
    }
    let name = new.name.clone();
    let made = make_in_turn(shared, ns, new).await;
    made.map_err(|error| error.context(format!("create {name}")))
}

async fn make_in_turn(
    shared: &Shared,
    ns: &str,
    mut new: VolumeRecord,
) -> Result<(VolumeRecord, bool)> {
    let key = (ns.to_owned(), new.name.clone());
    let _turn = shared.volumes.turn(&key).await?;
    if let Some(found) = shared.store.get::<Volumes>(&key)? {
        return same_driver(&found, &new.driver).map(|()| (found, false));
    }
    new.created_at = Timestamp::now();
    if new.driver == LOCAL {
        local::check(&new.options)?;
        make_local(shared, ns, &new).await?;
    } else {
        let plugin = shared.volumes.plugins.get(&new.driver).await?;
        new.scope = plugin.scope().await;
        make_at(shared, ns, &plugin, &mut new).await?;
    }
    fail::fail_point!("engine.volume.create.after-record");
    Ok((new, true))
}

/// `Conflict` when a volume's driver is another one.
pub(super) fn same_driver(found: &VolumeRecord, driver: &str) -> Result<()> {
    if found.driver == driver {
        return Ok(());
    }
    Err(Error::new(
        Kind::Conflict,
        format!(
            "volume name must be unique: {} exists with driver {:?}",
            found.name, found.driver
        ),
    ))
}

async fn make_local(shared: &Shared, ns: &str, new: &VolumeRecord) -> Result<()> {
    let dir = place::of_volume(&shared.config.root, ns, &new.name);
    // What lies there without a record is somebody's: it is taken as it is,
    // and never undone.
    let ours = !dir.exists();
    if ours {
        intend(shared, ns, new).await?;
    }
    let (copied, place) = (new.clone(), dir.clone());
    let made = blocking(move || make_directories(&place, &copied)).await;
    if let Err(error) = made {
        if ours {
            undo_local(shared, ns, &new.name).await?;
        }
        return Err(error);
    }
    fail::fail_point!("engine.volume.create.after-directory");
    record(shared, ns, new)
}

fn make_directories(dir: &Path, record: &VolumeRecord) -> Result<()> {
    let failed = |error| Error::io(format!("cannot make {}", dir.display()), error);
    let make = |path: &Path, mode| match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        // Whatever the umask is.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(_) => Ok(()),
    };
    let top = dir.parent().unwrap_or(dir);
    fs::create_dir_all(top).map_err(failed)?;
    // Others may pass, as with docker: rootless users of binds do.
    make(dir, 0o701).map_err(failed)?;
    make(&dir.join("_data"), 0o755).map_err(failed)?;
    let copy = serde_json::to_vec(record)
        .map_err(|error| Error::internal("cannot encode a volume's record").with_source(error))?;
    fs::write(dir.join(place::COPY), copy).map_err(failed)?;
    for place in [dir, top] {
        fs::File::open(place)
            .and_then(|place| place.sync_all())
            .map_err(failed)?;
    }
    Ok(())
}

/// Removes a directory that was being made, and its intent.
pub(super) async fn undo_local(shared: &Shared, ns: &str, name: &str) -> Result<()> {
    let dir = place::of_volume(&shared.config.root, ns, name);
    super::remove::erase(dir).await?;
    shared
        .store
        .transaction(|tx| tx.delete::<Intents>(&intent_id(ns, name)).map(drop))
}

/// Makes a volume at its plugin; one that the plugin has already is taken.
async fn make_at(shared: &Shared, ns: &str, plugin: &Plugin, new: &mut VolumeRecord) -> Result<()> {
    if let Some(known) = plugin.get(&new.name).await? {
        new.mountpoint = known.mountpoint;
        return record(shared, ns, new);
    }
    intend(shared, ns, new).await?;
    if let Err(error) = plugin.create(&new.name, &new.options).await {
        // One that did not answer may still make it: the next daemon looks.
        if error.kind() != Kind::DeadlineExceeded {
            shared
                .store
                .transaction(|tx| tx.delete::<Intents>(&intent_id(ns, &new.name)).map(drop))?;
        }
        return Err(error);
    }
    fail::fail_point!("engine.volume.create.after-plugin");
    if let Ok(Some(known)) = plugin.get(&new.name).await {
        new.mountpoint = known.mountpoint;
    }
    record(shared, ns, new)
}

/// Records what is about to be made, so that a crash leaves none of it.
async fn intend(shared: &Shared, ns: &str, new: &VolumeRecord) -> Result<()> {
    let id = intent_id(ns, &new.name);
    let record = serde_json::to_string(new)
        .map_err(|error| Error::internal("cannot encode a volume's record").with_source(error))?;
    let intent = IntentRecord {
        id: id.clone(),
        namespace: ns.to_owned(),
        kind: INTENT.to_owned(),
        object: new.name.clone(),
        data: [("record".to_owned(), record)].into(),
        at: Timestamp::now(),
    };
    shared
        .store
        .transaction(|tx| tx.put::<Intents>(&id, &intent))?;
    shared.store.written().await?;
    fail::fail_point!("engine.volume.create.after-intent");
    Ok(())
}

/// The record and its event; the intent is over.
pub(super) fn record(shared: &Shared, ns: &str, record: &VolumeRecord) -> Result<()> {
    shared.store.transaction(|tx| {
        tx.insert::<Volumes>((ns, record.name.as_str()), record)?;
        tx.event(event::about(ns, record, "create"))?;
        tx.delete::<Intents>(&intent_id(ns, &record.name)).map(drop)
    })
}

pub(super) fn intent_id(ns: &str, name: &str) -> String {
    format!("{INTENT}/{ns}/{name}")
}
