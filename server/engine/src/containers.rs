//! Containers: what is to run, and the files it has. One function for each
//! call of davit.v1's service `Containers`.
//!
//! Wherever a container is named, its id, a unique prefix of its id, or its
//! name (with or without a leading "/") is understood: `NotFound` when there
//! is none, `InvalidArgument` when a prefix is ambiguous.

use davit_store::{Error, Kind, Result};
use futures::stream::BoxStream;

use crate::{Engine, model::*};

/// The handle that [`Engine::containers`] gives.
#[derive(Debug, Clone)]
pub struct Containers {
    engine: Engine,
}

impl Containers {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// Makes a container; nothing runs yet. `NotFound` when the image is not
    /// here, `Conflict` when the name is taken.
    pub async fn create(
        &self,
        ns: &str,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// One container in short form.
    pub fn get(&self, ns: &str, container: &str) -> Result<Container> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// The containers that pass the filters, newest first.
    pub async fn list(&self, ns: &str, request: ListContainersRequest) -> Result<Vec<Container>> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Changes labels, restart policy and limits; gives warnings.
    pub async fn update(
        &self,
        ns: &str,
        container: &str,
        request: UpdateContainerRequest,
    ) -> Result<Vec<String>> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Gives a container another name.
    pub async fn rename(&self, ns: &str, container: &str, new_name: &str) -> Result<()> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Deletes a container with its writable layer and logs.
    /// `Conflict` when it runs and `force` is not set.
    pub async fn remove(&self, ns: &str, container: &str, options: RemoveOptions) -> Result<()> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Removes stopped containers. Filters: label, label!, until.
    pub async fn prune(&self, ns: &str, filters: &[Filter], dry_run: bool) -> Result<Pruned> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Everything known about a container.
    pub async fn inspect(&self, ns: &str, container: &str, size: bool) -> Result<ContainerDetails> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// [`Containers::inspect`] now and again on each change, until the
    /// container is removed.
    pub fn watch(
        &self,
        ns: &str,
        container: &str,
        size: bool,
    ) -> Result<BoxStream<'static, Result<ContainerDetails>>> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Which files differ from the image.
    pub async fn diff(&self, ns: &str, container: &str) -> Result<Vec<Change>> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Reads a path of the container as a tar stream.
    pub async fn copy_out(
        &self,
        ns: &str,
        container: &str,
        path: &str,
    ) -> Result<(PathStat, TarStream)> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Unpacks a tar stream into a directory of the container.
    pub async fn copy_in(
        &self,
        ns: &str,
        container: &str,
        options: CopyInOptions,
        tar: TarStream,
    ) -> Result<()> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Looks at a path in the container.
    pub async fn stat_path(&self, ns: &str, container: &str, path: &str) -> Result<PathStat> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Makes an image from the container's files and configuration; gives the
    /// image's id.
    pub async fn commit(
        &self,
        ns: &str,
        container: &str,
        request: CommitRequest,
    ) -> Result<String> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// The container's whole file system as a tar stream.
    pub async fn export(&self, ns: &str, container: &str) -> Result<TarStream> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }

    /// Disk use of all containers of all namespaces.
    pub async fn disk_usage(&self) -> Result<Vec<ContainerUsage>> {
        Err(Error::new(Kind::Unimplemented, "not yet"))
    }
}
