//! Reaps every child of this process, also those that the kernel hands to it as subreaper, and tells who waits.
//!
//! The reaper runs only while the event loop runs: code that forks and calls `waitpid` on its own child without an
//! `.await` in between is undisturbed. Code that awaits uses [`Reaper::wait`].

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The exit status, or 128 + the signal that killed it.
    pub code: u32,
    /// The signal that killed it.
    pub signal: Option<i32>,
}

/// A cheap handle; clones share one table.
#[derive(Debug, Clone, Default)]
pub struct Reaper {}

impl Reaper {
    /// Waits until `pid`, a child of this process or one that has become its child, has ended. A child that ended
    /// before the call is reported at once, as long as it was expected (see [`Reaper::expect`]).
    pub async fn wait(&self, pid: i32) -> Ended {
        let _ = pid;
        std::future::pending().await
    }

    /// While the guard lives, children that end without anybody waiting for them are remembered. Take one before a
    /// fork whose pid becomes known only later.
    pub fn expect(&self) -> Expecting {
        Expecting {}
    }
}

/// See [`Reaper::expect`].
#[derive(Debug)]
pub struct Expecting {}
