//! `Create`: mounts, stdio and the runtime's create; on an error nothing of it is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim_protos::{events, topics};
use davit_sys::mount::Mount;
use fail::fail_point;
use protobuf::{Message, MessageField};

use super::container::{Container, Parts, SPILL, rootfs};
use super::exit;
use super::process::{Before, Process, State};
use super::{Slot, Tasks};
use crate::args::check_id;
use crate::bundle::Config;
use crate::diag;
use crate::error::{Error, Kind, Result};
use crate::io::attach::{AttachServer, Hubs};
use crate::io::target::StdioRequest;
use crate::io::{self, Stdio};
use crate::options;
use crate::runtime::{CreateRequest, Created, ProcessIo, Runtime, RuntimeOptions};

/// What to create.
#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) id: String,
    /// An absolute path with a `config.json`.
    pub(crate) bundle: PathBuf,
    /// Mounted on `<bundle>/rootfs`; none when the caller has mounted it.
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) stdio: StdioRequest,
    /// A criu image to restore at the start.
    pub(crate) checkpoint: Option<PathBuf>,
    pub(crate) options: RuntimeOptions,
}

impl Tasks {
    /// Creates a container; returns init's pid, 0 when there is none before the start (restore).
    pub(crate) async fn create(&self, create: Create) -> Result<i32> {
        check_id("container", &create.id)?;
        if !create.bundle.is_absolute() {
            let text = format!("bundle {} is not an absolute path", create.bundle.display());
            return Err(Error::new(Kind::InvalidArgument, text));
        }
        let id = create.id.clone();
        let taken = || {
            Error::new(
                Kind::AlreadyExists,
                format!("container {id} already exists"),
            )
        };
        if self.slots().contains_key(&id) {
            return Err(taken());
        }
        self.slots().insert(id.clone(), Slot::Reserved);
        match self.create_reserved(create).await {
            Ok((container, pid)) => {
                self.slots().insert(id, Slot::Ready(container));
                self.used.notify_one();
                Ok(pid)
            }
            Err(error) => {
                self.slots().remove(&id);
                Err(error)
            }
        }
    }

    async fn create_reserved(&self, create: Create) -> Result<(Arc<Container>, i32)> {
        crate::serve::settle_mounts(&create.bundle);
        let config = Config::read(&create.bundle)?;
        let runtime = Runtime::open(
            create.options.clone(),
            &create.bundle,
            self.shim.reaper.clone(),
        )?;
        fail_point!("shim.create.begin");
        options::remember(&create.bundle, &create.options).map_err(|error| {
            Error::because(
                format_args!("writing runtime.json to {}", create.bundle.display()),
                error,
            )
        })?;
        let mounted = Mounted::attach(&create)?;
        fail_point!("shim.create.after-mount");
        let (io, stdio) = io::open(
            &create.stdio,
            &create.id,
            &self.shim.namespace,
            Path::new(SPILL),
        )
        .await?;
        let hubs = Hubs::default();
        let attach = attach_server(&create.bundle, &hubs, &stdio)?;
        // Init may end before its pid is known here.
        let expecting = self.shim.reaper.expect();
        let (created, before) = match &create.checkpoint {
            Some(_) => (
                None,
                Some(Before {
                    io,
                    spec: Vec::new(),
                }),
            ),
            None => (
                Some(
                    make(&create, &runtime, io)
                        .await
                        .inspect_err(|_| stdio.close())?,
                ),
                None,
            ),
        };
        fail_point!("shim.create.after-runtime");
        let init = Process::new("", create.stdio.clone(), stdio, before);
        let container = Container::new(Parts {
            id: create.id.clone(),
            bundle: create.bundle.clone(),
            shim: self.shim.clone(),
            runtime,
            own_pids: config.has_own_pids(),
            mounted: mounted.keep(),
            checkpoint: create.checkpoint.clone(),
            init,
            hubs,
            attach,
        });
        let pid = created.as_ref().map_or(0, |created| created.pid);
        self.announce(&create, pid);
        if let Some(created) = created {
            let init = container.init.clone();
            exit::adopt(&container, &init, created, |pid| State::Created { pid });
        }
        drop(expecting);
        Ok((container, pid))
    }

    fn announce(&self, create: &Create, pid: i32) {
        let io = events::task::TaskIO {
            stdin: create.stdio.stdin.clone(),
            stdout: create.stdio.stdout.clone(),
            stderr: create.stdio.stderr.clone(),
            terminal: create.stdio.terminal,
            ..Default::default()
        };
        let mut event = events::task::TaskCreate {
            container_id: create.id.clone(),
            bundle: create.bundle.to_string_lossy().into_owned(),
            io: MessageField::some(io),
            checkpoint: create
                .checkpoint
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
            pid: u32::try_from(pid).unwrap_or(0),
            ..Default::default()
        };
        for mount in &create.rootfs {
            let wire = containerd_shim_protos::types::mount::Mount {
                type_: mount.kind.clone(),
                source: mount.source.clone(),
                target: mount.target.clone(),
                options: mount.options.clone(),
                ..Default::default()
            };
            // The same message, generated a second time under a name that cannot be written here.
            let copy = wire
                .write_to_bytes()
                .and_then(|bytes| Message::parse_from_bytes(&bytes));
            event.rootfs.extend(copy);
        }
        self.shim
            .publisher
            .publish(topics::TASK_CREATE_EVENT_TOPIC, &event);
    }
}

async fn make(create: &Create, runtime: &Runtime, io: ProcessIo) -> Result<Created> {
    let pid_file = create.bundle.join("init.pid");
    // One of an earlier container would be taken for this one's.
    let _ = fs::remove_file(&pid_file);
    let request = CreateRequest {
        id: &create.id,
        bundle: &create.bundle,
        io,
        checkpoint: None,
        preserved: Vec::new(),
    };
    let created = runtime
        .create(request)
        .await
        .map_err(|error| error.within("OCI runtime create failed"))?;
    if !pid_file.exists() {
        // For people and tools; a binary writes it itself.
        if let Err(error) = fs::write(&pid_file, created.pid.to_string()) {
            diag::warn(format_args!("writing {}: {error}", pid_file.display()));
        }
    }
    Ok(created)
}

fn attach_server(bundle: &Path, hubs: &Hubs, stdio: &Stdio) -> Result<Option<AttachServer>> {
    let Some(hub) = &stdio.hub else {
        return Ok(None);
    };
    hubs.insert("", hub.clone());
    let server = AttachServer::start(bundle, hubs.clone()).map_err(|error| {
        Error::because(
            format_args!("making the attach socket in {}", bundle.display()),
            error,
        )
    })?;
    Ok(Some(server))
}

/// The root file system's mounts, taken off again unless they are kept.
struct Mounted(Option<PathBuf>);

impl Mounted {
    fn attach(create: &Create) -> Result<Mounted> {
        if create.rootfs.is_empty() {
            return Ok(Mounted(None));
        }
        let target = rootfs(&create.bundle);
        let failed = |cause: String| Error::because("failed to mount rootfs component", cause);
        fs::create_dir_all(&target)
            .map_err(|error| failed(format!("{}: {error}", target.display())))?;
        davit_sys::mount::attach(&create.rootfs, &target)
            .map_err(|error| failed(format!("{error}: {}", error.io())))?;
        Ok(Mounted(Some(target)))
    }

    fn keep(mut self) -> Option<PathBuf> {
        self.0.take()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(target) = &self.0 else { return };
        if let Err(error) = davit_sys::mount::detach(target) {
            diag::warn(format_args!("{error}: {}", error.io()));
        }
    }
}
