//! Prune: removes volumes that no container has.

use std::sync::Arc;

use davit_store::table::Volumes;

use super::{event, is_plain, list, list::Filters, remove, users::Users};
use crate::{
    Error, Kind, Result,
    model::{ListVolumesRequest, PruneVolumesRequest, Pruned},
    shared::Shared,
};

/// See [`super::Volumes::prune`].
pub(super) async fn prune(
    shared: &Arc<Shared>,
    ns: &str,
    request: PruneVolumesRequest,
) -> Result<Pruned> {
    let filters = Filters::read(&request.filters, &["label", "label!"])?;
    refuse_unknown(shared, ns)?;
    let all = list::list(shared, ns, ListVolumesRequest::default())
        .await?
        .volumes;
    let mut pruned = Pruned::default();
    for volume in all {
        let wanted = (request.all || volume.anonymous)
            && volume.containers.is_empty()
            && filters.pass(&volume);
        // What only a plugin knows is not ours to remove.
        let Some(record) = shared
            .store
            .get::<Volumes>((ns, volume.name.as_str()))?
            .filter(|_| wanted)
        else {
            continue;
        };
        if !shared
            .volumes
            .held(&(ns.to_owned(), volume.name.clone()))
            .is_empty()
        {
            continue;
        }
        let size = if is_plain(&record) {
            list::measure(&volume.mountpoint).await
        } else {
            None
        };
        if !request.dry_run {
            match remove::remove(shared, ns, &volume.name, false).await {
                Ok(()) => {}
                // A container has come to it, or somebody was faster.
                Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => continue,
                Err(error) => {
                    tracing::warn!(volume = volume.name, error = %error.chain(), "prune leaves it");
                    continue;
                }
            }
        }
        pruned.removed.push(volume.name);
        pruned.space_reclaimed += size.unwrap_or(0);
    }
    if !request.dry_run {
        shared.event(event::pruned(ns, pruned.space_reclaimed))?;
    }
    Ok(pruned)
}

/// Data is not deleted on a guess.
fn refuse_unknown(shared: &Shared, ns: &str) -> Result<()> {
    if !shared.volumes.is_recovered() {
        return Err(Error::precondition(
            "volumes are not pruned while the daemon still finds out what the last one left; try again",
        ));
    }
    let users = Users::read(shared, ns)?;
    match users.unreadable.first() {
        None => Ok(()),
        Some(id) => Err(Error::precondition(format!(
            "volumes are not pruned: the record of container {id} is damaged, and nobody knows which volumes it has; \
             remove volumes by name"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Filter, Volume};

    use super::super::list::Filters;

    fn filter(key: &str, value: &str) -> Filter {
        Filter {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn filters() {
        let volume = Volume {
            name: "web_data".to_owned(),
            driver: "local".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Default::default()
        };
        let keys = ["dangling", "driver", "label", "label!", "name"];
        let passes = |list: &[Filter]| Filters::read(list, &keys).unwrap().pass(&volume);
        assert!(passes(&[]));
        assert!(passes(&[
            filter("name", "web"),
            filter("driver", "local"),
            filter("dangling", "true")
        ]));
        assert!(passes(&[filter("name", "x"), filter("name", "data")]));
        assert!(!passes(&[filter("dangling", "0")]));
        assert!(passes(&[filter("label", "a=b"), filter("label", "a")]));
        assert!(!passes(&[filter("label", "a=b"), filter("label", "c")]));
        assert!(!passes(&[filter("label!", "a")]));
        assert!(Filters::read(&[filter("colour", "red")], &keys).is_err());
        assert!(Filters::read(&[filter("dangling", "maybe")], &keys).is_err());
        assert!(Filters::read(&[filter("dangling", "1"), filter("dangling", "0")], &keys).is_err());
    }
}
