//! Containers: what is to run, and the files it has. One function for each
//! call of davit.v1's service `Containers`.
//!
//! Wherever a container is named, its id, a unique prefix of its id, or its
//! name (with or without a leading "/") is understood: `NotFound` when there
//! is none, `InvalidArgument` when a prefix is ambiguous.

use std::sync::Arc;

use davit_store::Result;
use futures::stream::BoxStream;

use crate::{
    Engine, actor::Command, create, filter::Filters, index::Handle, inspect, model::*, prune,
    shared::Shared, view::View,
};

/// The handle that [`Engine::containers`] gives.
#[derive(Debug, Clone)]
pub struct Containers {
    engine: Engine,
}

impl Containers {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.engine.shared()
    }

    fn find(&self, ns: &str, container: &str) -> Result<Handle> {
        self.shared().index.find(ns, container)
    }

    /// Makes a container; nothing runs yet. `NotFound` when the image is not
    /// here, `Conflict` when the name is taken.
    pub async fn create(
        &self,
        ns: &str,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse> {
        create::create(self.shared(), ns, request).await
    }

    /// One container in short form.
    pub fn get(&self, ns: &str, container: &str) -> Result<Container> {
        let handle = self.find(ns, container)?;
        Ok(inspect::container(self.shared(), ns, &handle.now()))
    }

    /// The containers that pass the filters, newest first.
    pub async fn list(&self, ns: &str, request: ListContainersRequest) -> Result<Vec<Container>> {
        let shared = self.shared();
        let mut filters = Filters::list(&request.filters, &shared.index, ns)?;
        for name in filters.ancestor_names().to_vec() {
            if let Ok(image) = shared.images.resolve(ns, &name, None).await {
                filters.ancestors.push(image.image_id);
            }
        }
        let all =
            request.all || request.limit > 0 || filters.has("status") || filters.has("exited");
        let mut found = shared
            .index
            .list(ns)
            .into_iter()
            .map(|handle| {
                let view = handle.now();
                (handle, view)
            })
            .filter(|(handle, view)| (all || is_shown(view)) && filters.pass(handle, view))
            .collect::<Vec<_>>();
        found.sort_by_key(|(_, view)| std::cmp::Reverse(view.record.created_at));
        if request.limit > 0 {
            found.truncate(request.limit);
        }
        let mut containers = Vec::with_capacity(found.len());
        for (handle, view) in found {
            let short = if request.size {
                match inspect::with_sizes(shared, &handle, &view).await {
                    Ok(short) => short,
                    // It is being removed.
                    Err(error) if error.kind() == davit_store::Kind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            } else {
                inspect::container(shared, ns, &view)
            };
            containers.push(short);
        }
        Ok(containers)
    }

    /// Changes labels, restart policy and limits; gives warnings.
    pub async fn update(
        &self,
        ns: &str,
        container: &str,
        request: UpdateContainerRequest,
    ) -> Result<Vec<String>> {
        let handle = self.find(ns, container)?;
        handle
            .ask(|reply| Command::Update(Box::new(request), reply))
            .await
    }

    /// Gives a container another name.
    pub async fn rename(&self, ns: &str, container: &str, new_name: &str) -> Result<()> {
        let handle = self.find(ns, container)?;
        handle
            .ask(|reply| Command::Rename(new_name.to_owned(), reply))
            .await
    }

    /// Deletes a container with its writable layer and logs.
    /// `Conflict` when it runs and `force` is not set.
    pub async fn remove(&self, ns: &str, container: &str, options: RemoveOptions) -> Result<()> {
        let handle = self.find(ns, container)?;
        handle.ask(|reply| Command::Remove(options, reply)).await
    }

    /// Removes stopped containers. Filters: label, label!, until.
    pub async fn prune(&self, ns: &str, filters: &[Filter], dry_run: bool) -> Result<Pruned> {
        prune::prune(self.shared(), ns, filters, dry_run).await
    }

    /// Everything known about a container.
    pub async fn inspect(&self, ns: &str, container: &str, size: bool) -> Result<ContainerDetails> {
        let handle = self.find(ns, container)?;
        inspect::details(self.shared(), &handle, &handle.now(), size).await
    }

    /// [`Containers::inspect`] now and again on each change, until the
    /// container is removed.
    pub fn watch(
        &self,
        ns: &str,
        container: &str,
        size: bool,
    ) -> Result<BoxStream<'static, Result<ContainerDetails>>> {
        let handle = self.find(ns, container)?;
        Ok(inspect::watch(Arc::clone(self.shared()), handle, size))
    }

    /// Which files differ from the image.
    pub async fn diff(&self, ns: &str, container: &str) -> Result<Vec<Change>> {
        let handle = self.find(ns, container)?;
        self.shared().diff(&handle).await
    }

    /// Reads a path of the container as a tar stream.
    pub async fn copy_out(
        &self,
        ns: &str,
        container: &str,
        path: &str,
    ) -> Result<(PathStat, TarStream)> {
        let handle = self.find(ns, container)?;
        self.shared().copy_out(&handle, path).await
    }

    /// Unpacks a tar stream into a directory of the container.
    pub async fn copy_in(
        &self,
        ns: &str,
        container: &str,
        options: CopyInOptions,
        tar: TarStream,
    ) -> Result<()> {
        let handle = self.find(ns, container)?;
        self.shared().copy_in(&handle, options, tar).await
    }

    /// Looks at a path in the container.
    pub async fn stat_path(&self, ns: &str, container: &str, path: &str) -> Result<PathStat> {
        let handle = self.find(ns, container)?;
        self.shared().stat_path(&handle, path).await
    }

    /// Makes an image from the container's files and configuration; gives the
    /// image's id.
    pub async fn commit(
        &self,
        ns: &str,
        container: &str,
        request: CommitRequest,
    ) -> Result<String> {
        let handle = self.find(ns, container)?;
        self.shared().commit(&handle, request).await
    }

    /// The container's whole file system as a tar stream.
    pub async fn export(&self, ns: &str, container: &str) -> Result<TarStream> {
        let handle = self.find(ns, container)?;
        self.shared().export(&handle).await
    }

    /// Disk use of all containers of all namespaces.
    pub async fn disk_usage(&self) -> Result<Vec<ContainerUsage>> {
        let mut all = Vec::new();
        for handle in self.shared().index.all() {
            match inspect::usage(self.shared(), &handle).await {
                Ok(usage) => all.push(usage),
                Err(error) if error.kind() == davit_store::Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

/// Whether a list without "all" shows it.
fn is_shown(view: &View) -> bool {
    view.is_running() || view.status == ContainerStatus::Restarting
}
