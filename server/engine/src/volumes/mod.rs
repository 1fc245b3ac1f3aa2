//! Volumes: data that outlives containers, kept by the driver "local" or by
//! docker's volume plugins. One function for each call of davit.v1's service
//! `Volumes`, and what containers need of them.
//!
//! Who has a volume is read from the stored containers whenever it matters;
//! nothing counts along that could be wrong.

mod create;
mod event;
mod fill;
mod list;
mod local;
mod mounting;
mod name;
mod place;
mod plugin;
mod points;
mod prune;
mod recover;
mod remove;
mod settle;
mod state;
mod users;

use std::sync::Arc;

use davit_store::table::VolumeRecord;

pub(crate) use create::create_for;
pub(crate) use event::{mounted, unmounted};
pub(crate) use fill::fill;
pub(crate) use mounting::{Acquired, acquire, release};
pub(crate) use points::points;
pub(crate) use recover::recover;
pub(crate) use remove::{doom, finish_doomed, undo_created};
pub(crate) use settle::{Settled, settle, still_there};
pub(crate) use state::State;

use crate::{
    Engine, Error, Result,
    model::{
        CreateVolumeRequest, CreateVolumeResponse, ListVolumesRequest, ListVolumesResponse,
        PruneVolumesRequest, Pruned, Volume,
    },
    shared::Shared,
};

/// The driver that needs no plugin.
const LOCAL: &str = "local";

/// Label of volumes that were made without a name; docker's.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// The handle that [`Engine::volumes`] gives.
#[derive(Debug, Clone)]
pub struct Volumes {
    engine: Engine,
}

impl Volumes {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.engine.shared()
    }

    /// Makes a volume, or gives the one of that name and driver that is there.
    /// `InvalidArgument` for names and options that cannot be, `NotFound` for
    /// an unknown driver, `Conflict` when another driver has the name.
    pub async fn create(
        &self,
        ns: &str,
        request: CreateVolumeRequest,
    ) -> Result<CreateVolumeResponse> {
        create::create(self.shared(), ns, request).await
    }

    /// One volume. `NotFound` in docker's words when there is none.
    pub async fn get(&self, ns: &str, name: &str, size: bool) -> Result<Volume> {
        list::get(self.shared(), ns, name, size).await
    }

    /// The volumes that pass the filters, by name.
    pub async fn list(&self, ns: &str, request: ListVolumesRequest) -> Result<ListVolumesResponse> {
        list::list(self.shared(), ns, request).await
    }

    /// Deletes a volume with its data. `Conflict` while a container has it,
    /// `NotFound` when there is none and `force` is not set.
    pub async fn remove(&self, ns: &str, name: &str, force: bool) -> Result<()> {
        remove::remove(self.shared(), ns, name, force).await
    }

    /// Removes volumes that no container has. `FailedPrecondition` while it is
    /// not known what all containers have.
    pub async fn prune(&self, ns: &str, request: PruneVolumesRequest) -> Result<Pruned> {
        prune::prune(self.shared(), ns, request).await
    }
}

fn is_anonymous(record: &VolumeRecord) -> bool {
    record.labels.contains_key(ANONYMOUS)
}

/// Whether its data is a plain directory of ours, for which nothing has to be
/// mounted.
fn is_plain(record: &VolumeRecord) -> bool {
    record.driver == LOCAL && !local::is_mounted(&record.options)
}

/// Runs what waits for disks away from the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| {
        Error::internal("work on a volume panicked; this is a bug").with_source(panic)
    })?
}
