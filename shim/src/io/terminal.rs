//! A process's terminal: its master, once the runtime has made it, and the size that somebody asked for before.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;

use super::frame::Size;

/// Shared by the task service and all attached clients.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    master: Option<Arc<AsyncFd<OwnedFd>>>,
    size: Option<Size>,
}

impl Terminal {
    /// The terminal exists; gives it the size asked for before.
    pub(crate) fn open(&self, master: Arc<AsyncFd<OwnedFd>>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(size) = inner.size {
            apply(&master, size);
        }
        inner.master = Some(master);
    }

    /// Resizes it, now or when it exists.
    pub(crate) fn resize(&self, size: Size) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(master) = &inner.master {
            apply(master, size);
        }
        inner.size = Some(size);
    }

    /// Lets the master go: readers of the slave get a hangup.
    pub(crate) fn close(&self) {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .master = None;
    }
}

fn apply(master: &AsyncFd<OwnedFd>, size: Size) {
    let size = Winsize {
        ws_row: size.height,
        ws_col: size.width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // A terminal whose process is gone keeps its size.
    let _ = tcsetwinsize(master.get_ref(), size);
}
