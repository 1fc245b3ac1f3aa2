//! Reaps every child of this process, also those that the kernel hands to it as subreaper, and tells who waits.
//!
//! The reaper runs only while the event loop runs: code that forks and calls `waitpid` on its own child without an
//! `.await` in between is undisturbed. Code that awaits uses [`Reaper::wait`].

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustix::process::{WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The exit status, or 128 + the signal that killed it.
    pub(crate) code: u32,
    /// The signal that killed it.
    pub(crate) signal: Option<i32>,
    /// When it was reaped.
    pub(crate) at: Timestamp,
}

/// A cheap handle; clones share one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaper {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<i32, Vec<oneshot::Sender<Ended>>>,
    /// Ended while somebody expected a pid that they did not know yet.
    early: HashMap<i32, Ended>,
    expecting: usize,
}

impl Reaper {
    /// Starts reaping on SIGCHLD. Call it once, inside the event loop, before the first child.
    ///
    /// # Errors
    /// When no signal handler can be installed.
    pub(crate) fn start(&self) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        let reaper = self.clone();
        tokio::spawn(async move {
            reaper.reap();
            while children.recv().await.is_some() {
                reaper.reap();
            }
        });
        Ok(())
    }

    /// Waits until `pid`, a child of this process or one that is about to become its child, has ended. The wait is
    /// registered by the call itself, not by the first poll. A child that ended before the call is reported at once
    /// if it was expected (see [`Reaper::expect`]).
    pub(crate) fn wait(&self, pid: i32) -> impl Future<Output = Ended> + Send + use<> {
        let (tell, told) = oneshot::channel();
        let mut table = self.lock();
        if let Some(ended) = table.early.remove(&pid) {
            // The receiver is at hand, so this cannot fail.
            let _ = tell.send(ended);
        } else {
            table.waiting.entry(pid).or_default().push(tell);
        }
        drop(table);
        async move {
            match told.await {
                Ok(ended) => ended,
                // The table lives as long as the process.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// While the guard lives, children that end without anybody waiting for them are remembered. Take one before a
    /// fork whose pid becomes known only later.
    pub(crate) fn expect(&self) -> Expecting {
        self.lock().expecting += 1;
        Expecting {
            reaper: self.clone(),
        }
    }

    /// Reaps all that have ended by now.
    fn reap(&self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let ended = ended(status);
            let pid = pid.as_raw_nonzero().get();
            let mut table = self.lock();
            match table.waiting.remove(&pid) {
                Some(waiting) => {
                    for tell in waiting {
                        // Who stopped waiting need not know.
                        let _ = tell.send(ended);
                    }
                }
                None if table.expecting > 0 => {
                    table.early.insert(pid, ended);
                }
                None => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended(status: WaitStatus) -> Ended {
    let signal = status.terminating_signal();
    let number = signal.map_or_else(
        || status.exit_status().unwrap_or(255),
        |signal| 128 + signal,
    );
    Ended {
        code: u32::try_from(number).unwrap_or(255),
        signal,
        at: Timestamp::now(),
    }
}

/// See [`Reaper::expect`].
#[derive(Debug)]
pub(crate) struct Expecting {
    reaper: Reaper,
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut table = self.reaper.lock();
        table.expecting -= 1;
        if table.expecting == 0 {
            table.early.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    #[allow(clippy::zombie_processes, reason = "the reaper waits for them")]
    fn codes_signals_and_early_exits() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let reaper = Reaper::default();
            reaper.start().unwrap();
            let child = Command::new("/bin/sh")
                .args(["-c", "exit 7"])
                .spawn()
                .unwrap();
            let ended = reaper.wait(child.id() as i32).await;
            assert_eq!((ended.code, ended.signal), (7, None));
            let child = Command::new("/bin/sh")
                .args(["-c", "kill -9 $$"])
                .spawn()
                .unwrap();
            let ended = reaper.wait(child.id() as i32).await;
            assert_eq!((ended.code, ended.signal), (137, Some(9)));

            let expecting = reaper.expect();
            let early = Command::new("/bin/true").spawn().unwrap();
            let later = Command::new("/bin/sh")
                .args(["-c", "sleep 0.2"])
                .spawn()
                .unwrap();
            reaper.wait(later.id() as i32).await;
            assert_eq!(reaper.wait(early.id() as i32).await.code, 0);
            drop(expecting);
            assert!(reaper.lock().early.is_empty());
        });
    }
}
