//! `--console-socket`: the runtime connects to it and sends the master of the terminal that it made.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

/// A socket in the bundle; the runtime is run with the bundle as working directory and given the name only, so that
/// the path's length does not matter.
#[derive(Debug)]
pub(super) struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
    /// What to give to the runtime.
    pub(super) name: String,
}

impl ConsoleSocket {
    /// Binds `<bundle>/<name>`.
    pub(super) fn bind(bundle: &Path, name: String) -> io::Result<ConsoleSocket> {
        let path = bundle.join(&name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let directory = File::open(bundle)?;
        let short = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        Ok(ConsoleSocket {
            listener: UnixListener::bind(short)?,
            path,
            name,
        })
    }

    /// Waits for the runtime to connect and send.
    pub(super) async fn receive(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept().await?;
        stream
            .async_io(Interest::READABLE, || receive_fd(&stream))
            .await
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // The bundle goes soon anyhow.
        let _ = fs::remove_file(&self.path);
    }
}

fn receive_fd(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0u8; 4096];
    let mut parts = [io::IoSliceMut::new(&mut name)];
    recvmsg(
        stream.as_fd(),
        &mut parts,
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other("the runtime sent no terminal on the console socket"))
}
