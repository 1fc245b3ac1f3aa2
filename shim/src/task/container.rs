//! One container: its processes, its runtime, and what was made for it.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use containerd_shim_protos::{events, topics};
use tokio::task::JoinHandle;

use super::process::Process;
use crate::cgroup::{Cgroup, Layout};
use crate::diag;
use crate::error::{Error, Kind, Result};
use crate::events::Publisher;
use crate::io::attach::{AttachServer, Hubs};
use crate::reaper::Reaper;
use crate::runtime::Runtime;

/// What all containers of this shim share. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Shim {
    pub(crate) namespace: String,
    pub(crate) reaper: Reaper,
    pub(crate) publisher: Publisher,
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) shim: Shim,
    pub(crate) runtime: Runtime,
    /// Its processes die with init.
    pub(crate) own_pids: bool,
    /// The root file system was mounted here and is to be unmounted.
    pub(crate) mounted: Option<PathBuf>,
    /// A criu image that the start restores.
    pub(crate) checkpoint: Option<PathBuf>,
    pub(crate) init: Arc<Process>,
    pub(crate) hubs: Hubs,
    /// One lifecycle operation at a time; never held by what only looks, waits or kills.
    pub(crate) operation: tokio::sync::Mutex<()>,
    execs: Mutex<BTreeMap<String, Arc<Process>>>,
    cgroup: OnceLock<Cgroup>,
    /// Nothing of it is left but somebody's handle.
    pub(crate) deleted: AtomicBool,
    oom: Mutex<Option<JoinHandle<()>>>,
    _attach: Option<AttachServer>,
}

/// What [`Container::new`] puts together.
pub(crate) struct Parts {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) shim: Shim,
    pub(crate) runtime: Runtime,
    pub(crate) own_pids: bool,
    pub(crate) mounted: Option<PathBuf>,
    pub(crate) checkpoint: Option<PathBuf>,
    pub(crate) init: Process,
    pub(crate) hubs: Hubs,
    pub(crate) attach: Option<AttachServer>,
}

impl Container {
    pub(crate) fn new(parts: Parts) -> Arc<Container> {
        Arc::new(Container {
            id: parts.id,
            bundle: parts.bundle,
            shim: parts.shim,
            runtime: parts.runtime,
            own_pids: parts.own_pids,
            mounted: parts.mounted,
            checkpoint: parts.checkpoint,
            init: Arc::new(parts.init),
            hubs: parts.hubs,
            operation: tokio::sync::Mutex::default(),
            execs: Mutex::default(),
            cgroup: OnceLock::new(),
            deleted: AtomicBool::new(false),
            oom: Mutex::default(),
            _attach: parts.attach,
        })
    }

    /// Init, or an exec by its id.
    ///
    /// # Errors
    /// Not found.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        self.execs().get(exec_id).cloned().ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!("process {exec_id} in container {} does not exist", self.id),
            )
        })
    }

    pub(crate) fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk directory for what slow readers of its output have not read; the bundle's file system is memory.
    pub(crate) fn spill(&self) -> &Path {
        let hub = self.init.stdio.hub.as_ref();
        hub.map_or(Path::new(SPILL), |hub| hub.spill())
    }

    /// Looks up the cgroups while init is there to ask about, and has OOM kills watched if anybody listens.
    pub(crate) fn find_cgroup(&self, pid: i32) {
        let found = Layout::detect().and_then(|layout| Cgroup::of_process(&layout, pid));
        match found {
            Ok(cgroup) => {
                if self.shim.publisher.is_on() {
                    *self.oom.lock().unwrap_or_else(PoisonError::into_inner) =
                        self.watch_oom(&cgroup);
                }
                // Set once: the start of a restored container is the only other caller.
                let _ = self.cgroup.set(cgroup);
            }
            // Init is gone already: there is nothing to measure.
            Err(error) => diag::info(format_args!(
                "container {}: its cgroups are not known: {error}",
                self.id
            )),
        }
    }

    /// Its cgroups, once init exists.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.get()
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.cgroup.get().map_or(0, Cgroup::oom_kills)
    }

    fn watch_oom(&self, cgroup: &Cgroup) -> Option<JoinHandle<()>> {
        let watch = cgroup.oom_watch().ok().flatten()?;
        let events = watch.as_fd().try_clone_to_owned().ok()?;
        let events = davit_sys::ready::watch(events, tokio::io::Interest::READABLE).ok()?;
        let (cgroup, publisher, id) =
            (cgroup.clone(), self.shim.publisher.clone(), self.id.clone());
        Some(tokio::spawn(async move {
            let mut known = 0;
            while let Ok(mut ready) = events.readable().await {
                watch.drain();
                ready.clear_ready();
                let kills = cgroup.oom_kills();
                if kills > known {
                    let event = events::task::TaskOOM {
                        container_id: id.clone(),
                        ..Default::default()
                    };
                    publisher.publish(topics::TASK_OOM_EVENT_TOPIC, &event);
                }
                known = kills;
            }
        }))
    }

    /// Lets go of everything but what is on disk.
    pub(crate) fn close(&self) {
        if let Some(task) = self
            .oom
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            task.abort();
        }
        self.init.stdio.close();
        for process in self.execs().values() {
            process.stdio.close();
        }
    }
}

/// The spill directory of containers without a log.
pub(crate) const SPILL: &str = "/var/tmp";

/// Where the root file system is mounted.
pub(crate) fn rootfs(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}
