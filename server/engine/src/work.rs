//! What looks into a container: its files, processes and usage. Here the
//! running container or the layers of a stopped one are found; the work is
//! done in `files`, `processes` and `usage`.

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc, time::Duration};

use async_stream::try_stream;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::{
    Error, Kind, Result,
    actor::Command,
    events::Draft,
    files::{self, Root},
    index::Handle,
    model::*,
    processes, session,
    shared::Shared,
    spec,
    usage::{self, Measured},
    view::View,
    volumes,
};

/// Time between two samples of Stats.
const SAMPLES: Duration = Duration::from_secs(1);

/// What [`Measured`] borrows.
struct Subject {
    id: String,
    name: String,
    pid: u32,
    cgroup_path: String,
    own_network: bool,
}

impl Subject {
    fn measured(&self) -> Measured<'_> {
        Measured {
            id: &self.id,
            name: &self.name,
            pid: self.pid,
            cgroup_path: &self.cgroup_path,
            own_network: self.own_network,
        }
    }
}

impl Shared {
    /// The container's root directory: that of its process, or its layers.
    async fn root(&self, handle: &Handle, view: &View) -> Result<Root> {
        if let Some(pid) = view.state().pid {
            return Root::of_process(view.name(), pid);
        }
        // A start would mount the same volumes.
        let mounts = view
            .details()
            .is_some_and(|details| !details.mounts.is_empty());
        let _hold = match mounts {
            true => Some(handle.files.lock().await),
            false => None,
        };
        if let Some(pid) = handle.now().state().pid {
            return Root::of_process(view.name(), pid);
        }
        let tree = self.tree(handle, view, false).await?;
        Ok(Root::of_tree(view.name(), tree, true))
    }

    /// The layers of a container that does not run, with what it mounts in
    /// place: what is copied to the place of a volume is meant for the volume.
    async fn tree(&self, handle: &Handle, view: &View, writable: bool) -> Result<OwnedFd> {
        let snapshots = self.images.snapshots(&view.record.snapshotter)?;
        let acquired = volumes::acquire(self, &handle.ns, &view.record).await?;
        let tree = snapshots
            .open_tree_with(
                &handle.ns,
                &view.record.snapshot_key,
                writable,
                acquired.placed(),
            )
            .await;
        // The tree keeps what is mounted in it.
        volumes::release(self, &handle.ns, &handle.id).await;
        tree
    }

    pub(crate) async fn diff(&self, handle: &Handle) -> Result<Vec<Change>> {
        let view = handle.now();
        let snapshots = self.images.snapshots(&view.record.snapshotter)?;
        files::diff(snapshots, &handle.ns, &view.record.snapshot_key).await
    }

    pub(crate) async fn copy_out(
        &self,
        handle: &Handle,
        path: &str,
    ) -> Result<(PathStat, TarStream)> {
        let root = self.root(handle, &handle.now()).await?;
        let found = files::copy_out(root, path).await?;
        session::tell(
            handle,
            Draft::new("copy")
                .with("path", path)
                .with("direction", "out"),
        )
        .await;
        Ok(found)
    }

    pub(crate) async fn copy_in(
        &self,
        handle: &Handle,
        options: CopyInOptions,
        tar: TarStream,
    ) -> Result<()> {
        let event = Draft::new("copy")
            .with("path", &options.path)
            .with("direction", "in");
        // Held over the work: a start would mount the same layer a second time.
        let mut _hold = None;
        let mut view = handle.now();
        if !view.is_running() {
            _hold = Some(Arc::clone(&handle.files).lock_owned().await);
            view = handle.now();
        }
        let root = match view.state().pid {
            Some(pid) => {
                _hold = None;
                Root::of_process(view.name(), pid)?
            }
            None => {
                let tree = self.tree(handle, &view, true).await?;
                let read_only = view
                    .details()
                    .is_some_and(|details| details.options.read_only);
                Root::of_tree(view.name(), tree, read_only)
            }
        };
        files::copy_in(root, options, tar).await?;
        session::tell(handle, event).await;
        Ok(())
    }

