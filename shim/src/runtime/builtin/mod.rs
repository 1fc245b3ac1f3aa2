//! The built-in OCI runtime: makes containers inside the shim, by clone and without executing a helper.
//!
//! The shim has one thread, so the process that it clones may do ordinary work (allocate, walk paths, parse) before it
//! executes the user's program. Nothing is executed but that, nothing is moved between cgroups, and the two processes
//! talk over one socket pair. docs/runtime.md tells what that is worth, and why it is not libcontainer.
//!
//! ```text
//!   create ──► [Created: init waits on its channel] ──start──► [Running] ──► [Stopped: init is gone] ──delete──► nothing
//!                                                        pause ⇅ resume
//! ```
//!
//! [`create`](Builtin::create) and [`exec`](Builtin::exec) block the event loop for the few milliseconds that they
//! take; hooks can take longer.

mod cgroup_mount;
mod channel;
mod copy_up;
mod create;
mod devices;
mod exec;
mod features;
mod hooks;
mod init;
mod inroot;
mod lookup;
mod mounts;
mod namespaces;
mod notify;
mod options;
mod privileges;
mod process;
mod procfs;
mod rootfs;
mod seccomp;
mod state;
mod terminal;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use self::channel::{Channel, Message};
use self::hooks::State;
use self::state::Saved;
use super::{CheckpointRequest, CreateRequest, Created, ExecRequest, RuntimeOptions, RuntimeState};
use crate::cgroup::{Cgroup, Layout};
use crate::error::{Error, Kind, Result};
use crate::reaper::Reaper;

/// How long `delete` waits for killed processes to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The built-in runtime. Its state lives under `options.root`, so that another process (`delete`) can take over.
#[derive(Debug, Clone)]
pub(crate) struct Builtin {
    options: RuntimeOptions,
    /// Containers that this process made, by id.
    live: Arc<Mutex<HashMap<String, Live>>>,
    layout: Arc<OnceLock<Layout>>,
}

/// What is not on disk of a container.
#[derive(Debug)]
struct Live {
    saved: Saved,
    pidfd: Arc<OwnedFd>,
    /// There until the start.
    channel: Option<Channel>,
}

impl Builtin {
    /// A runtime with its state under `options.root`. `reaper` is not needed: every process that this runtime makes is
    /// a child of the shim, and it waits only for those whose pid nobody has heard of.
    pub(crate) fn new(options: RuntimeOptions, reaper: Reaper) -> Builtin {
        let _ = reaper;
        Builtin {
            options,
            live: Arc::default(),
            layout: Arc::default(),
        }
    }

    /// See [`super::Runtime::create`].
    pub(crate) async fn create(&self, request: CreateRequest<'_>) -> Result<Created> {
        if request.checkpoint.is_some() {
            return Err(no_checkpoint());
        }
        let waiting = create::create(request, &self.options, self.layout()?)?;
        for warning in &waiting.warnings {
            tracing::warn!(id = waiting.saved.id, "{warning}");
        }
        let pid = waiting.child.pid.as_raw_nonzero().get();
        let id = waiting.saved.id.clone();
        let live = Live {
            saved: waiting.saved,
            pidfd: Arc::new(waiting.child.pidfd),
            channel: Some(waiting.channel),
        };
        self.live().insert(id, live);
        Ok(Created {
            pid,
            console: waiting.console,
        })
    }

    /// See [`super::Runtime::start`].
    pub(crate) async fn start(&self, id: &str) -> Result<()> {
        let (channel, saved) = {
            let mut live = self.live();
            let container = live.get_mut(id).ok_or_else(|| not_found(id))?;
            let channel = container.channel.take().ok_or_else(|| {
                Error::new(
                    Kind::FailedPrecondition,
                    format!("cannot start container {id}: it is not waiting for a start"),
                )
            })?;
            (channel, container.saved.clone())
        };
        channel.send(&Message::Go).map_err(|_| {
            Error::new(
                Kind::FailedPrecondition,
                "cannot start a container that has stopped",
            )
        })?;
        self.until_executed(&channel, &saved)?;
        self.hooks(&saved, "running", |hooks| {
            ("poststart", hooks.poststart().as_ref())
        })
    }

    fn until_executed(&self, channel: &Channel, saved: &Saved) -> Result<()> {
        loop {
            match channel.receive()? {
                None => return Ok(()),
                Some(Message::Failed(error)) => {
                    return Err(error.within("unable to start container process"));
                }
                Some(Message::Warning(text)) => tracing::warn!(id = saved.id, "{text}"),
                Some(Message::Notify(fd)) => {
                    notify::pass_on(&create::load_spec(&saved.bundle)?, saved, &fd, "created")?;
                }
                Some(Message::Go | Message::Hooks | Message::Ready | Message::Console(_)) => {}
            }
        }
    }

