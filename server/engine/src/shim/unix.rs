//! Unix sockets at paths longer than `sun_path` (108 bytes): reached through
//! a descriptor of their directory.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

/// Longest path that is used as it is.
const PLAIN: usize = 100;

/// Listens at `path`, in place of a dead socket that may lie there.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let (short, _directory) = shorten(path)?;
    UnixListener::bind(short)
}

/// Connects to the socket at `path`; never blocks for long: a Unix socket
/// answers at once or refuses.
pub(crate) fn connect(path: &Path) -> io::Result<tokio::net::UnixStream> {
    let (short, _directory) = shorten(path)?;
    let stream = UnixStream::connect(short)?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

fn shorten(path: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    if path.as_os_str().len() <= PLAIN {
        return Ok((path.to_owned(), None));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a path of a socket",
        ));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::empty())?;
    Ok((
        PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())).join(name),
        Some(fd),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_paths_work_and_dead_sockets_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(120));
        std::fs::create_dir(&long).unwrap();
        let path = long.join("a.sock");
        drop(listen(&path).unwrap());
        assert_eq!(
            connect(&path).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        let _listener = listen(&path).unwrap();
        connect(&path).unwrap();
    }
}
