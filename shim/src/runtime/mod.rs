//! The seam to what makes containers: the built-in OCI runtime, or a runc-compatible binary.
//!
//! Both make processes that are children of this shim by the time `create` or `exec` returns (by double fork and
//! subreaping, or directly); nobody but the shim's reaper waits for those.
//!
//! Errors' messages are what runc would have written to its log ("runc create failed: unable to start container
//! process: exec: \"foo\": executable file not found in $PATH"); the caller puts "OCI runtime create failed: " in front.

pub(crate) mod builtin;
mod console;
pub(crate) mod external;
mod report;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::reaper::Reaper;

/// Which runtime, and where it keeps its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct RuntimeOptions {
    /// "" = built in, else a name found in `$PATH` or an absolute path.
    pub(crate) runtime: String,
    /// The runtime's state directory for this namespace (`--root`): `<root>/<container id>` belongs to it.
    pub(crate) root: PathBuf,
    /// The cgroup path in the spec is `slice:prefix:name`, and systemd makes it.
    pub(crate) systemd_cgroup: bool,
    /// Do not pivot_root (root file system on a ramdisk).
    pub(crate) no_pivot_root: bool,
    /// Do not make a session keyring.
    pub(crate) no_new_keyring: bool,
    /// For criu: where a checkpoint keeps its work files.
    pub(crate) criu_work_path: Option<PathBuf>,
}

/// What a new process gets as stdin, stdout and stderr.
#[derive(Debug)]
pub(crate) enum ProcessIo {
    /// These descriptors, which the runtime must close in this process when it has passed them on (drop them).
    Fds {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A pseudo-terminal of the container's own devpts; the runtime hands back the master (see [`Created::console`]).
    /// The size comes from the OCI process's `consoleSize`.
    Console,
}

/// A container to make from `<bundle>/config.json`. Its root file system is mounted already.
#[derive(Debug)]
pub(crate) struct CreateRequest<'a> {
    /// The container's id.
    pub(crate) id: &'a str,
    /// The bundle, an absolute path.
    pub(crate) bundle: &'a Path,
    /// stdin, stdout, stderr of init.
    pub(crate) io: ProcessIo,
    /// A criu image directory to restore from instead of starting the process afresh.
    pub(crate) checkpoint: Option<&'a Path>,
    /// Descriptors to pass to init from 3 on (`--preserve-fds`).
    pub(crate) preserved: Vec<OwnedFd>,
}

/// A process that exists; init has not executed the user's program yet.
#[derive(Debug)]
pub(crate) struct Created {
    /// In the shim's pid namespace; a child of the shim.
    pub(crate) pid: i32,
    /// The pseudo-terminal's master, for [`ProcessIo::Console`].
    pub(crate) console: Option<OwnedFd>,
}

/// A further process in a running container.
#[derive(Debug)]
pub(crate) struct ExecRequest<'a> {
    /// The container's id.
    pub(crate) id: &'a str,
    /// Unique in the container.
    pub(crate) exec_id: &'a str,
    /// The container's bundle.
    pub(crate) bundle: &'a Path,
    /// The OCI `process` object as JSON.
    pub(crate) process: &'a [u8],
    /// stdin, stdout, stderr.
    pub(crate) io: ProcessIo,
}

/// How to checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct CheckpointRequest {
    /// Where the criu image goes.
    pub(crate) image_path: PathBuf,
    /// criu's work files; the bundle when empty.
    pub(crate) work_path: Option<PathBuf>,
    /// The container ends with the checkpoint.
    pub(crate) exit: bool,
    pub(crate) open_tcp: bool,
    pub(crate) external_unix_sockets: bool,
    pub(crate) terminal: bool,
    pub(crate) file_locks: bool,
    pub(crate) empty_namespaces: Vec<String>,
    /// runc's `--manage-cgroups-mode`.
    pub(crate) cgroups_mode: String,
}

/// A runtime's own view of a container.
#[allow(
    dead_code,
    reason = "part of the seam; the shim's own record is what it answers from"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuntimeState {
    Creating,
    Created { pid: i32 },
    Running { pid: i32 },
    Paused { pid: i32 },
    Stopped,
}

/// A runtime. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Runtime {
    /// See [`builtin`].
    Builtin(builtin::Builtin),
    /// See [`external`].
    External(external::External),
}

/// Calls the same method of whichever runtime it is.
macro_rules! either {
    ($self:ident, $runtime:ident => $call:expr) => {
        match $self {
            Runtime::Builtin($runtime) => $call,
            Runtime::External($runtime) => $call,
        }
    };
}

impl Runtime {
    /// The runtime that `options` name, for the container in `bundle`.
    ///
    /// # Errors
    /// Not found, when it is a binary that is not there.
    pub(crate) fn open(options: RuntimeOptions, bundle: &Path, reaper: Reaper) -> Result<Runtime> {
        if options.runtime.is_empty() {
            return Ok(Runtime::Builtin(builtin::Builtin::new(options, reaper)));
        }
        external::External::new(options, bundle, reaper).map(Runtime::External)
    }

    /// Makes the container and its init, which waits for [`Runtime::start`]. On an error nothing of it is left.
    pub(crate) async fn create(&self, request: CreateRequest<'_>) -> Result<Created> {
        either!(self, runtime => runtime.create(request).await)
    }

    /// Lets init execute the user's program. An error to execute it is reported here or by `create`.
    pub(crate) async fn start(&self, id: &str) -> Result<()> {
        either!(self, runtime => runtime.start(id).await)
    }

    /// Starts a further process; when this returns, it has executed its program.
    pub(crate) async fn exec(&self, request: ExecRequest<'_>) -> Result<Created> {
        either!(self, runtime => runtime.exec(request).await)
    }

    /// Sends a signal to init, or to every process of the container. Not found when there is nobody left.
    pub(crate) async fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        either!(self, runtime => runtime.kill(id, signal, all).await)
    }

    /// Removes what the runtime made for the container (cgroups, state). `force` kills what still runs first. An
    /// unknown container is success with `force`, not found without.
    pub(crate) async fn delete(&self, id: &str, force: bool) -> Result<()> {
        either!(self, runtime => runtime.delete(id, force).await)
    }

    /// Freezes every process.
    pub(crate) async fn pause(&self, id: &str) -> Result<()> {
        either!(self, runtime => runtime.pause(id).await)
    }

    /// Thaws what [`Runtime::pause`] froze.
    pub(crate) async fn resume(&self, id: &str) -> Result<()> {
        either!(self, runtime => runtime.resume(id).await)
    }

    /// The pids of all processes in the container, as this shim sees them.
    pub(crate) async fn ps(&self, id: &str) -> Result<Vec<i32>> {
        either!(self, runtime => runtime.ps(id).await)
    }

    /// Changes limits; `resources` is an OCI `LinuxResources` as JSON, of which only the fields given change.
    pub(crate) async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        either!(self, runtime => runtime.update(id, resources).await)
    }

    /// What the runtime thinks of the container.
    #[allow(dead_code, reason = "see RuntimeState")]
    pub(crate) async fn state(&self, id: &str) -> Result<RuntimeState> {
        either!(self, runtime => runtime.state(id).await)
    }

    /// Writes a criu image of the container.
    pub(crate) async fn checkpoint(
        &self,
        id: &str,
        bundle: &Path,
        request: &CheckpointRequest,
    ) -> Result<()> {
        either!(self, runtime => runtime.checkpoint(id, bundle, request).await)
    }

    /// The OCI runtime `features` document, as JSON.
    pub(crate) async fn features(&self) -> Result<Vec<u8>> {
        either!(self, runtime => runtime.features().await)
    }
}