    /// See [`super::Runtime::exec`].
    pub(crate) async fn exec(&self, request: ExecRequest<'_>) -> Result<Created> {
        let saved = self.saved(request.id)?;
        if saved.cgroup.is_frozen() {
            return Err(Error::new(
                Kind::FailedPrecondition,
                "cannot exec in a paused container",
            ));
        }
        let running = exec::exec(
            &request,
            &saved,
            self.layout()?,
            self.options.no_new_keyring,
        )?;
        for warning in &running.warnings {
            tracing::warn!(id = request.id, exec = request.exec_id, "{warning}");
        }
        Ok(Created {
            pid: running.child.pid.as_raw_nonzero().get(),
            console: running.console,
        })
    }

    /// See [`super::Runtime::kill`].
    pub(crate) async fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let saved = self.saved(id)?;
        let signal = signal_of(signal)?;
        if all && signal == Signal::KILL {
            return saved
                .cgroup
                .kill_all()
                .map_err(|e| Error::because("kill", e));
        }
        if all {
            for pid in saved
                .cgroup
                .processes()
                .map_err(|e| Error::because("kill", e))?
            {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
            return Ok(());
        }
        let gone = || Error::new(Kind::NotFound, "process already finished");
        let pidfd = self.pidfd(&saved)?.ok_or_else(gone)?;
        match pidfd_send_signal(&*pidfd, signal) {
            Err(rustix::io::Errno::SRCH) => return Err(gone()),
            other => other.map_err(|e| Error::because("kill", e))?,
        }
        if signal == Signal::KILL && saved.cgroup.is_frozen() {
            saved.cgroup.thaw().map_err(|e| Error::because("kill", e))?;
        }
        Ok(())
    }

    /// See [`super::Runtime::delete`].
    pub(crate) async fn delete(&self, id: &str, force: bool) -> Result<()> {
        let Some(saved) = self.find(id)? else {
            return if force { Ok(()) } else { Err(not_found(id)) };
        };
        let alive = saved.init.is_some_and(|init| init.is_alive());
        if alive && !force {
            let text = format!("cannot delete container {id} that is not stopped");
            return Err(Error::new(Kind::FailedPrecondition, text));
        }
        if alive {
            saved
                .cgroup
                .kill_all()
                .map_err(|e| Error::because("kill", e))?;
            if let Some(pidfd) = self.pidfd(&saved)? {
                let _ = pidfd_send_signal(&*pidfd, Signal::KILL);
            }
        }
        remove_cgroup(&saved.cgroup).await?;
        // Best effort, as the spec says: errors are logged and the rest goes on.
        if let Err(e) = self.hooks(&saved, "stopped", |hooks| {
            ("poststop", hooks.poststop().as_ref())
        }) {
            tracing::warn!(id, error = %e, "poststop hooks");
        }
        Saved::remove(&self.options.root, id)?;
        self.live().remove(id);
        Ok(())
    }

    /// See [`super::Runtime::pause`].
    pub(crate) async fn pause(&self, id: &str) -> Result<()> {
        let saved = self.saved(id)?;
        if !saved.init.is_some_and(|init| init.is_alive()) {
            return Err(Error::new(
                Kind::FailedPrecondition,
                "cannot pause a stopped container",
            ));
        }
        saved
            .cgroup
            .freeze()
            .map_err(|e| Error::because("pause", e))
    }

    /// See [`super::Runtime::resume`].
    pub(crate) async fn resume(&self, id: &str) -> Result<()> {
        self.saved(id)?
            .cgroup
            .thaw()
            .map_err(|e| Error::because("resume", e))
    }

    /// See [`super::Runtime::ps`].
    pub(crate) async fn ps(&self, id: &str) -> Result<Vec<i32>> {
        self.saved(id)?
            .cgroup
            .processes()
            .map_err(|e| Error::because("list processes", e))
    }

