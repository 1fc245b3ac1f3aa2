//! A shim's bundle: `<state>/shims/<ns>/<id>/`, which the daemon makes before
//! it spawns the shim and removes when nothing of the run is left. It is the
//! record of the intent to run: what lies here after a crash is a run to find
//! again or to clean up.

use std::{
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::process::Process;
use crate::{Error, Result};

/// The paths of a bundle.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
    pub(crate) socket: PathBuf,
}

/// `run.json`: what the next daemon must know about a run. Written when the
/// process has started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunFile {
    pub(crate) pid: u32,
    pub(crate) shim_pid: u32,
    pub(crate) started_at: Timestamp,
    /// Whether the start was by the restart policy, and after which pause
    /// (milliseconds).
    #[serde(default)]
    pub(crate) backoff_ms: Option<u64>,
}

/// `exits/<id>.json`: how a process ended, written by the shim before it
/// tells anyone.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ExitFile {
    pub(crate) code: i32,
    pub(crate) at: Timestamp,
    #[serde(default)]
    pub(crate) oom: bool,
}

impl Bundle {
    /// The bundle of a container.
    pub(crate) fn of(state: &Path, ns: &str, id: &str) -> Self {
        Self {
            dir: state.join("shims").join(ns).join(id),
            socket: state.join("s").join(format!("{}.sock", short_hash(ns, id))),
        }
    }

    /// Makes the directories, in place of what a dead run left.
    pub(crate) fn make(&self) -> Result<()> {
        if self.dir.exists() {
            self.remove()?;
        }
        let make = || -> io::Result<()> {
            for directory in ["rootfs", "exits", "execs"] {
                std::fs::create_dir_all(self.dir.join(directory))?;
            }
            Ok(())
        };
        make().map_err(|error| {
            Error::io(
                format!("cannot make the bundle {}", self.dir.display()),
                error,
            )
        })
    }

    /// Removes the bundle and its socket. The root file system is unmounted
    /// first where a mount is visible to us, so that nothing below it goes.
    pub(crate) fn remove(&self) -> Result<()> {
        let rootfs = self.dir.join("rootfs");
        while is_mount_point(&rootfs) {
            nix::mount::umount2(&rootfs, nix::mount::MntFlags::MNT_DETACH).map_err(|errno| {
                Error::io(
                    format!("cannot unmount {}", rootfs.display()),
                    io::Error::from(errno),
                )
            })?;
        }
        // Only an empty directory goes: whatever is still mounted keeps it.
        for directory in [&rootfs] {
            if let Err(error) = std::fs::remove_dir(directory)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(Error::io(
                    format!("cannot remove {}", directory.display()),
                    error,
                ));
            }
        }
        absent_is_fine(std::fs::remove_file(&self.socket))
            .and_then(|()| absent_is_fine(std::fs::remove_dir_all(&self.dir)))
            .map_err(|error| {
                Error::io(
                    format!("cannot remove the bundle {}", self.dir.display()),
                    error,
                )
            })
    }

    /// Writes `config.json`.
    pub(crate) fn write_config(&self, spec: &[u8]) -> Result<()> {
        let path = self.dir.join("config.json");
        std::fs::write(&path, spec)
            .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
    }

    /// Reads how a process ended, if the shim has said so.
    pub(crate) fn exit(&self, process: &str) -> Option<ExitFile> {
        let name = if process.is_empty() { "init" } else { process };
        self.read(&format!("exits/{name}.json"))
    }

    /// Reads a JSON file of the bundle; None when it is absent or broken.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let bytes = std::fs::read(self.dir.join(name)).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(bundle = %self.dir.display(), name, %error, "broken file in a bundle"))
            .ok()
    }

    /// Writes a JSON file of the bundle, whole or not at all.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        let path = self.dir.join(name);
        let aside = self.dir.join(format!("{name}.new"));
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Error::internal(format!("cannot encode {name}")).with_source(error))?;
        std::fs::write(&aside, bytes)
            .and_then(|()| std::fs::rename(&aside, &path))
            .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
    }

    /// The shim of this bundle, if process `pid` still is one: it was given
    /// the bundle's path as an argument.
    pub(crate) fn shim_process(&self, pid: u32) -> Option<Process> {
        let process = Process::open(pid).ok()?;
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = self.dir.as_os_str().as_encoded_bytes();
        let is_ours = arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == ours);
        // Opened before it was looked at: it can't have become another since.
        (is_ours && process.is_alive()).then_some(process)
    }

    /// All shims of this bundle: for one whose process id was not written
    /// down before the daemon died.
    pub(crate) fn shims(&self) -> Vec<u32> {
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| self.shim_process(*pid).is_some())
            .collect()
    }

    /// The socket for streams.
    pub(crate) fn streams(&self) -> PathBuf {
        self.dir.join("a.sock")
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).is_ok_and(|stat| {
        stat.stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT)
            && stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}

/// 16 hex digits from namespace and id (FNV-1a): a socket's name must be
/// short, and the path of the bundle says whose it is.
fn short_hash(ns: &str, id: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in ns.bytes().chain([0]).chain(id.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_made_anew_and_removed() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("s")).unwrap();
        let bundle = Bundle::of(state.path(), "default", "abc");
        bundle.make().unwrap();
        std::fs::write(bundle.dir.join("left-over"), "x").unwrap();
        bundle.make().unwrap();
        assert!(!bundle.dir.join("left-over").exists());
        let run = RunFile {
            pid: 1,
            shim_pid: 2,
            started_at: Timestamp::now(),
            backoff_ms: None,
        };
        bundle.write("run.json", &run).unwrap();
        assert_eq!(bundle.read::<RunFile>("run.json").unwrap().pid, 1);
        assert!(bundle.exit("").is_none());
        bundle.remove().unwrap();
        bundle.remove().unwrap();
        assert!(!bundle.dir.exists());
    }

    #[test]
    fn sockets_differ() {
        let state = Path::new("/s");
        let path = |ns, id| Bundle::of(state, ns, id).socket;
        assert_ne!(path("a", "bc"), path("ab", "c"));
    }
}