    pub(crate) async fn stat_path(&self, handle: &Handle, path: &str) -> Result<PathStat> {
        let root = self.root(handle, &handle.now()).await?;
        let path = path.to_owned();
        blocking(move || files::stat_path(&root, &path)).await
    }

    pub(crate) async fn commit(&self, handle: &Handle, request: CommitRequest) -> Result<String> {
        let view = handle.now();
        let comment = request.comment.clone();
        let pause = request.pause && view.status == ContainerStatus::Running;
        if pause {
            handle.ask(Command::Pause).await?;
        }
        let made = files::commit(&self.images, &handle.ns, &view.record, request).await;
        if pause {
            // It may have been resumed or ended meanwhile.
            match handle.ask(Command::Resume).await {
                Err(error) if error.kind() != Kind::Conflict => return made.and(Err(error)),
                Ok(()) | Err(_) => {}
            }
        }
        let id = made?;
        session::tell(
            handle,
            Draft::new("commit")
                .with("imageID", &id)
                .with("comment", comment),
        )
        .await;
        Ok(id)
    }

    pub(crate) async fn export(&self, handle: &Handle) -> Result<TarStream> {
        // The layers, whether it runs or not: what is mounted in it (/proc,
        // volumes) is no part of the container's own file system.
        let view = handle.now();
        let snapshots = self.images.snapshots(&view.record.snapshotter)?;
        let tree = snapshots
            .open_tree(&handle.ns, &view.record.snapshot_key)
            .await?;
        let root = Root::of_tree(view.name(), tree, true);
        session::tell(handle, Draft::new("export")).await;
        Ok(files::export(root))
    }

    /// The container as something to measure; None when it does not run.
    fn subject(&self, view: &View) -> Result<Option<Subject>> {
        let (Some(pid), Some(details)) = (view.state().pid, view.details()) else {
            return Ok(None);
        };
        let id = view.record.id.clone();
        let plan = spec::plan(&self.inputs(&id, &details.options, &details.config))?;
        Ok(Some(Subject {
            pid,
            name: details.name.clone(),
            cgroup_path: plan.cgroup_path,
            own_network: plan.shared.network.is_own(),
            id,
        }))
    }

    pub(crate) async fn processes(&self, handle: &Handle, ps_args: &str) -> Result<Processes> {
        let view = handle.now();
        let subject = self.subject(&view)?.ok_or_else(|| {
            Error::new(
                Kind::Conflict,
                format!("container {} is not running", handle.id),
            )
        })?;
        let found = processes::list(&self.host, &subject.measured(), ps_args).await?;
        session::tell(handle, Draft::new("top")).await;
        Ok(found)
    }

    /// One sample; an empty one when it does not run.
    async fn sample(self: &Arc<Self>, view: &View) -> Result<Stats> {
        let Some(subject) = self.subject(view)? else {
            return Ok(idle(view));
        };
        let shared = Arc::clone(self);
        match blocking(move || usage::sample(&shared.host, &subject.measured())).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(idle(view)),
            sampled => sampled,
        }
    }

    pub(crate) async fn stats(
        self: &Arc<Self>,
        handle: Handle,
        stream: bool,
    ) -> Result<BoxStream<'static, Result<Stats>>> {
        let shared = Arc::clone(self);
        Ok(Box::pin(try_stream! {
            let mut due = tokio::time::interval(SAMPLES);
            due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                due.tick().await;
                let view = handle.now();
                if view.removed {
                    return;
                }
                yield shared.sample(&view).await?;
                if !stream {
                    return;
                }
            }
        }))
    }
}

fn idle(view: &View) -> Stats {
    Stats {
        read_at: Timestamp::now(),
        id: view.record.id.clone(),
        name: view.name().to_owned(),
        cpu: CpuStats::default(),
        memory: MemoryStats::default(),
        pids: PidsStats::default(),
        blkio: BlkioStats::default(),
        networks: BTreeMap::new(),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| {
        Error::internal("looking into a container panicked; this is a bug").with_source(panic)
    })?
}
