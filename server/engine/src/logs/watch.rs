//! Who waits for a log to grow: one inotify for all, since the kernel gives a
//! user few of them.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use crate::{Error, Result};

/// Watches directories for their readers; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LogWatch {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: AsyncFd<OwnedFd>,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    by_wd: HashMap<i32, PathBuf>,
    by_path: HashMap<PathBuf, Directory>,
}

#[derive(Debug)]
struct Directory {
    wd: i32,
    readers: usize,
    changed: watch::Sender<()>,
}

/// One reader's watch on a directory.
#[derive(Debug)]
pub(crate) struct Watch {
    inner: Arc<Inner>,
    path: PathBuf,
    changed: watch::Receiver<()>,
}

impl LogWatch {
    /// Opens the inotify descriptor; needs a tokio runtime.
    pub(crate) fn new() -> Result<Self> {
        let fail = |error: io::Error| Error::io("cannot open inotify for the logs", error);
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|errno| fail(errno.into()))?;
        let fd = davit_sys::ready::watch(fd, Interest::READABLE).map_err(fail)?;
        let inner = Arc::new(Inner {
            fd,
            watched: Mutex::default(),
        });
        tokio::spawn(forward(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// Watches the files in `directory`; changes from now on are seen.
    pub(crate) fn watch(&self, directory: &Path) -> Result<Watch> {
        let mut watched = self.inner.lock();
        let changed = match watched.by_path.get_mut(directory) {
            Some(known) => {
                known.readers += 1;
                known.changed.subscribe()
            }
            None => {
                let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
                let wd = inotify::add_watch(&self.inner.fd, directory, flags).map_err(|errno| {
                    Error::io(
                        format!("cannot watch {}", directory.display()),
                        io::Error::from(errno),
                    )
                })?;
                let (sender, receiver) = watch::channel(());
                watched.by_wd.insert(wd, directory.to_owned());
                watched.by_path.insert(
                    directory.to_owned(),
                    Directory {
                        wd,
                        readers: 1,
                        changed: sender,
                    },
                );
                receiver
            }
        };
        Ok(Watch {
            inner: Arc::clone(&self.inner),
            path: directory.to_owned(),
            changed,
        })
    }
}

impl Watch {
    /// Waits until something changed since the last call.
    pub(crate) async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The directory is gone; the reader's other reasons to look end it.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.inner.lock();
        let Some(directory) = watched.by_path.get_mut(&self.path) else {
            return;
        };
        directory.readers -= 1;
        if directory.readers == 0 {
            let wd = directory.wd;
            watched.by_path.remove(&self.path);
            watched.by_wd.remove(&wd);
            // The kernel has dropped it already when the directory is gone.
            let _ = inotify::remove_watch(&self.inner.fd, wd);
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the readers what the kernel has told.
    fn drain(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let watched = self.lock();
                    if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                        watched
                            .by_path
                            .values()
                            .for_each(|directory| directory.changed.send_replace(()));
                    } else if let Some(directory) = watched
                        .by_wd
                        .get(&event.wd())
                        .and_then(|path| watched.by_path.get(path))
                    {
                        directory.changed.send_replace(());
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

async fn forward(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        // Bounded, so that the last handle's end is noticed.
        let ready =
            tokio::time::timeout(std::time::Duration::from_secs(60), inner.fd.readable()).await;
        match ready {
            Err(_) => {}
            Ok(Ok(mut guard)) => {
                guard.clear_ready();
                if let Err(error) = inner.drain() {
                    tracing::warn!(%error, "inotify for the logs");
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "inotify for the logs has ended");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_wakes_all_readers() {
        let directory = tempfile::tempdir().unwrap();
        let logs = LogWatch::new().unwrap();
        let mut first = logs.watch(directory.path()).unwrap();
        let mut second = logs.watch(directory.path()).unwrap();
        std::fs::write(directory.path().join("a"), "x").unwrap();
        let both = async { tokio::join!(first.changed(), second.changed()) };
        tokio::time::timeout(std::time::Duration::from_secs(10), both)
            .await
            .unwrap();
        drop(first);
        drop(second);
        assert!(logs.inner.lock().by_wd.is_empty());
    }
}
