//! What a daemon does first: finds what the last one left, finishes or undoes
//! what was half done, and takes up what runs.

mod check;
mod orphans;
mod records;
mod revive;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use davit_store::table::{
    Containers, Intents,
    container::{ContainerRecord, Phase},
};
use tokio::task::JoinSet;

use crate::{
    Error, Result,
    actor::{self, Command, Revived},
    create, exec,
    shared::Shared,
    shim::Bundle,
    volumes,
};

pub use check::check;
pub(crate) use records::COPY;

/// Namespaces and ids of containers.
type Keys = HashSet<(String, String)>;

/// Brings everything into a state that is known.
pub(crate) async fn recover(shared: &Arc<Shared>) -> Result<()> {
    make_directories(shared)?;
    let rebooted = forget_other_boot(shared)?;
    records::restore_lost(shared)?;
    finish_intents(shared).await;
    let (records, known) = records::read(shared)?;
    let mut revivals = JoinSet::new();
    for (ns, record) in records {
        let shared = Arc::clone(shared);
        revivals.spawn(async move {
            let found = revive::revive(&shared, &ns, &record, rebooted).await;
            (ns, record, found)
        });
    }
    while let Some(joined) = revivals.join_next().await {
        match joined {
            Ok((ns, record, found)) => take_up(shared, &ns, record, found),
            Err(panic) => {
                tracing::error!(error = %panic, "the recovery of a container panicked; this is a bug")
            }
        }
    }
    let servers = |id: &str| {
        let found = shared
            .index
            .all()
            .into_iter()
            .find(|handle| *handle.id == *id);
        let view = found.map(|handle| handle.now());
        view.and_then(|view| view.details().map(|details| details.options.dns.clone()))
            .unwrap_or_default()
    };
    if let Err(error) = shared.net.reconcile(servers).await {
        tracing::error!(error = %error.chain(), "the host's networks are not all as they should be");
    }
    keep_peers(shared);
    // Now that it is known which containers run and which are there at all.
    volumes::recover(shared).await;
    orphans::clear(shared, &known);
    for handle in shared.index.all() {
        // Mailboxes are new: there is room.
        let _ = handle.mailbox.send(Command::Boot).await;
    }
    Ok(())
}

/// Keeps what containers see of each other in /etc/hosts up to date.
fn keep_peers(shared: &Arc<Shared>) {
    let (work, changes) = (Arc::downgrade(shared), shared.net.changes());
    shared.spawn(async move {
        loop {
            changes.notified().await;
            let Some(shared) = work.upgrade() else { return };
            let written = tokio::task::spawn_blocking(move || shared.net.write_peers()).await;
            if let Err(panic) = written {
                tracing::error!(error = %panic, "writing hosts files panicked; this is a bug");
            }
        }
    });
}

fn make_directories(shared: &Shared) -> Result<()> {
    let (root, state) = (&shared.config.root, &shared.config.state);
    for directory in [
        root.join("containers"),
        state.join("shims"),
        state.join("s"),
        state.join("runtime-root"),
        root.join("volumes"),
    ] {
        std::fs::create_dir_all(&directory)
            .map_err(|error| Error::io(format!("cannot make {}", directory.display()), error))?;
    }
    Ok(())
}

/// Drops the state of another boot, when the state directory outlives one;
/// true when there was a reboot since the last daemon.
fn forget_other_boot(shared: &Shared) -> Result<bool> {
    let state = &shared.config.state;
    let marker = state.join("boot-id");
    let now = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|error| Error::io("cannot read the machine's boot id", error))?;
    let before = std::fs::read_to_string(&marker).unwrap_or_default();
    if !before.is_empty() && before != now {
        for bundle in bundles(state) {
            if let Err(error) = bundle.2.remove() {
                tracing::warn!(error = %error.chain(), "a bundle of another boot is left");
            }
        }
        // What runtimes noted of containers that a reboot has ended.
        let _ = std::fs::remove_dir_all(state.join("runtime-root"));
        make_directories(shared)?;
    }
    if before != now {
        std::fs::write(&marker, &now)
            .map_err(|error| Error::io(format!("cannot write {}", marker.display()), error))?;
    }
    Ok(before != now)
}

