//! Removing a volume: nobody may have it, the intent says so to all who come
//! later, then the data goes aside, then the record, then the data.

use std::{
    fs,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use davit_store::{
    Tx,
    table::{Containers, IntentRecord, Intents, VolumeRecord, Volumes, container::ContainerRecord},
};
use jiff::Timestamp;

use super::{
    LOCAL, blocking, create, event, list, local, place, settle::Settled, users, users::Users,
};
use crate::{Error, Kind, Result, shared::Shared};

/// Kind of the intent to remove a volume.
pub(super) const INTENT: &str = "volume.remove";

pub(super) fn intent_id(ns: &str, name: &str) -> String {
    format!("{INTENT}/{ns}/{name}")
}

/// Removes a volume for a caller. Goes on to its end when the caller goes away.
pub(super) async fn remove(shared: &Arc<Shared>, ns: &str, name: &str, force: bool) -> Result<()> {
    let (task, of, what) = (Arc::clone(shared), ns.to_owned(), name.to_owned());
    let work = tokio::spawn(async move { remove_in_turn(&task, &of, &what, force).await });
    work.await.unwrap_or_else(|panic| {
        Err(Error::internal("the removal of a volume panicked; this is a bug").with_source(panic))
    })?;
    shared.store.durable().await
}

async fn remove_in_turn(shared: &Shared, ns: &str, name: &str, force: bool) -> Result<()> {
    let key = (ns.to_owned(), name.to_owned());
    if !shared.store.contains::<Volumes>(&key)? {
        // Only its plugin may know it yet.
        match list::find_elsewhere(shared, name).await {
            Some(record) => create::record(shared, ns, &record)?,
            None if force => return Ok(()),
            None => return Err(list::missing(name)),
        }
    }
    let _turn = shared.volumes.turn(&key).await?;
    let Some(record) = shared.store.get::<Volumes>(&key)? else {
        return if force {
            Ok(())
        } else {
            Err(list::missing(name))
        };
    };
    shared.store.transaction(|tx| {
        // Who is being made is known before it is stored, so in this order.
        let held = shared.volumes.held(&key);
        let users = Users::read(shared, ns)?;
        refuse_used(name, held.iter().chain(users.of(name)))?;
        intend(tx, ns, name)
    })?;
    shared.store.written().await?;
    fail::fail_point!("engine.volume.remove.after-intent");
    let removed = finish(shared, ns, &record, force).await;
    if removed.is_err() && shared.store.contains::<Volumes>(&key)? {
        shared
            .store
            .transaction(|tx| tx.delete::<Intents>(&intent_id(ns, name)).map(drop))?;
    }
    removed.map_err(|error| error.context(format!("remove {name}")))
}

fn refuse_used<'a>(name: &str, users: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut ids: Vec<&str> = users.map(String::as_str).collect();
    ids.dedup();
    if ids.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Conflict,
        format!("remove {name}: volume is in use - [{}]", ids.join(", ")),
    ))
}

fn intend(tx: &Tx<'_>, ns: &str, name: &str) -> Result<()> {
    let id = intent_id(ns, name);
    let intent = IntentRecord {
        id: id.clone(),
        namespace: ns.to_owned(),
        kind: INTENT.to_owned(),
        object: name.to_owned(),
        at: Timestamp::now(),
        ..Default::default()
    };
    tx.put::<Intents>(&id, &intent)
}

/// Does what the intent says; the volume's turn is the caller's.
pub(super) async fn finish(
    shared: &Shared,
    ns: &str,
    record: &VolumeRecord,
    force: bool,
) -> Result<()> {
    let mut aside = None;
    if record.driver == LOCAL {
        let dir = place::of_volume(&shared.config.root, ns, &record.name);
        aside = blocking(move || put_aside(&dir)).await?;
        fail::fail_point!("engine.volume.remove.after-rename");
    } else if let Err(error) = remove_at_plugin(shared, record).await {
        if !force {
            return Err(error);
        }
        tracing::warn!(volume = record.name, driver = record.driver, error = %error.chain(), "a volume is forgotten that its plugin did not remove");
    }
    shared.store.transaction(|tx| {
        tx.delete::<Volumes>((ns, record.name.as_str()))?;
        tx.event(event::about(ns, record, "destroy"))?;
        tx.delete::<Intents>(&intent_id(ns, &record.name)).map(drop)
    })?;
    fail::fail_point!("engine.volume.remove.after-record");
    match aside {
        Some(aside) => erase(aside).await,
        None => Ok(()),
    }
}

async fn remove_at_plugin(shared: &Shared, record: &VolumeRecord) -> Result<()> {
    let plugin = shared.volumes.plugins.get(&record.driver).await?;
    match plugin.remove(&record.name).await {
        // It may have gone with the last daemon's try, or behind our back.
        Err(error)
            if error.kind() == Kind::Internal
                && matches!(plugin.get(&record.name).await, Ok(None)) =>
        {
            tracing::debug!(volume = record.name, error = %error.chain(), "the plugin has no such volume");
            Ok(())
        }
        removed => removed,
    }
}

