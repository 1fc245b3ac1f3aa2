//! The attach socket, `<bundle>/a.sock`: one connection for each client of one process. See [`super::frame`].

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::frame::{self, HEADER, Hello, MAX_CONTROL};
use super::hub::{Hub, Past, Reader};
use super::{Stream, scratch};
use crate::diag;

/// For the first frame.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// For the client to close after the last frame.
const LINGER: Duration = Duration::from_secs(5);
/// What is read of stdin at a time.
const PIECE: usize = 32 * 1024;

/// The processes that can be attached to: by exec id, "" for init.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hubs(Arc<Mutex<HashMap<String, Arc<Hub>>>>);

impl Hubs {
    pub(crate) fn insert(&self, exec: &str, hub: Arc<Hub>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(exec.to_owned(), hub);
    }

    pub(crate) fn remove(&self, exec: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(exec);
    }

    fn get(&self, exec: &str) -> Option<Arc<Hub>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(exec)
            .cloned()
    }
}

/// A container's attach socket; gone when dropped.
#[derive(Debug)]
pub(crate) struct AttachServer {
    task: JoinHandle<()>,
    path: PathBuf,
}

impl AttachServer {
    /// Listens in `bundle`, whatever its length (a socket's address has 108 bytes).
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(bundle: &Path, hubs: Hubs) -> io::Result<AttachServer> {
        let path = bundle.join("a.sock");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let directory = File::open(bundle)?;
        let listener =
            UnixListener::bind(format!("/proc/self/fd/{}/a.sock", directory.as_raw_fd()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((socket, _)) => drop(tokio::spawn(serve(socket, hubs.clone()))),
                    Err(error) => {
                        diag::warn(format_args!("attach socket: {error}"));
                        // Out of descriptors, most likely: others may close some.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(AttachServer { task, path })
    }
}

impl Drop for AttachServer {
    fn drop(&mut self) {
        self.task.abort();
        // The bundle goes soon anyhow.
        let _ = fs::remove_file(&self.path);
    }
}

async fn serve(socket: UnixStream, hubs: Hubs) {
    let socket = Arc::new(socket);
    let opened = tokio::time::timeout(HELLO_DEADLINE, hello(&socket)).await;
    let hello = match opened {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return refuse(&socket, &error.to_string()).await,
        Err(_) => return refuse(&socket, "no HELLO frame came in time").await,
    };
    let Some(hub) = hubs.get(&hello.exec) else {
        let what = if hello.exec.is_empty() {
            "the container's init"
        } else {
            hello.exec.as_str()
        };
        return refuse(&socket, &format!("no process to attach to: {what}")).await;
    };
    let reader = Reader::new(socket.clone(), hello.stdout, hello.stderr, hub.spill());
    let past = hub.join(&reader, hello.from == frame::From::Start);
    let ready = serde_json::json!({"tty": hub.tty}).to_string();
    let sending = async {
        if send(&socket, frame::READY, ready.as_bytes()).await.is_err() {
            return;
        }
        if replay(&socket, &reader, past).await.is_ok() {
            reader.run().await;
        }
        // The client learns that this was all, and closes.
        let _ = rustix::net::shutdown(&*socket, rustix::net::Shutdown::Write);
    };
    let receiving = receive(&socket, &hub, hello.stdin);
    tokio::pin!(sending, receiving);
    tokio::select! {
        () = &mut sending => {
            // Takes what the client still sends, so that it is not cut off while it reads.
            let _ = tokio::time::timeout(LINGER, receiving).await;
        }
        received = &mut receiving => match received {
            // A client that only closed its writing side still reads.
            Ok(()) if !gone(&socket) => sending.await,
            Ok(()) => {}
            Err(error) => diag::info(format_args!("attached client: {error}")),
        },
    }
    hub.leave(&reader);
    scratch::touch();
}

/// Whether the peer has closed both directions.
fn gone(socket: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok()
        && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

async fn hello(socket: &UnixStream) -> io::Result<Hello> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let Some((kind, length)) = header(socket).await? else {
        return Err(invalid("closed before HELLO".into()));
    };
    if kind != frame::HELLO || length > MAX_CONTROL {
        return Err(invalid(format!(
            "expected HELLO, got a frame of type {kind:#04x} and {length} bytes"
        )));
    }
    let mut payload = vec![0; length];
    read_exact(socket, &mut payload).await?;
    serde_json::from_slice(&payload).map_err(|error| invalid(format!("HELLO: {error}")))
}

/// Takes the client's frames until it closes.
async fn receive(socket: &UnixStream, hub: &Hub, stdin: bool) -> io::Result<()> {
    while let Some((kind, length)) = header(socket).await? {
        match kind {
            frame::STDIN => copy_stdin(socket, hub, stdin, length).await?,
            frame::CLOSE_STDIN | frame::RESIZE if length <= MAX_CONTROL => {
                let mut payload = vec![0; length];
                read_exact(socket, &mut payload).await?;
                if kind == frame::RESIZE {
                    let size = serde_json::from_slice(&payload).map_err(|error| {
                        io::Error::new(io::ErrorKind::InvalidData, format!("RESIZE: {error}"))
                    })?;
                    hub.terminal.resize(size);
                } else if stdin {
                    hub.input.close();
                }
            }
            _ => {
                let text = format!("unexpected frame of type {kind:#04x} and {length} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }
    Ok(())
}

/// Passes a frame's bytes on as they come; the socket is not read faster than the process reads.
async fn copy_stdin(
    socket: &UnixStream,
    hub: &Hub,
    wanted: bool,
    mut length: usize,
) -> io::Result<()> {
    while length > 0 {
        // The buffer is there only while there are bytes for it.
        socket.readable().await?;
        let mut piece = vec![0; length.min(PIECE)];
        let count = match socket.try_read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        length -= count;
        if wanted {
            hub.input.write(&piece[..count]).await;
        }
    }
    Ok(())
}

/// Sends what the log has, and then what is in no file yet.
async fn replay(socket: &UnixStream, reader: &Reader, past: Past) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        log: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        stream: std::borrow::Cow<'a, str>,
    }
    for (file, length) in past.files {
        let mut lines = BufReader::new(file.take(length));
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            // A torn line is what a full disk leaves.
            if let Ok(entry) = serde_json::from_slice::<Entry<'_>>(&line) {
                let stream = if entry.stream == "stderr" {
                    Stream::Stderr
                } else {
                    Stream::Stdout
                };
                send_output(socket, reader, stream, entry.log.as_bytes()).await?;
            }
            line.clear();
        }
    }
    for (stream, held) in [Stream::Stdout, Stream::Stderr].into_iter().zip(past.held) {
        send_output(socket, reader, stream, &held).await?;
    }
    Ok(())
}

async fn send_output(
    socket: &UnixStream,
    reader: &Reader,
    stream: Stream,
    data: &[u8],
) -> io::Result<()> {
    if data.is_empty() || !reader.wants(stream) {
        return Ok(());
    }
    let kind = if stream == Stream::Stderr {
        frame::STDERR
    } else {
        frame::STDOUT
    };
    send(socket, kind, data).await
}

async fn refuse(socket: &UnixStream, message: &str) {
    let payload = serde_json::json!({"message": message}).to_string();
    // A client that is gone need not know.
    let _ = send(socket, frame::REFUSED, payload.as_bytes()).await;
}

async fn send(socket: &UnixStream, kind: u8, payload: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&frame::header(kind, payload.len()));
    bytes.extend_from_slice(payload);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        socket.writable().await?;
        match socket.try_write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The next frame's type and length; none when the client closed between frames.
async fn header(socket: &UnixStream) -> io::Result<Option<(u8, usize)>> {
    let mut bytes = [0; HEADER];
    match read_exact(socket, &mut bytes).await {
        Ok(()) => Ok(Some(frame::parse(bytes))),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn read_exact(socket: &UnixStream, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        socket.readable().await?;
        match socket.try_read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => buffer = &mut buffer[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
