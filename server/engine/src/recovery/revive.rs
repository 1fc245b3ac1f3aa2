//! How a container stands that a daemon before this one knew: what its
//! record, its bundle and its shim say, put together.

use std::{sync::Arc, time::Duration};

use davit_store::table::container::{ContainerRecord, Phase};

use crate::{
    actor::Revived,
    shared::Shared,
    shim::{Bundle, Client, Ending, Exit, NewRun, Run, RunFile},
};

/// Longest wait for a shim's first answer; one that is slower runs on and is
/// asked again by whoever needs it.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Finds out how a container stands.
pub(super) async fn revive(
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
pub(super) async fn abandon(
    shared: &Shared,
    ns: &str,
    id: &str,
    bundle: &Bundle,
    shim_pid: Option<u32>,
) {
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
