//! Waiting for a condition with a deadline, never for a time.

use std::{
    future::Future,
    thread,
    time::{Duration, Instant},
};

/// How long conditions may take on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

const STEP: Duration = Duration::from_millis(10);

/// Waits until `condition` gives `Some`; panics with `what` after a minute.
#[track_caller]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < end,
            "waited {DEADLINE:?} in vain for: {what}"
        );
        thread::park_timeout(STEP);
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}

/// Waits until the future that `condition` makes gives `Some`.
pub async fn eventually_async<T, F>(what: &str, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            Instant::now() < end,
            "waited {DEADLINE:?} in vain for: {what}"
        );
        tokio::time::sleep(STEP).await;
    }
}
