//! Moves bytes: what a process writes to where it goes, and a FIFO's bytes to stdin.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::hub::Hub;
use super::input::Input;
use super::{Stream, scratch};

/// How often a terminal that nobody has open is looked at.
const HUNG_UP: Duration = Duration::from_millis(50);

/// Where a stream goes.
#[derive(Debug)]
pub(crate) enum Sink {
    /// davitd's log and attached clients; never full.
    Hub(Arc<Hub>, Stream),
    /// A FIFO, or a pipe to a logger: when it is full, the process waits.
    Fd(AsyncFd<OwnedFd>),
    /// A file.
    File(Arc<File>),
    /// Nowhere.
    Null,
}

/// One stream of a process, readable without waiting.
#[derive(Debug)]
pub(crate) struct Outflow {
    pub(crate) source: Arc<AsyncFd<OwnedFd>>,
    pub(crate) tty: bool,
    pub(crate) sink: Sink,
}

enum Step {
    /// Something moved.
    More,
    /// So much was read but not taken by the sink.
    Left(Vec<u8>),
    /// Nothing to read at the moment.
    Empty,
    /// Nothing will ever come again.
    End,
    /// A terminal that nobody has open just now.
    HungUp,
}

impl Outflow {
    /// Copies until the stream ends. `over` tells when the process has ended: a terminal that is closed then stays so.
    pub(crate) async fn run(&self, mut over: watch::Receiver<bool>) {
        let mut turns = 0_u32;
        // Once a terminal was hung up, the event loop calls it ready for ever: from then on it is looked at in turns.
        let mut hung_up = false;
        loop {
            let Ok(mut ready) = self.source.readable().await else {
                break;
            };
            turns += 1;
            if turns.is_multiple_of(16) {
                // A process that writes without end must not keep the others from their turn.
                tokio::task::yield_now().await;
            }
            let was_over = *over.borrow();
            match self.step() {
                Step::More => {}
                Step::Left(rest) => {
                    drop(ready);
                    self.send(&rest).await;
                }
                Step::Empty if !hung_up => ready.clear_ready(),
                Step::End => break,
                Step::HungUp | Step::Empty if was_over => break,
                Step::HungUp | Step::Empty => {
                    hung_up = true;
                    drop(ready);
                    // A process may let go of its terminal and open it again.
                    let _ = tokio::time::timeout(HUNG_UP, over.wait_for(|over| *over)).await;
                }
            }
        }
        if let Sink::Hub(hub, stream) = &self.sink {
            hub.end(*stream);
        }
    }

    /// Takes what can be read at once, for a sink that takes everything; at most 4 MiB, since others may go on
    /// writing. True when the stream is known to have ended.
    pub(crate) fn drain(&self) -> bool {
        if !matches!(self.sink, Sink::Hub(..)) {
            return false;
        }
        for _ in 0..64 {
            match self.step() {
                Step::More => {}
                Step::End => return true,
                Step::Left(_) | Step::Empty | Step::HungUp => return false,
            }
        }
        false
    }

    fn step(&self) -> Step {
        scratch::with(
            |buffer| match rustix::io::read(self.source.get_ref(), &mut *buffer) {
                Ok(0) => Step::End,
                Ok(count) => self.take(&buffer[..count]),
                Err(Errno::AGAIN) => Step::Empty,
                Err(Errno::INTR) => Step::More,
                Err(Errno::IO) if self.tty => Step::HungUp,
                Err(_) => Step::End,
            },
        )
    }

    fn take(&self, data: &[u8]) -> Step {
        match &self.sink {
            Sink::Hub(hub, stream) => hub.output(*stream, data),
            Sink::File(file) => {
                // A full disk must not stop the process.
                let _ = (&**file).write_all(data);
            }
            Sink::Null => {}
            Sink::Fd(fd) => match rustix::io::write(fd.get_ref(), data) {
                Ok(count) if count == data.len() => {}
                Ok(count) => return Step::Left(data[count..].to_vec()),
                Err(Errno::AGAIN | Errno::INTR) => return Step::Left(data.to_vec()),
                // Nobody will ever read it: the process must not be stopped for that.
                Err(_) => {}
            },
        }
        Step::More
    }

    async fn send(&self, mut data: &[u8]) {
        let Sink::Fd(fd) = &self.sink else { return };
        while !data.is_empty() {
            let Ok(mut ready) = fd.writable().await else {
                return;
            };
            match ready.try_io(|fd| rustix::io::write(fd, data).map_err(io::Error::from)) {
                Ok(Ok(count)) => data = &data[count..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        }
    }
}

/// Copies a FIFO to stdin until it ends.
pub(crate) async fn feed(source: AsyncFd<OwnedFd>, input: Arc<Input>) {
    loop {
        let Ok(mut ready) = source.readable().await else {
            return;
        };
        let mut piece = vec![0; 32 * 1024];
        match ready.try_io(|fd| rustix::io::read(fd, &mut piece[..]).map_err(io::Error::from)) {
            Ok(Ok(0)) => return input.close(),
            Ok(Ok(count)) => {
                drop(ready);
                input.write(&piece[..count]).await;
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => return input.close(),
            Err(_) => {}
        }
    }
}
