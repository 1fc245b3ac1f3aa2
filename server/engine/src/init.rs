//! The small init that containers run as PID 1 when they ask for one.
//!
//! It is a static program of a few kilobytes, carried inside the daemon
//! (davit-sys has its source), so that it runs in any image. docker's is tini,
//! and the behaviour is the same: it starts the command, passes signals on,
//! reaps, and ends as the command did.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use davit_store::{Error, Kind, Result};
use davit_sys::init::PROGRAM;

/// Puts the init binary at `path` (executable, replaced as a whole) and gives
/// the path back, for [`Defaults::init`](crate::spec::Defaults::init).
/// Containers that run keep the one that they were started with.
///
/// # Errors
/// `Unimplemented` on architectures without one; I/O errors.
pub fn install(path: &Path) -> Result<PathBuf> {
    if PROGRAM.is_empty() {
        return Err(Error::new(
            Kind::Unimplemented,
            "there is no init binary for this architecture",
        ));
    }
    if fs::read(path).is_ok_and(|there| there == PROGRAM) {
        return Ok(path.to_owned());
    }
    replace(path)
        .map_err(|error| Error::io(format!("writing the init binary {}", path.display()), error))?;
    Ok(path.to_owned())
}

fn replace(path: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, PROGRAM)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_put_there_and_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init");
        fs::write(&path, "an older one").unwrap();
        assert_eq!(install(&path).unwrap(), path);
        install(&path).unwrap();
        let status = std::process::Command::new(&path)
            .args(["--", "sh", "-c", "exit 4"])
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(4));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
