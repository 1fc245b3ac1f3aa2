//! Prune: removes containers that do not run.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    Kind, Result,
    actor::Command,
    filter::Filters,
    index::Handle,
    inspect,
    model::{ContainerStatus, Filter, Pruned, RemoveOptions},
    shared::Shared,
};

/// Removes the containers of a namespace that have ended or never ran.
pub(crate) async fn prune(
    shared: &Arc<Shared>,
    ns: &str,
    filters: &[Filter],
    dry_run: bool,
) -> Result<Pruned> {
    let filters = Filters::prune(filters)?;
    let mut pruned = Pruned::default();
    for handle in shared.index.list(ns) {
        let view = handle.now();
        let idle = matches!(
            view.status,
            ContainerStatus::Created | ContainerStatus::Exited | ContainerStatus::Dead
        );
        if !idle || !filters.pass(&handle, &view) {
            continue;
        }
        let size = inspect::usage(shared, &handle)
            .await
            .map_or(0, |usage| usage.writable + usage.logs);
        if !dry_run && !remove(&handle).await? {
            continue;
        }
        pruned.removed.push(handle.id.to_string());
        pruned.space_reclaimed += size;
    }
    Ok(pruned)
}

/// False when it was started or removed meanwhile.
async fn remove(handle: &Handle) -> Result<bool> {
    let (reply, answer) = oneshot::channel();
    if handle
        .mailbox
        .send(Command::Remove(RemoveOptions::default(), reply))
        .await
        .is_err()
    {
        return Ok(false);
    }
    match answer.await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => Ok(false),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(false),
    }
}