    /// See [`super::Runtime::update`].
    pub(crate) async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let resources: LinuxResources = serde_json::from_slice(resources)
            .map_err(|e| Error::new(Kind::InvalidArgument, format!("resources: {e}")))?;
        let saved = self.saved(id)?;
        let warnings = saved
            .cgroup
            .apply(&resources)
            .map_err(|e| Error::because("update", e))?;
        for warning in &warnings {
            tracing::warn!(id, "{warning}");
        }
        if resources.devices().as_ref().is_some_and(|d| !d.is_empty()) {
            saved
                .cgroup
                .apply_devices(Some(&resources))
                .map_err(|e| Error::because("update", e))?;
        }
        Ok(())
    }

    /// See [`super::Runtime::state`].
    pub(crate) async fn state(&self, id: &str) -> Result<RuntimeState> {
        let waits = self
            .live()
            .get(id)
            .is_some_and(|live| live.channel.is_some());
        let saved = self.saved(id)?;
        let Some(init) = saved.init else {
            return Ok(RuntimeState::Creating);
        };
        Ok(if !init.is_alive() {
            RuntimeState::Stopped
        } else if waits {
            RuntimeState::Created { pid: init.pid }
        } else if saved.cgroup.is_frozen() {
            RuntimeState::Paused { pid: init.pid }
        } else {
            RuntimeState::Running { pid: init.pid }
        })
    }

    /// See [`super::Runtime::checkpoint`]: not here.
    pub(crate) async fn checkpoint(
        &self,
        id: &str,
        bundle: &Path,
        request: &CheckpointRequest,
    ) -> Result<()> {
        let _ = (id, bundle, request);
        Err(no_checkpoint())
    }

    /// See [`super::Runtime::features`].
    pub(crate) async fn features(&self) -> Result<Vec<u8>> {
        Ok(features::document().to_string().into_bytes())
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, Live>> {
        // The map is whole whatever panicked: each change to it is one call.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(&self) -> Result<&Layout> {
        if let Some(layout) = self.layout.get() {
            return Ok(layout);
        }
        let layout =
            Layout::detect().map_err(|e| Error::because("finding the cgroups of this host", e))?;
        Ok(self.layout.get_or_init(|| layout))
    }

    /// Made here, or by another process.
    fn find(&self, id: &str) -> Result<Option<Saved>> {
        let here = self.live().get(id).map(|live| live.saved.clone());
        match here {
            Some(saved) => Ok(Some(saved)),
            None => Saved::load(&self.options.root, id),
        }
    }

    fn saved(&self, id: &str) -> Result<Saved> {
        self.find(id)?.ok_or_else(|| not_found(id))
    }

    /// `None` when init is gone.
    fn pidfd(&self, saved: &Saved) -> Result<Option<Arc<OwnedFd>>> {
        if let Some(live) = self.live().get(&saved.id) {
            return Ok(Some(Arc::clone(&live.pidfd)));
        }
        let Some(init) = saved.init else {
            return Ok(None);
        };
        let Some(pid) = rustix::process::Pid::from_raw(init.pid) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Open first, then look: so it can't become another process in between.
            Ok(fd) => Ok(init.is_alive().then(|| Arc::new(fd))),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(Error::because("pidfd", e)),
        }
    }

    fn hooks(
        &self,
        saved: &Saved,
        status: &str,
        pick: impl Fn(
            &oci_spec::runtime::Hooks,
        ) -> (&'static str, Option<&Vec<oci_spec::runtime::Hook>>),
    ) -> Result<()> {
        if !saved.has_late_hooks {
            return Ok(());
        }
        let spec = create::load_spec(&saved.bundle)?;
        let Some(hooks) = spec.hooks() else {
            return Ok(());
        };
        let (name, hooks) = pick(hooks);
        let pid = saved
            .init
            .filter(|_| status != "stopped")
            .map_or(0, |init| init.pid);
        let state = State {
            id: &saved.id,
            bundle: &saved.bundle,
            spec: &spec,
        }
        .json(status, pid);
        hooks::run(name, hooks, &state)
    }
}

/// Removes the directories, killing what is still inside, for as long as [`PATIENCE`] lasts.
async fn remove_cgroup(cgroup: &Cgroup) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(500);
    loop {
        match cgroup.remove() {
            Ok(()) => return Ok(()),
            Err(e) if e.is_busy() && Instant::now() < deadline => {
                cgroup.kill_all().map_err(|e| Error::because("kill", e))?;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(e) => return Err(Error::because("unable to destroy container", e)),
        }
    }
}

fn signal_of(number: i32) -> Result<Signal> {
    let named = Signal::from_named_raw(number);
    named.ok_or_else(|| Error::new(Kind::InvalidArgument, format!("{number} is not a signal")))
}

fn not_found(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("container {id} does not exist"))
}

fn no_checkpoint() -> Error {
    Error::new(
        Kind::Unimplemented,
        "the built-in runtime cannot checkpoint or restore: choose runc for containers that need it",
    )
}
