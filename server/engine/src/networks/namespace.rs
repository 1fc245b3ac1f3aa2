//! Network namespaces of containers: made by the daemon, kept by a mount, so
//! that they outlive it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{Error, Result};

/// The thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Where the namespaces are mounted.
pub(crate) fn directory(state: &Path) -> PathBuf {
    state.join("netns")
}

/// Runs `work` on a thread of its own, which may change its namespace: no
/// other thread is ever in the wrong one.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("davitd-netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| Error::io("cannot start a thread for a network namespace", error))?;
        thread.join().unwrap_or_else(|_| {
            Err(Error::internal(
                "work in a network namespace panicked; this is a bug",
            ))
        })
    })
}

/// Makes a namespace, mounts it on `path`, and runs `work` in it.
pub(crate) fn make<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    // What a run that crashed has left there.
    remove(path)?;
    let what = |step: &str| format!("cannot {step} the network namespace {}", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|error| Error::io(what("make"), error))?;
    }
    File::create(path).map_err(|error| Error::io(what("make"), error))?;
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::io(what("make"), errno))?;
        mount(
            Some(OWN),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(|errno| Error::io(what("mount"), errno))?;
        work()
    })
}

/// Runs `work` in the namespace at `path`.
pub(crate) fn enter<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let what = || format!("cannot enter the network namespace {}", path.display());
    let file = File::open(path).map_err(|error| Error::io(what(), error))?;
    on_a_thread(|| {
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::io(what(), errno))?;
        work()
    })
}

/// Lets go of a namespace; it ends when nothing is in it any more. One that
/// is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let failed = |error: io::Error| {
        Error::io(
            format!("cannot remove the network namespace {}", path.display()),
            error,
        )
    };
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // EINVAL: nothing is mounted there.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => break,
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
