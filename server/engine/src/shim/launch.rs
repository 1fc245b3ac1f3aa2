//! The shim as a program: spawned with its listening socket as descriptor 3,
//! or run once to clean up after a dead one.

use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use davit_sys::protect::{self, Protected};

use super::{bundle::Bundle, unix};
use crate::{Error, Kind, Result};

/// Starts shims; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    binary: PathBuf,
    /// Made on first use and again when the binary was replaced.
    sealed: Arc<Mutex<Option<Seal>>>,
}

#[derive(Debug)]
struct Seal {
    /// Device, inode and modification time of the binary that was sealed.
    identity: (u64, u64, i64, i64),
    protected: Arc<Protected>,
}

impl Launcher {
    /// A launcher of the shim at `binary`.
    pub(crate) fn new(binary: PathBuf) -> Self {
        Self {
            binary,
            sealed: Arc::default(),
        }
    }

    /// Listens for a container's shim and spawns it; gives its pid. The shim
    /// answers as soon as it is up; the socket takes calls before that.
    pub(crate) fn spawn(&self, ns: &str, id: &str, bundle: &Bundle) -> Result<u32> {
        let fail = |what: &str, error: io::Error| {
            Error::io(
                format!(
                    "cannot {what} the shim {} of container {id}",
                    self.binary.display()
                ),
                error,
            )
        };
        let listener = unix::listen(&bundle.socket).map_err(|error| fail("listen for", error))?;
        let protected = self.protected().map_err(|error| fail("find", error))?;
        let mut command = protected.command(&self.binary);
        command
            .args(["serve", "--namespace", ns, "--id", id, "--bundle"])
            .arg(&bundle.dir)
            .current_dir(&bundle.dir)
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(bundle));
        davit_sys::process::inherit(&mut command, vec![(OwnedFd::from(listener), 3)]);
        davit_sys::process::new_session(&mut command);
        let child = tokio::process::Command::from(command)
            .spawn()
            .map_err(|error| fail("spawn", error))?;
        let pid = child.id().unwrap_or(0);
        tokio::spawn(reap(child));
        Ok(pid)
    }

    /// Runs the shim's `delete`: kills and cleans up what a dead shim left.
    pub(crate) async fn delete(
        &self,
        ns: &str,
        id: &str,
        bundle: &Bundle,
        deadline: Duration,
    ) -> Result<()> {
        let fail = |text: String| {
            Error::new(
                Kind::Internal,
                format!("cannot clean up after container {id}: {text}"),
            )
        };
        let protected = self.protected().map_err(|error| fail(error.to_string()))?;
        let mut command = protected.command(&self.binary);
        command
            .args(["-namespace", ns, "-id", id, "-bundle"])
            .arg(&bundle.dir)
            .arg("delete")
            .current_dir(&bundle.dir)
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        let run = async { command.spawn()?.wait_with_output().await };
        let output = tokio::time::timeout(deadline, run)
            .await
            .map_err(|_| fail(format!("no end within {deadline:?}")))?
            .map_err(|error| fail(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(fail(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }

    fn protected(&self) -> io::Result<Arc<Protected>> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(&self.binary)?;
        let identity = (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec());
        let mut sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seal) = sealed.as_ref().filter(|seal| seal.identity == identity) {
            return Ok(Arc::clone(&seal.protected));
        }
        let protected = Arc::new(protect::protect(&self.binary));
        if let Protected::Plain(error) = &*protected {
            tracing::warn!(shim = %self.binary.display(), %error, "cannot seal the shim's binary; it runs as it is");
        }
        *sealed = Some(Seal {
            identity,
            protected: Arc::clone(&protected),
        });
        Ok(protected)
    }

    /// Where a shim's own complaints go.
    fn log(&self, bundle: &Bundle) -> Stdio {
        std::fs::File::create(bundle.dir.join("shim.log"))
            .map_or_else(|_| Stdio::null(), Stdio::from)
    }
}

/// Takes a shim's exit status, so that it does not stay a zombie.
async fn reap(mut child: tokio::process::Child) {
    match child.wait().await {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::debug!(%status, "a shim has ended"),
        Err(error) => tracing::warn!(%error, "cannot wait for a shim"),
    }
}
