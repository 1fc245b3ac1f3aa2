//! The gateway's own socket: bound without stealing it from somebody who
//! listens, and open to one group only.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, chown},
        net::UnixStream,
    },
    path::Path,
};

use tokio::net::UnixListener;

/// Owner and group may connect: who can reach the socket is root on the host.
const MODE: u32 = 0o660;

/// Binds `path` with mode 0660 and, when given, the group `gid`. A socket file
/// that nobody listens on is replaced.
///
/// # Errors
/// `AddrInUse` when somebody listens there or the path is not a socket, and
/// whatever the system says on binding. Call it inside a tokio runtime.
pub fn bind(path: &Path, gid: Option<u32>) -> io::Result<UnixListener> {
    if let Ok(meta) = fs::symlink_metadata(path) {
        let refuse = |why: &str| {
            Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("{}: {why}", path.display()),
            ))
        };
        if !meta.file_type().is_socket() {
            return refuse("exists and is not a socket");
        }
        if UnixStream::connect(path).is_ok() {
            return refuse("another process listens on it");
        }
        fs::remove_file(path)?;
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    if let Some(gid) = gid {
        chown(path, None, Some(gid))?;
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_a_dead_socket_and_leaves_a_live_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let listener = bind(&path, None).unwrap();
        assert_eq!(
            bind(&path, None).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(listener);
        bind(&path, None).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            MODE
        );
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(bind(&file, None).is_err());
    }
}
