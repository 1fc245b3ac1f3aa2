//! `serve`: the server, for as long as there are containers. The listening socket is descriptor 3.
//!
//! It has one thread, for good: the built-in runtime forks it.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;

use crate::args::Args;
use crate::bootstrap::{bundle, event_loop};
use crate::bundle::Config;
use crate::cgroup::{Cgroup, Layout};
use crate::diag;
use crate::error::{Error, Result};
use crate::events::Publisher;
use crate::io::scratch;
use crate::reaper::Reaper;
use crate::task::{Shim, TaskService, Tasks};

/// Descriptor of the listening socket.
const SOCKET: i32 = 3;
/// A shim that nobody gave a container to within this time was forgotten.
const UNUSED: Duration = Duration::from_secs(600);
/// For the last events at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// Serves until the last container is deleted and the caller says shutdown.
///
/// # Errors
/// What keeps it from starting.
pub(crate) fn serve(args: &Args) -> Result<()> {
    let socket = davit_sys::process::take_fd(SOCKET)
        .map_err(|error| Error::because("taking the listening socket (descriptor 3)", error))?;
    let bundle = bundle(args)?;
    std::env::set_current_dir(&bundle).map_err(|error| {
        Error::because(
            format_args!("changing to the bundle {}", bundle.display()),
            error,
        )
    })?;
    log_to_bundle(&bundle);
    settle_in(args, &bundle);
    event_loop()?.block_on(run(args, socket))
}

async fn run(args: &Args, socket: OwnedFd) -> Result<()> {
    ignore_signals()?;
    let reaper = Reaper::default();
    reaper
        .start()
        .map_err(|error| Error::because("watching children", error))?;
    let listener = UnixListener::from(socket);
    let path = listener
        .local_addr()
        .ok()
        .and_then(|address| address.as_pathname().map(Path::to_path_buf));
    let listener = Listener::try_from(listener)
        .map_err(|error| Error::because("listening on descriptor 3", error))?;
    let address = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    let publisher = Publisher::start(&address, &args.namespace);
    let shim = Shim {
        namespace: args.namespace.clone(),
        reaper,
        publisher: publisher.clone(),
    };
    let tasks = Tasks::new(shim);
    tokio::spawn(scratch::tidy());
    let mut server = Server::new()
        .add_listener(listener)
        .register_service(TaskService::register(tasks.clone(), &args.namespace));
    server
        .start()
        .await
        .map_err(|error| Error::because("serving", error))?;
    scratch::touch();
    if tokio::time::timeout(UNUSED, first_use(&tasks))
        .await
        .is_err()
    {
        diag::warn("nobody made a container here: going");
        tasks.shutdown();
    }
    tasks.finished().await;
    leave(path, &publisher).await;
    Ok(())
}

/// The first container, or the order to go.
async fn first_use(tasks: &Tasks) {
    tokio::select! {
        () = tasks.used() => {}
        () = tasks.finished() => {
            tasks.shutdown();
        }
    }
}

/// Lets replies and events out, and takes the socket away.
async fn leave(path: Option<PathBuf>, publisher: &Publisher) {
    // The reply to Shutdown passes through three tasks of this thread; each turn runs all that are ready.
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
    publisher.flush(FLUSH).await;
    if let Some(path) = path {
        // Somebody else may have taken it away.
        let _ = std::fs::remove_file(path);
    }
}

/// Signals meant for a terminal's or a service's processes do not end a shim: containers would be left without one.
/// Handlers, unlike SIG_IGN, are not inherited by containers.
fn ignore_signals() -> Result<()> {
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ] {
        // Once installed, a handler stays; nobody listens to it.
        let _unheard =
            signal(kind).map_err(|error| Error::because("installing signal handlers", error))?;
    }
    Ok(())
}

/// Makes this process what a shim should be. What the system refuses is noted, and the shim works without.
fn settle_in(args: &Args, bundle: &Path) {
    // `ps` and `pgrep` show this name; executed through a descriptor, it would be a number.
    note(
        "naming the process",
        rustix::thread::set_name(c"containerd-shim"),
    );
    // nix, not rustix: 0, the session of a leader outside our pid namespace, is no id that rustix can hold.
    if nix::unistd::getsid(None) != Ok(nix::unistd::getpid()) {
        note("making a session", rustix::process::setsid().map(drop));
    }
    // Orphans of containers come here instead of to the host's init.
    note(
        "becoming a subreaper",
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())),
    );
    if let Some(path) = &args.cgroup {
        note("entering the shim's cgroup", enter_cgroup(path));
    }
    settle_mounts(bundle);
}

/// Whether the namespace for mounts was chosen.
static MOUNTS_SETTLED: std::sync::OnceLock<()> = std::sync::OnceLock::new();

/// Chooses between the host's mount namespace and one of our own, once, as soon as the container's config can be
/// read. davitd writes it while we start up, so Create asks again before the first mount.
pub(crate) fn settle_mounts(bundle: &Path) {
    let Ok(config) = Config::read(bundle) else {
        return;
    };
    if MOUNTS_SETTLED.set(()).is_err() {
        return;
    }
    // A pod's later containers may share mounts with the host, which nobody knows yet.
    if !config.shares_mounts() && config.group().is_none() {
        note("making a mount namespace", private_mounts());
    }
}

/// A mount namespace of its own, which receives the host's later mounts and gives nothing back: what a dead shim had
/// mounted is gone with it.
fn private_mounts() -> std::io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let flags = rustix::mount::MountPropagationFlags::DOWNSTREAM
        | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags)?;
    Ok(())
}

/// Moves this process alone, which with one thread costs no grace period.
fn enter_cgroup(path: &str) -> crate::cgroup::Result<()> {
    let cgroup = Cgroup::at(&Layout::detect()?, Path::new(path))?;
    cgroup.create()?;
    cgroup.entrance()?.enter(false)
}

fn note<E: std::fmt::Display>(what: &str, result: std::result::Result<(), E>) {
    if let Err(error) = result {
        diag::warn(format_args!("{what}: {error}"));
    }
}

/// containerd reads a FIFO `log` in the bundle; messages go there.
fn log_to_bundle(bundle: &Path) {
    let path = bundle.join("log");
    if !std::fs::metadata(&path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return;
    }
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    // Both ways, so that a daemon that is away is no error.
    if let Ok(fifo) = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
    {
        note("logging to the bundle", rustix::stdio::dup2_stderr(&fifo));
    }
}