/// Undoes containers that were being made; those whose record is there are.
async fn finish_intents(shared: &Shared) {
    let intents = match shared.store.scan::<Intents>(()) {
        Ok(intents) => intents,
        Err(error) => {
            tracing::error!(error = %error.chain(), "cannot read the intents; they are left for the next start");
            return;
        }
    };
    for (key, intent) in intents
        .into_iter()
        .filter(|(_, intent)| intent.kind == create::INTENT)
    {
        let undone = async {
            if !shared
                .store
                .contains::<Containers>((&intent.namespace, &intent.object))?
            {
                let snapshotter = intent.data.get("snapshotter").map_or("", String::as_str);
                let root = &shared.config.root;
                create::erase(
                    &shared.images,
                    root,
                    &intent.namespace,
                    snapshotter,
                    &intent.object,
                )
                .await?;
                let made = intent.data.get(create::VOLUMES).map_or("", String::as_str);
                let made: Vec<String> = made
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect();
                volumes::undo_created(shared, &intent.namespace, &intent.object, &made).await;
            }
            shared
                .store
                .transaction(|tx| tx.delete::<Intents>(&key).map(|_| ()))
        };
        if let Err(error) = undone.await {
            tracing::warn!(intent = key, error = %error.chain(), "cannot undo it; the next start tries again");
        }
    }
}

fn take_up(shared: &Arc<Shared>, ns: &str, record: ContainerRecord, found: Revived) {
    let details = record.details.as_deref();
    let name = details
        .map(|details| details.name.clone())
        .unwrap_or_default();
    let removing =
        details.is_some_and(|details| matches!(details.state.phase, Phase::Removing | Phase::Dead));
    let run = match &found {
        Revived::Running { run, .. } => Some(Arc::clone(run)),
        Revived::Idle | Revived::Ended { .. } | Revived::Over { .. } | Revived::Gone { .. } => None,
    };
    if !removing {
        // Names are derived from records, so two with one name is a bug of an
        // earlier daemon; both stay reachable by id.
        match shared.index.reserve_for(ns, &name, &record.id) {
            Ok(reservation) => reservation.keep(),
            Err(error) => {
                tracing::error!(container = record.id, error = %error, "two containers have one name")
            }
        }
    }
    if let Some(run) = &run {
        shared.net.adopt(&record.id, &name, &run.bundle);
    }
    let handle = actor::spawn(shared, ns, record, found);
    shared.index.insert(handle.clone());
    if let Some(run) = run {
        exec::recover(shared, &handle, &run);
    }
}

/// Every bundle: namespace, id, paths.
fn bundles(state: &Path) -> Vec<(String, String, Bundle)> {
    pairs(&state.join("shims"))
        .into_iter()
        .map(|(ns, id)| {
            let bundle = Bundle::of(state, &ns, &id);
            (ns, id, bundle)
        })
        .collect()
}

/// Every container's directory: namespace, id, path.
fn container_dirs(root: &Path) -> Vec<(String, String, PathBuf)> {
    pairs(&root.join("containers"))
        .into_iter()
        .map(|(ns, id)| {
            let dir = create::container_dir(root, &ns, &id);
            (ns, id, dir)
        })
        .collect()
}

/// Names of directories two levels below `top`.
fn pairs(top: &Path) -> Vec<(String, String)> {
    let list = |path: &Path| -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(path) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    };
    list(top)
        .into_iter()
        .flat_map(|ns| {
            list(&top.join(&ns))
                .into_iter()
                .map(move |id| (ns.clone(), id))
        })
        .collect()
}