/// Moves a volume's directory to a name that no volume has, from where it is
/// deleted now or at the next start. None when it is not there.
fn put_aside(dir: &Path) -> Result<Option<PathBuf>> {
    local::unmount(&dir.join("_data"))?;
    refuse_mounts(dir)?;
    let aside = dir.with_file_name(format!("{}{}", place::GONE, uuid::Uuid::new_v4().simple()));
    let failed = |error| Error::io(format!("cannot move {} aside", dir.display()), error);
    match fs::rename(dir, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    // A power cut must not bring back a volume whose record is gone.
    if let Some(top) = dir.parent() {
        fs::File::open(top)
            .and_then(|top| top.sync_all())
            .map_err(failed)?;
    }
    Ok(Some(aside))
}

/// What is mounted below is somebody else's and must not be deleted along.
fn refuse_mounts(dir: &Path) -> Result<()> {
    match local::mounts_below(dir)?.first() {
        None => Ok(()),
        Some(place) => Err(Error::precondition(format!(
            "something is mounted at {}; unmount it first",
            place.display()
        ))),
    }
}

/// Deletes a directory with all that is in it, links as links. Nothing there is
/// success.
pub(super) async fn erase(dir: PathBuf) -> Result<()> {
    blocking(move || {
        refuse_mounts(&dir)?;
        let failed = |error| Error::io(format!("cannot remove {}", dir.display()), error);
        let (Some(top), Some(name)) = (dir.parent(), dir.file_name()) else {
            return Ok(());
        };
        match fs::File::open(top) {
            Ok(top) => {
                davit_images::tarball::remove_tree(top.as_fd(), name.as_bytes()).map_err(failed)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(error)),
        }
    })
    .await
}

/// Within the transaction that forgets a container: its anonymous volumes that
/// nobody else has are to go, too.
pub(crate) fn doom(
    shared: &Shared,
    tx: &Tx<'_>,
    ns: &str,
    container: &ContainerRecord,
) -> Result<Vec<String>> {
    let Some(details) = container
        .details
        .as_deref()
        .filter(|details| details.remove_volumes)
    else {
        return Ok(Vec::new());
    };
    let anonymous: Vec<&str> = details
        .mounts
        .iter()
        .filter(|mount| mount.anonymous && !mount.volume.is_empty())
        .map(|mount| mount.volume.as_str())
        .collect();
    if anonymous.is_empty() {
        return Ok(Vec::new());
    }
    let mut doomed = Vec::new();
    let users = Users::read(shared, ns)?;
    for name in anonymous {
        let held = shared.volumes.held(&(ns.to_owned(), name.to_owned()));
        let others = held
            .iter()
            .chain(users.of(name))
            .any(|id| *id != container.id);
        if !others && tx.contains::<Volumes>((ns, name))? {
            intend(tx, ns, name)?;
            doomed.push(name.to_owned());
        }
    }
    Ok(doomed)
}

/// Removes what [`doom`] named. What can't be removed now is tried again at the
/// next start.
pub(crate) async fn finish_doomed(shared: &Shared, ns: &str, doomed: &[String]) {
    for name in doomed {
        if let Err(error) = finish_intent(shared, ns, name).await {
            tracing::warn!(volume = name, error = %error.chain(), "an anonymous volume is left; the next start removes it");
        }
    }
}

/// Finishes the removal of a volume whose intent is there.
pub(super) async fn finish_intent(shared: &Shared, ns: &str, name: &str) -> Result<()> {
    let key = (ns.to_owned(), name.to_owned());
    let _turn = shared.volumes.turn(&key).await?;
    match shared.store.get::<Volumes>(&key)? {
        Some(record) => finish(shared, ns, &record, false).await,
        None => shared
            .store
            .transaction(|tx| tx.delete::<Intents>(&intent_id(ns, name)).map(drop)),
    }
}

/// Removes the volumes that were made for a container that was not made.
pub(crate) async fn undo_created(shared: &Shared, ns: &str, container: &str, names: &[String]) {
    for name in names {
        let undone = async {
            let key = (ns.to_owned(), name.to_owned());
            let _turn = shared.volumes.turn(&key).await?;
            let Some(record) = shared.store.get::<Volumes>(&key)? else {
                return Ok(());
            };
            let doomed = shared.store.transaction(|tx| {
                let held = shared.volumes.held(&key);
                let users = Users::read(shared, ns)?;
                // Another container may have come to it meanwhile.
                if held.iter().chain(users.of(name)).any(|id| id != container) {
                    return Ok(false);
                }
                intend(tx, ns, name).map(|()| true)
            })?;
            if doomed {
                finish(shared, ns, &record, false).await
            } else {
                Ok(())
            }
        };
        if let Err(error) = undone.await {
            tracing::warn!(volume = name, error = %error.chain(), "a volume of a container that was not made is left");
        }
    }
}

/// Whether a stored container has the volume; for recovery.
pub(super) fn is_used(shared: &Shared, ns: &str, name: &str) -> Result<bool> {
    let containers = shared.store.scan_each::<Containers>(ns)?;
    Ok(containers.iter().any(|(_, record)| {
        record
            .as_ref()
            .is_ok_and(|record| users::volumes(record).any(|volume| volume == name))
    }))
}

impl Settled {
    /// Names of the volumes that are made for the container.
    pub(crate) fn names(&self) -> Vec<String> {
        self.make.iter().map(|new| new.name.clone()).collect()
    }
}
