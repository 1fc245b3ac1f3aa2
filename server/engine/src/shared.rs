//! What all containers' actors share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use davit_images::Images;
use davit_store::{
    NewEvent, Store,
    image_config::ImageConfig,
    options::{ContainerOptions, ExecOptions},
    table::{Containers, container::ContainerRecord},
};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    EngineConfig, Error, Kind, Result,
    exec::Execs,
    index::{Handle, Index},
    logs::LogWatch,
    networks::Net,
    recovery::COPY,
    shim::{Bundle, Deadlines, Launcher, Run},
    spec::{self, HostFacts},
    volumes,
};

/// Longest wait for a shim to be gone after it was told to.
const SHIM_GONE_WITHIN: Duration = Duration::from_secs(5);

/// Longest wait for actors to end what they are at.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// What actors and calls work with.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) store: Store,
    pub(crate) images: Images,
    pub(crate) index: Arc<Index>,
    pub(crate) launcher: Launcher,
    pub(crate) host: HostFacts,
    pub(crate) defaults: spec::Defaults,
    pub(crate) execs: Execs,
    pub(crate) logs: LogWatch,
    pub(crate) net: Net,
    pub(crate) volumes: Arc<volumes::State>,
    /// The tasks of actors and of what watches for them.
    tasks: TaskTracker,
    closing: CancellationToken,
    runs: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        config: EngineConfig,
        store: Store,
        images: Images,
        host: HostFacts,
        defaults: spec::Defaults,
    ) -> Result<Self> {
        Ok(Self {
            launcher: Launcher::new(config.shim.clone()),
            net: Net::new(&config.networks, &config.root, &config.state, store.clone())?,
            volumes: volumes::State::new(config.volumes.clone()),
            config,
            store,
            images,
            index: Arc::default(),
            host,
            defaults,
            execs: Execs::default(),
            logs: LogWatch::new()?,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            runs: AtomicU64::new(1),
        })
    }

    /// Runs a task that [`Shared::close`] ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = closing.cancelled() => {}
            }
        })
    }

    /// Runs a task that sees to its end itself; see [`Shared::closing`].
    pub(crate) fn spawn_actor(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Returns when the daemon is about to stop.
    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Ends all tasks, in the middle of nothing if they are quick enough.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(CLOSED_WITHIN, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "some containers' tasks are still busy; the next daemon takes up what they were at"
            );
        }
    }

    /// A number for a run, unique in this daemon's life.
    pub(crate) fn next_run(&self) -> u64 {
        self.runs.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn deadlines(&self) -> Deadlines {
        Deadlines {
            call: self.config.shim_deadline,
            start: self.config.start_deadline,
        }
    }

    /// Writes a record that exists, with events; gives the last one's number.
    pub(crate) fn write(
        &self,
        ns: &str,
        record: &ContainerRecord,
        events: Vec<NewEvent>,
    ) -> Result<Option<u64>> {
        self.store.transaction(|tx| {
            tx.put::<Containers>((ns, record.id.as_str()), record)?;
            let mut last = None;
            for event in events {
                last = Some(tx.event(event)?);
            }
            Ok(last)
        })
    }

    /// Writes the copy of a record from which a lost store is made again. Not
    /// worth failing for.
    pub(crate) async fn copy_record(&self, record: &ContainerRecord) {
        let Some(details) = record.details.as_deref() else {
            return;
        };
        let path = std::path::Path::new(&details.dir).join(COPY);
        let written = match serde_json::to_vec(record) {
            Ok(bytes) => tokio::fs::write(&path, bytes).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot write the copy of a container's record");
        }
    }

    /// Adds an event; gives its number.
    pub(crate) fn event(&self, event: NewEvent) -> Result<u64> {
        self.store.transaction(|tx| tx.event(event))
    }

    /// Deletes a record, with its last event; gives the names of the volumes
    /// that go with it.
    pub(crate) fn forget(
        &self,
        ns: &str,
        record: &ContainerRecord,
        event: NewEvent,
    ) -> Result<(u64, Vec<String>)> {
        self.store.transaction(|tx| {
            tx.delete::<Containers>((ns, record.id.as_str()))?;
            let doomed = volumes::doom(self, tx, ns, record)?;
            Ok((tx.event(event)?, doomed))
        })
    }

    /// What the shim is told to run containers with: "" for the built-in one.
    pub(crate) fn runtime_path(&self, runtime: &str) -> Result<String> {
        let name = if runtime.is_empty() {
            self.config.default_runtime.as_str()
        } else {
            runtime
        };
        if name == "builtin" {
            return Ok(String::new());
        }
        if name.starts_with('/') {
            return Ok(name.to_owned());
        }
        let path = self.config.runtimes.get(name).ok_or_else(|| {
            Error::invalid(format!(
                "unknown or invalid runtime name: {name}; configured are builtin, {}",
                self.config
                    .runtimes
                    .keys()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            ))
        })?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// What specs are made from.
    pub(crate) fn inputs<'a>(
        &'a self,
        id: &'a str,
        options: &'a ContainerOptions,
        image: &'a ImageConfig,
    ) -> spec::Inputs<'a> {
        spec::Inputs {
            id,
            options,
            image,
            host: &self.host,
            defaults: &self.defaults,
        }
    }

    /// The process of an exec, OCI, JSON.
    pub(crate) async fn exec_process(
        &self,
        handle: &Handle,
        run: &Run,
        options: &ExecOptions,
    ) -> Result<Vec<u8>> {
        let view = handle.now();
        let (bundle, pid, options, host) = (
            run.bundle.clone(),
            run.pid(),
            options.clone(),
            self.host.clone(),
        );
        let work = move || {
            let spec: oci_spec::runtime::Spec = bundle.read("config.json").ok_or_else(|| {
                Error::internal(format!(
                    "the spec in {} is gone or broken",
                    bundle.dir.display()
                ))
            })?;
            let root = format!("/proc/{pid}/root");
            let rootfs = std::fs::File::open(&root)
                .map_err(|error| Error::io(format!("cannot open {root}"), error))?;
            let details = view.details().cloned().unwrap_or_default();
            let process = spec::exec_process(&spec::ExecInputs {
                options: &options,
                spec: &spec,
                rootfs: &spec::TreeView(rootfs),
                config: &details.config,
                group_add: &details.options.group_add,
                host: &host,
            })?;
            serde_json::to_vec(&process).map_err(|error| {
                Error::internal("cannot encode the process of an exec").with_source(error)
            })
        };
        tokio::task::spawn_blocking(work).await.map_err(|panic| {
            Error::internal("making the process of an exec panicked; this is a bug")
                .with_source(panic)
        })?
    }

    /// Ends what a run left: the shim's record of the exit, the shim, the
    /// bundle. When the shim is lost, its clean-up command does it instead.
    pub(crate) async fn retire(&self, run: &Run, lost: bool) {
        let mut clean = false;
        if !lost {
            clean = self.dismiss(run).await;
        }
        if !clean {
            self.end_shim(run.shim_pid, &run.bundle).await;
            if run.bundle.dir.exists()
                && let Err(error) = self
                    .launcher
                    .delete(&run.ns, &run.id, &run.bundle, self.config.start_deadline)
                    .await
            {
                tracing::warn!(container = %run.id, error = %error.chain(), "cannot clean up after a shim");
            }
        }
        self.execs.lost(&run.id);
        if let Err(error) = run.bundle.remove() {
            tracing::warn!(container = %run.id, error = %error.chain(), "a bundle is left; the next start removes it");
        }
    }

    /// Has the shim forget the exit and end; false when it does not answer.
    async fn dismiss(&self, run: &Run) -> bool {
        let client = run.client();
        match client.delete("").await {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => {
                tracing::warn!(container = %run.id, error = %error.chain(), "the shim cannot delete its container");
                return false;
            }
        }
        match client.shutdown().await {
            Ok(()) => true,
            // It ends so fast that its answer may not arrive.
            Err(error) => error.kind() == Kind::Unavailable,
        }
    }

    /// Kills a shim that should be gone, if the process of that id still is
    /// the shim of this bundle, and waits for its end.
    pub(crate) async fn end_shim(&self, pid: u32, bundle: &Bundle) {
        let Some(process) = bundle.shim_process(pid) else {
            return;
        };
        if let Err(error) = process.kill() {
            tracing::warn!(pid, %error, "cannot kill a shim");
        }
        if !process.gone_within(SHIM_GONE_WITHIN).await {
            tracing::warn!(pid, "a shim that was killed is still there");
        }
    }
}
