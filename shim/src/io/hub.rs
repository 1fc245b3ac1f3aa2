//! Where a process's output meets its log and its readers, under davitd. A process never waits for a reader.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::Stream;
use super::frame::{self, HEADER};
use super::input::Input;
use super::json_log::JsonLog;
use super::spool::Spool;
use super::terminal::Terminal;
use crate::exits::Exit;

/// One process's log, readers, stdin and terminal.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) tty: bool,
    pub(crate) input: Arc<Input>,
    pub(crate) terminal: Arc<Terminal>,
    spill: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Option<JsonLog>,
    readers: Vec<Arc<Reader>>,
    exit: Option<Exit>,
    abandoned: bool,
}

/// What a client that wants the past gets before the present.
#[derive(Debug)]
pub(crate) struct Past {
    /// The log's files, the oldest first, and how much of each is valid.
    pub(crate) files: Vec<(std::fs::File, u64)>,
    /// Unfinished lines, which are in no file yet.
    pub(crate) held: [Vec<u8>; 2],
}

impl Hub {
    /// `spill` is the directory for what slow readers have not read.
    pub(crate) fn new(
        tty: bool,
        input: Arc<Input>,
        terminal: Arc<Terminal>,
        log: Option<JsonLog>,
        spill: &Path,
    ) -> Hub {
        let inner = Inner {
            log,
            readers: Vec::new(),
            exit: None,
            abandoned: false,
        };
        Hub {
            tty,
            input,
            terminal,
            spill: spill.to_owned(),
            inner: Mutex::new(inner),
        }
    }

    /// Takes what the process wrote.
    pub(crate) fn output(&self, stream: Stream, data: &[u8]) {
        let mut inner = self.lock();
        if let Some(log) = &mut inner.log {
            log.write(stream, data);
        }
        if inner.readers.is_empty() {
            return;
        }
        let kind = match stream {
            Stream::Stdout => frame::STDOUT,
            Stream::Stderr => frame::STDERR,
        };
        inner
            .readers
            .retain(|reader| !reader.wants(stream) || reader.push(kind, data));
    }

    /// A stream has ended: what it left unfinished is logged.
    pub(crate) fn end(&self, stream: Stream) {
        if let Some(log) = &mut self.lock().log {
            log.end(stream);
        }
    }

    /// The process has ended and its output has been taken: readers are told, also those to come.
    pub(crate) fn finish(&self, exit: &Exit) {
        let mut inner = self.lock();
        if let Some(log) = &mut inner.log {
            log.end(Stream::Stdout);
            log.end(Stream::Stderr);
        }
        for reader in std::mem::take(&mut inner.readers) {
            reader.finish(exit);
        }
        inner.exit = Some(exit.clone());
    }

    /// There will be no process, or no more of it: who still waits is let go.
    pub(crate) fn abandon(&self) {
        let mut inner = self.lock();
        for reader in std::mem::take(&mut inner.readers) {
            reader.let_go();
        }
        inner.abandoned = true;
        inner.log = None;
    }

    /// Adds a reader, who from now on gets everything. With `past`, also returns what was before.
    pub(crate) fn join(&self, reader: &Arc<Reader>, past: bool) -> Past {
        let mut inner = self.lock();
        let mut found = Past {
            files: Vec::new(),
            held: Default::default(),
        };
        if let Some(log) = inner.log.as_ref().filter(|_| past) {
            found.files = log.files();
            found.held = [Stream::Stdout, Stream::Stderr].map(|stream| log.held(stream).to_vec());
        }
        match &inner.exit {
            Some(exit) => reader.finish(exit),
            None if inner.abandoned => reader.let_go(),
            None => inner.readers.push(reader.clone()),
        }
        found
    }

    /// Removes a reader that is gone.
    pub(crate) fn leave(&self, reader: &Arc<Reader>) {
        self.lock()
            .readers
            .retain(|other| !Arc::ptr_eq(other, reader));
    }

