//! A process's stdin, as all attached clients share it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// The writing end of stdin, or the terminal's master.
#[derive(Debug)]
pub(crate) struct Input {
    state: watch::Sender<State>,
    /// The writing end of a FIFO that stdin is copied from: as long as it is open, the FIFO does not end.
    keeper: Mutex<Option<OwnedFd>>,
}

#[derive(Debug, Clone)]
enum State {
    /// The process does not exist yet.
    Pending,
    Open {
        fd: Arc<AsyncFd<OwnedFd>>,
        tty: bool,
    },
    Closed,
}

impl Input {
    /// A stdin that opens when the process starts.
    pub(crate) fn pending() -> Input {
        Input {
            state: watch::Sender::new(State::Pending),
            keeper: Mutex::default(),
        }
    }

    /// A stdin that reads as empty.
    pub(crate) fn closed() -> Input {
        Input {
            state: watch::Sender::new(State::Closed),
            keeper: Mutex::default(),
        }
    }

    /// Opens it; a terminal is never closed by [`Input::close`].
    pub(crate) fn open(&self, fd: Arc<AsyncFd<OwnedFd>>, tty: bool) {
        self.state.send_if_modified(|state| {
            let pending = matches!(state, State::Pending);
            if pending {
                *state = State::Open { fd, tty };
            }
            pending
        });
    }

    /// Keeps `fd` until [`Input::close`] or [`Input::release`].
    pub(crate) fn keep(&self, fd: OwnedFd) {
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(fd);
    }

    /// Lets the FIFO end when its other writers have closed it.
    pub(crate) fn release(&self) -> bool {
        self.keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .is_some()
    }

    /// Closes a pipe, so that the process reads end of file. A terminal has no such thing.
    pub(crate) fn close(&self) {
        self.state.send_if_modified(|state| {
            let pipe = !matches!(state, State::Open { tty: true, .. } | State::Closed);
            if pipe {
                *state = State::Closed;
            }
            pipe
        });
    }

    /// Lets everything go: the process is over.
    pub(crate) fn end(&self) {
        self.release();
        self.state.send_replace(State::Closed);
    }

    /// Writes all of `data`, waiting for the process to read it. What a process no longer reads is dropped.
    pub(crate) async fn write(&self, mut data: &[u8]) {
        let mut watched = self.state.subscribe();
        while !data.is_empty() {
            let state = watched.borrow_and_update().clone();
            match state {
                State::Closed => return,
                State::Pending => {
                    if watched.changed().await.is_err() {
                        return;
                    }
                }
                State::Open { fd, .. } => {
                    let written = tokio::select! {
                        written = write_some(&fd, data) => written,
                        // Closed by somebody else meanwhile: look again.
                        _ = watched.changed() => continue,
                    };
                    match written {
                        Ok(count) => data = &data[count..],
                        Err(_) => {
                            // Nobody reads any more (EPIPE), or the terminal is gone (EIO).
                            drop(fd);
                            self.end();
                        }
                    }
                }
            }
        }
    }
}

async fn write_some(fd: &AsyncFd<OwnedFd>, data: &[u8]) -> io::Result<usize> {
    loop {
        let mut ready = fd.writable().await?;
        match ready.try_io(|fd| rustix::io::write(fd, data).map_err(io::Error::from)) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => return result,
            Err(_) => {}
        }
    }
}
