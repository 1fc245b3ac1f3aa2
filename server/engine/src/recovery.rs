//! What a daemon does first: finds what the last one left, finishes or undoes
//! what was half done, and takes up what runs.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use davit_store::table::{
    Containers, Intents, Meta,
    container::{ContainerRecord, Phase},
    meta::MetaRecord,
};
use jiff::Timestamp;
use tokio::task::JoinSet;

use crate::{
    Error, Kind, Result,
    actor::{self, Command, Revived},
    create, exec, names,
    shared::Shared,
    shim::{Bundle, Client, Ending, Exit, NewRun, Run, RunFile},
};

/// Longest wait for a shim's first answer; one that is slower runs on and is
/// asked again by whoever needs it.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Name of the fact that says that this store has known an engine.
const OPENED: &str = "engine/opened";
/// Copy of a container's record beside its log, for a store that is lost.
pub(crate) const COPY: &str = "container.json";

/// Brings everything into a state that is known.
pub(crate) async fn recover(shared: &Arc<Shared>) -> Result<()> {
    make_directories(shared)?;
    let rebooted = forget_other_boot(shared)?;
    restore_lost_records(shared)?;
    finish_intents(shared).await;
    let records = records(shared)?;
    let known = records
        .iter()
        .map(|(ns, record)| (ns.clone(), record.id.clone()))
        .collect::<HashSet<_>>();
    let mut revivals = JoinSet::new();
    for (ns, record) in records {
        let shared = Arc::clone(shared);
        revivals.spawn(async move {
            let found = revive(&shared, &ns, &record, rebooted).await;
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
    clear_orphans(shared, &known);
    for handle in shared.index.all() {
        // Mailboxes are new: there is room.
        let _ = handle.mailbox.send(Command::Boot).await;
    }
    Ok(())
}

fn make_directories(shared: &Shared) -> Result<()> {
    let (root, state) = (&shared.config.root, &shared.config.state);
    for directory in [
        root.join("containers"),
        state.join("shims"),
        state.join("s"),
        state.join("runtime-root"),
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
    }
    if before != now {
        std::fs::write(&marker, &now)
            .map_err(|error| Error::io(format!("cannot write {}", marker.display()), error))?;
    }
    Ok(before != now)
}

/// A new store beside old containers is one that was lost: their records come
/// back from the copies.
fn restore_lost_records(shared: &Shared) -> Result<()> {
    let fresh = shared.store.get::<Meta>(OPENED)?.is_none();
    if !fresh {
        return Ok(());
    }
    for (ns, id, dir) in container_dirs(&shared.config.root) {
        let Ok(bytes) = std::fs::read(dir.join(COPY)) else {
            continue;
        };
        match serde_json::from_slice::<ContainerRecord>(&bytes) {
            Ok(mut record) if record.id == id && record.details.is_some() => {
                if let Some(details) = record.details.as_deref_mut() {
                    // It may have run; its bundle tells.
                    details.state.phase = Phase::Exited;
                    details.state.has_been_started = true;
                }
                shared
                    .store
                    .transaction(|tx| tx.put::<Containers>((&ns, &id), &record))?;
                tracing::warn!(
                    container = id,
                    "a container was found on disk and recorded again"
                );
            }
            Ok(_) | Err(_) => {
                tracing::warn!(dir = %dir.display(), "the copy of a container's record is broken")
            }
        }
    }
    let at = MetaRecord {
        text: Timestamp::now().to_string(),
        ..Default::default()
    };
    shared.store.transaction(|tx| tx.put::<Meta>(OPENED, &at))
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

fn records(shared: &Shared) -> Result<Vec<(String, ContainerRecord)>> {
    let records = shared.store.scan::<Containers>(())?;
    Ok(records
        .into_iter()
        .filter(|((ns, id), record)| {
            let ours = record.details.is_some();
            let right = record.id == *id && names::check_namespace(ns).is_ok();
            if ours && !right {
                tracing::error!(
                    ns,
                    id,
                    "a container's record does not fit its key; it is left alone"
                );
            }
            ours && right
        })
        .map(|((ns, _), record)| (ns, record))
        .collect())
}

/// Finds out how a container stands.
async fn revive(
    shared: &Arc<Shared>,
    ns: &str,
    record: &ContainerRecord,
    rebooted: bool,
) -> Revived {
    let bundle = Bundle::of(&shared.config.state, ns, &record.id);
    let facts = record
        .details
        .as_deref()
        .map(|details| details.state.clone())
        .unwrap_or_default();
    if !bundle.dir.exists() {
        return match facts.phase {
            Phase::Running | Phase::Paused => Revived::Gone {
                reason: gone_reason(rebooted),
            },
            Phase::Created | Phase::Restarting | Phase::Exited | Phase::Removing | Phase::Dead => {
                Revived::Idle
            }
        };
    }
    let Some(file) = bundle.read::<RunFile>("run.json") else {
        // It was being started.
        abandon(shared, ns, &record.id, &bundle, None).await;
        return Revived::Idle;
    };
    if matches!(facts.phase, Phase::Removing | Phase::Dead) {
        abandon(shared, ns, &record.id, &bundle, Some(file.shim_pid)).await;
        return Revived::Idle;
    }
    let backoff = file.backoff_ms.map(Duration::from_millis);
    let from_file = |bundle: &Bundle| {
        bundle.exit("").map(|exit| Ending::Exited {
            exit: Exit {
                code: exit.code,
                at: exit.at,
            },
            oom: exit.oom,
        })
    };
    let lost = |reason: String| Ending::Lost { reason };
    let client = match Client::connect(&bundle.socket, ns, &record.id, shared.deadlines()) {
        Ok(client) => client,
        Err(error) => {
            // The socket's file may be gone while the shim lives.
            shared.end_shim(file.shim_pid, &bundle).await;
            let ending = from_file(&bundle)
                .unwrap_or_else(|| lost(format!("the shim is gone: {}", error.chain())));
            return ended(shared, ns, record, &bundle, &file, None, ending, backoff).await;
        }
    };
    let state = tokio::time::timeout(ANSWER_WITHIN, client.state("")).await;
    let new_run = |client| new_run(shared, ns, record, &bundle, &file, client);
    match state {
        Err(_) => {
            tracing::warn!(
                container = record.id,
                "the shim has not answered; the container is taken to run on"
            );
            Revived::Running {
                run: Arc::new(new_run(client)),
                paused: facts.phase == Phase::Paused,
                backoff,
            }
        }
        Ok(Ok(state)) if state.created => {
            abandon(shared, ns, &record.id, &bundle, Some(file.shim_pid)).await;
            Revived::Idle
        }
        Ok(Ok(state)) => match state.exit {
            None => Revived::Running {
                run: Arc::new(new_run(client)),
                paused: state.paused,
                backoff,
            },
            Some(exit) => {
                let ending = from_file(&bundle).unwrap_or(Ending::Exited { exit, oom: false });
                ended(
                    shared,
                    ns,
                    record,
                    &bundle,
                    &file,
                    Some(client),
                    ending,
                    backoff,
                )
                .await
            }
        },
        Ok(Err(error)) => {
            let ending = from_file(&bundle).unwrap_or_else(|| lost(error.chain()));
            ended(
                shared,
                ns,
                record,
                &bundle,
                &file,
                Some(client),
                ending,
                backoff,
            )
            .await
        }
    }
}

fn gone_reason(rebooted: bool) -> String {
    if rebooted {
        "the machine was restarted; how the container ended is not known".to_owned()
    } else {
        "the container's shim and its state are gone; how it ended is not known".to_owned()
    }
}

fn new_run(
    shared: &Shared,
    ns: &str,
    record: &ContainerRecord,
    bundle: &Bundle,
    file: &RunFile,
    client: Client,
) -> Run {
    Run::new(NewRun {
        number: shared.next_run(),
        ns: ns.to_owned(),
        id: record.id.clone(),
        bundle: bundle.clone(),
        started_at: file.started_at,
        shim_pid: file.shim_pid,
        pid: file.pid,
        deadlines: shared.deadlines(),
        client,
    })
}

/// A run that is over. One whose end is recorded already, and whose shim had
/// only not been told, is cleaned up without a second event.
#[allow(clippy::too_many_arguments)]
async fn ended(
    shared: &Arc<Shared>,
    ns: &str,
    record: &ContainerRecord,
    bundle: &Bundle,
    file: &RunFile,
    client: Option<Client>,
    ending: Ending,
    backoff: Option<Duration>,
) -> Revived {
    let facts = record
        .details
        .as_deref()
        .map(|details| details.state.clone())
        .unwrap_or_default();
    let recorded = match (&ending, facts.phase) {
        (Ending::Exited { exit, .. }, Phase::Exited | Phase::Restarting) => {
            facts.finished_at == Some(exit.at)
        }
        (Ending::Lost { .. }, Phase::Exited | Phase::Restarting) => {
            facts.started_at == Some(file.started_at)
        }
        (_, Phase::Created | Phase::Running | Phase::Paused | Phase::Removing | Phase::Dead) => {
            false
        }
    };
    let Some(client) = client else {
        // No shim to talk to: a run over a socket that refuses would do, but
        // cleaning up first frees what the dead shim held.
        let (exit, reason) = match ending {
            Ending::Exited { exit, oom } => (Some((exit, oom)), String::new()),
            Ending::Lost { reason } => (None, reason),
        };
        abandon(shared, ns, &record.id, bundle, Some(file.shim_pid)).await;
        if recorded {
            return Revived::Idle;
        }
        return match exit {
            Some((exit, oom)) => Revived::Over {
                exit,
                oom,
                started_at: file.started_at,
                backoff,
            },
            None => Revived::Gone { reason },
        };
    };
    let run = Arc::new(new_run(shared, ns, record, bundle, file, client));
    if recorded {
        shared
            .retire(&run, matches!(ending, Ending::Lost { .. }))
            .await;
        return Revived::Idle;
    }
    Revived::Ended {
        run,
        ending,
        backoff,
    }
}

/// Ends a run that never came to be, or whose container goes away.
async fn abandon(shared: &Shared, ns: &str, id: &str, bundle: &Bundle, shim_pid: Option<u32>) {
    for pid in shim_pid.into_iter().chain(bundle.shims()) {
        shared.end_shim(pid, bundle).await;
    }
    if let Err(error) = shared
        .launcher
        .delete(ns, id, bundle, shared.config.start_deadline)
        .await
    {
        tracing::warn!(container = id, error = %error.chain(), "cleaning up after a shim");
    }
    if let Err(error) = bundle.remove() {
        tracing::warn!(container = id, error = %error.chain(), "a bundle is left; the next start removes it");
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
fn container_dirs(root: &Path) -> Vec<(String, String, std::path::PathBuf)> {
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

/// Removes, in the background, what belongs to no container.
fn clear_orphans(shared: &Arc<Shared>, known: &HashSet<(String, String)>) {
    let unknown = |ns: &str, id: &str| !known.contains(&(ns.to_owned(), id.to_owned()));
    for (ns, id, bundle) in bundles(&shared.config.state) {
        if unknown(&ns, &id) {
            tracing::warn!(
                ns,
                id,
                "a shim's bundle belongs to no container; it is ended and removed"
            );
            let shared = Arc::clone(shared);
            tokio::spawn(async move { abandon(&shared, &ns, &id, &bundle, None).await });
        }
    }
    let sockets = bundles(&shared.config.state)
        .into_iter()
        .map(|(_, _, bundle)| bundle.socket)
        .collect::<HashSet<_>>();
    for entry in std::fs::read_dir(shared.config.state.join("s"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if !sockets.contains(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    for (ns, id, dir) in container_dirs(&shared.config.root) {
        if unknown(&ns, &id) && names::is_id(&id) {
            tracing::warn!(dir = %dir.display(), "a directory belongs to no container; it is removed");
            tokio::spawn(async move { tokio::fs::remove_dir_all(dir).await });
        }
    }
    clear_snapshots(shared, known);
}

/// Writable layers that no container has: made, and not recorded.
fn clear_snapshots(shared: &Arc<Shared>, known: &HashSet<(String, String)>) {
    let spaces = known
        .iter()
        .map(|(ns, _)| ns.clone())
        .collect::<HashSet<_>>();
    for ns in spaces {
        let found = shared
            .images
            .snapshots(&shared.config.snapshotter)
            .and_then(|all| all.walk(&ns));
        let Ok(found) = found else { continue };
        for snapshot in found {
            let owner = snapshot.labels.get(create::LABEL);
            if owner.is_some_and(|id| !known.contains(&(ns.clone(), id.clone()))) {
                let (shared, ns) = (Arc::clone(shared), ns.clone());
                tokio::spawn(async move {
                    let Ok(snapshots) = shared.images.snapshots(&shared.config.snapshotter) else {
                        return;
                    };
                    if let Err(error) = snapshots.remove(&ns, &snapshot.key).await {
                        tracing::warn!(snapshot = snapshot.key, error = %error.chain(), "cannot remove it");
                    }
                });
            }
        }
    }
}

/// Looks, without a daemon, whether records, bundles and directories fit; with
/// `repair` removes what belongs to nothing. Gives a sentence for each thing.
pub async fn check(
    config: &crate::EngineConfig,
    store: &davit_store::Store,
    images: &davit_images::Images,
    repair: bool,
) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut known = HashSet::new();
    for ((ns, id), record) in store.scan::<Containers>(())? {
        known.insert((ns.clone(), id.clone()));
        let snapshots = images.snapshots(&record.snapshotter);
        let snapshot = snapshots.and_then(|snapshots| snapshots.stat(&ns, &record.snapshot_key));
        if let Err(error) = snapshot
            && error.kind() == Kind::NotFound
        {
            problems.push(format!(
                "{ns}/{id}: its writable layer {} is gone",
                record.snapshot_key
            ));
        }
    }
    for (ns, id, bundle) in bundles(&config.state) {
        if !known.contains(&(ns.clone(), id.clone())) {
            problems.push(format!(
                "{ns}/{id}: a shim's bundle of no container at {}; davitd ends it when it starts",
                bundle.dir.display()
            ));
        }
    }
    for (ns, id, dir) in container_dirs(&config.root) {
        if !known.contains(&(ns.clone(), id.clone())) {
            problems.push(format!(
                "{ns}/{id}: a directory of no container at {}",
                dir.display()
            ));
            if repair && names::is_id(&id) {
                std::fs::remove_dir_all(&dir).map_err(|error| {
                    Error::io(format!("cannot remove {}", dir.display()), error)
                })?;
            }
        }
    }
    for (key, _) in store.scan::<Intents>(())? {
        problems.push(format!(
            "{key}: was begun and not finished; davitd does it when it starts"
        ));
    }
    Ok(problems)
}
