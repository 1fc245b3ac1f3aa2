//! What a daemon does first about volumes: finishes or undoes what was half
//! done, and takes up what running containers have mounted.

use std::{fs, path::Path, sync::Arc};

use davit_store::table::{IntentRecord, Intents, VolumeRecord, Volumes};
use jiff::Timestamp;

use super::{LOCAL, create, fill, is_plain, mounting, place, remove, users};
use crate::{Kind, Result, shared::Shared, spec};

/// Local volumes whose record is gone get it back from the copy beside their
/// data: a lost store must not lose anybody's data, nor the way to it.
fn restore_lost(shared: &Shared) -> Result<()> {
    for (ns, top) in place::namespaces(&shared.config.root) {
        for name in place::directories(&top) {
            let unfit = name.starts_with(['.', '@']) || spec::volume_name(&name).is_err();
            let open = shared
                .store
                .contains::<Intents>(&create::intent_id(&ns, &name))?;
            if unfit || open || shared.store.contains::<Volumes>((&ns, &name))? {
                continue;
            }
            let dir = top.join(&name);
            if !dir.join("_data").is_dir() {
                continue;
            }
            let record = from_copy(&dir, &name);
            tracing::warn!(ns, name, "a volume was found on disk and recorded again");
            shared
                .store
                .transaction(|tx| tx.insert::<Volumes>((&ns, &name), &record))?;
        }
    }
    Ok(())
}

fn from_copy(dir: &Path, name: &str) -> VolumeRecord {
    let copy = fs::read(dir.join(place::COPY)).ok();
    let record = copy.and_then(|bytes| serde_json::from_slice::<VolumeRecord>(&bytes).ok());
    record
        .filter(|record| record.name == name && record.driver == LOCAL)
        .unwrap_or_else(|| VolumeRecord {
            name: name.to_owned(),
            driver: LOCAL.to_owned(),
            created_at: Timestamp::now(),
            ..Default::default()
        })
}

/// Finishes the intents about volumes, once it is known which containers run.
/// What waits for a plugin waits at the same time, and no longer than a list.
pub(crate) async fn recover(shared: &Arc<Shared>) {
    if let Err(error) = restore_lost(shared) {
        tracing::error!(error = %error.chain(), "cannot look for volumes without record");
    }
    take_up(shared);
    match shared.store.scan::<Intents>(()) {
        Ok(intents) => {
            // Removals last: a filling that is undone is one thing less to remove.
            for kind in [
                create::INTENT,
                fill::INTENT,
                mounting::INTENT,
                remove::INTENT,
            ] {
                let of_kind = intents.iter().filter(|(_, intent)| intent.kind == kind);
                let ends = of_kind.map(|(_, intent)| end(shared, intent.clone()));
                futures::future::join_all(ends).await;
            }
        }
        Err(error) => {
            tracing::error!(error = %error.chain(), "cannot read the intents; they are left for the next start");
        }
    }
    sweep(shared);
    shared.volumes.set_recovered();
}

/// Volumes with a mount of ours that containers run with.
fn take_up(shared: &Shared) {
    for handle in shared.index.all() {
        let view = handle.now();
        if view.run.is_none() {
            continue;
        }
        for name in users::volumes(&view.record) {
            let key = (handle.ns.to_string(), name.to_owned());
            let volume = shared.store.get::<Volumes>(&key).ok().flatten();
            if volume.is_some_and(|volume| volume.driver == LOCAL && !is_plain(&volume)) {
                shared.volumes.used(&key, &handle.id);
            }
        }
    }
}

async fn end(shared: &Arc<Shared>, intent: IntentRecord) {
    let (task, id, kind) = (Arc::clone(shared), intent.id.clone(), intent.kind.clone());
    let work = tokio::spawn(async move { end_one(&task, &intent).await });
    // What takes longer goes on behind: a server that hangs must not keep the
    // daemon from starting.
    match tokio::time::timeout(shared.volumes.config.list_timeout, work).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => {
            tracing::warn!(intent = id, error = %error.chain(), "cannot end it; the next start tries again");
        }
        Ok(Err(panic)) => {
            tracing::error!(intent = id, error = %panic, "the recovery of a volume panicked; this is a bug")
        }
        Err(_) => tracing::warn!(
            intent = id,
            kind,
            "its end takes long and goes on in the background"
        ),
    }
}

async fn end_one(shared: &Shared, intent: &IntentRecord) -> Result<()> {
    let (ns, object) = (intent.namespace.as_str(), intent.object.as_str());
    match intent.kind.as_str() {
        create::INTENT => end_create(shared, intent).await,
        fill::INTENT => fill::recover(shared, intent).await,
        mounting::INTENT => {
            let runs = shared
                .index
                .find(ns, object)
                .is_ok_and(|handle| handle.now().run.is_some());
            if !runs {
                mounting::release(shared, ns, object).await;
            }
            Ok(())
        }
        _ if remove::is_used(shared, ns, object)? => shared
            .store
            .transaction(|tx| tx.delete::<Intents>(&intent.id).map(drop)),
        _ => remove::finish_intent(shared, ns, object).await,
    }
}

/// A local volume that was being made is undone. One at a plugin is finished
/// when the plugin has made it: undoing could delete what another host wrote.
async fn end_create(shared: &Shared, intent: &IntentRecord) -> Result<()> {
    let (ns, name) = (intent.namespace.as_str(), intent.object.as_str());
    let record = intent
        .data
        .get("record")
        .and_then(|text| serde_json::from_str::<VolumeRecord>(text).ok());
    let Some(mut record) = record.filter(|record| record.driver != LOCAL) else {
        return create::undo_local(shared, ns, name).await;
    };
    let asked = async {
        shared
            .volumes
            .plugins
            .get(&record.driver)
            .await?
            .get(name)
            .await
    };
    match asked.await {
        Ok(Some(known)) => {
            record.mountpoint = known.mountpoint;
            create::record(shared, ns, &record)
        }
        Ok(None) => shared
            .store
            .transaction(|tx| tx.delete::<Intents>(&intent.id).map(drop)),
        // The plugin itself is gone, and the volume is not ours to look for.
        Err(error) if error.kind() == Kind::NotFound => shared
            .store
            .transaction(|tx| tx.delete::<Intents>(&intent.id).map(drop)),
        Err(error) => Err(error),
    }
}

/// Deletes, in the background, data of volumes whose record is gone.
fn sweep(shared: &Arc<Shared>) {
    for (_, top) in place::namespaces(&shared.config.root) {
        for name in place::directories(&top)
            .into_iter()
            .filter(|name| name.starts_with(place::GONE))
        {
            let dir = top.join(name);
            tokio::spawn(async move {
                if let Err(error) = remove::erase(dir).await {
                    tracing::warn!(error = %error.chain(), "data of a removed volume is left");
                }
            });
        }
    }
}