    /// Where readers' backlogs go.
    pub(crate) fn spill(&self) -> &Path {
        &self.spill
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One attached client's way out.
#[derive(Debug)]
pub(crate) struct Reader {
    socket: Arc<UnixStream>,
    stdout: bool,
    stderr: bool,
    state: Mutex<Backlog>,
    wake: Notify,
}

#[derive(Debug)]
struct Backlog {
    spool: Spool,
    /// The past has been sent: frames may go straight to the socket.
    direct: bool,
    /// Bytes lost because the spool was full; once not 0, nothing more is queued.
    dropped: u64,
    /// The last frame is queued.
    done: bool,
    /// The client is gone.
    dead: bool,
}

impl Reader {
    /// A reader of the streams named; nothing is sent before [`Reader::run`].
    pub(crate) fn new(
        socket: Arc<UnixStream>,
        stdout: bool,
        stderr: bool,
        spill: &Path,
    ) -> Arc<Reader> {
        let backlog = Backlog {
            spool: Spool::new(spill),
            direct: false,
            dropped: 0,
            done: false,
            dead: false,
        };
        Arc::new(Reader {
            socket,
            stdout,
            stderr,
            state: Mutex::new(backlog),
            wake: Notify::new(),
        })
    }

    /// Whether the client asked for this stream.
    pub(crate) fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// Sends or queues a frame; false when there is nobody to send to.
    fn push(&self, kind: u8, payload: &[u8]) -> bool {
        let mut backlog = self.lock();
        if backlog.dead {
            return false;
        }
        if backlog.dropped > 0 {
            backlog.dropped += payload.len() as u64;
            return true;
        }
        let header = frame::header(kind, payload.len());
        let mut sent = 0;
        if backlog.direct && backlog.spool.is_empty() {
            let parts = [io::IoSlice::new(&header), io::IoSlice::new(payload)];
            match self.socket.try_write_vectored(&parts) {
                Ok(count) if count == HEADER + payload.len() => return true,
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    backlog.dead = true;
                    self.wake.notify_one();
                    return false;
                }
            }
        }
        let rest = [
            &header[sent.min(HEADER)..],
            &payload[sent.saturating_sub(HEADER)..],
        ];
        if !backlog.spool.push(rest) {
            backlog.dropped = payload.len() as u64;
        }
        self.wake.notify_one();
        true
    }

    fn finish(&self, exit: &Exit) {
        let payload = serde_json::json!({"code": exit.code, "at": exit.at}).to_string();
        // A client that is gone need not know.
        self.push(frame::EXIT, payload.as_bytes());
        self.let_go();
    }

    /// What is queued is the last.
    fn let_go(&self) {
        let mut backlog = self.lock();
        // One that lags is told so first, when it has read what was kept.
        backlog.done = backlog.dropped == 0;
        drop(backlog);
        self.wake.notify_one();
    }

    /// Sends what is queued, as it comes, until the last frame has gone or the client has.
    pub(crate) async fn run(&self) {
        self.lock().direct = true;
        let mut turns = 0_u32;
        loop {
            let next = self.step();
            turns += 1;
            match next {
                // Others want to run, too.
                Next::Again if turns.is_multiple_of(16) => tokio::task::yield_now().await,
                Next::Again => {}
                Next::Writable => {
                    if self.socket.writable().await.is_err() {
                        return;
                    }
                }
                Next::Wait => self.wake.notified().await,
                Next::Stop => return,
            }
        }
    }

    fn step(&self) -> Next {
        let mut backlog = self.lock();
        if backlog.dead {
            return Next::Stop;
        }
        if backlog.spool.is_empty() {
            if backlog.dropped > 0 && !backlog.done {
                let payload = serde_json::json!({"dropped": backlog.dropped}).to_string();
                let header = frame::header(frame::LAGGED, payload.len());
                backlog.done = true;
                backlog.spool.push([&header, payload.as_bytes()]);
                return Next::Again;
            }
            return if backlog.done { Next::Stop } else { Next::Wait };
        }
        let sent = match backlog.spool.front() {
            Ok(front) => self.socket.try_write(front),
            Err(error) => Err(error),
        };
        match sent {
            Ok(count) => {
                backlog.spool.consume(count);
                Next::Again
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Next::Writable,
            Err(_) => {
                backlog.dead = true;
                Next::Stop
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Next {
    Again,
    Writable,
    Wait,
    Stop,
}
