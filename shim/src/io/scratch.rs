//! One read buffer for all copying, and the moment to give memory back.
//!
//! The shim is single-threaded and every read is handled before the next one, so that one buffer is enough however
//! many streams there are. It is dropped when nothing has moved for a while.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::sync::Notify;

/// As much as a pipe holds.
pub(crate) const SIZE: usize = 64 * 1024;
/// So much quiet, and the memory goes back.
const QUIET: Duration = Duration::from_secs(1);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static BATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static IDLE: Cell<bool> = const { Cell::new(false) };
    static USED: Cell<bool> = const { Cell::new(false) };
}

static WAKE: Notify = Notify::const_new();

/// Calls `with` with the buffer. Not to be nested.
pub(crate) fn with<T>(with: impl FnOnce(&mut [u8]) -> T) -> T {
    touch();
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.is_empty() {
            buffer.resize(SIZE, 0);
        }
        with(buffer)
    })
}

/// A buffer to collect output in, empty; give it back with [`give_batch`].
pub(crate) fn take_batch() -> Vec<u8> {
    BATCH.take()
}

/// See [`take_batch`].
pub(crate) fn give_batch(mut batch: Vec<u8>) {
    batch.clear();
    BATCH.set(batch);
}

/// Says that memory was used that can soon be given back.
pub(crate) fn touch() {
    if !USED.replace(true) {
        WAKE.notify_one();
    }
}

/// Whether this is the moment to forget the program's code, too: asked when the thread is about to sleep, since all
/// that runs brings some of it back.
pub(crate) fn fell_idle() -> bool {
    IDLE.replace(false)
}

/// Gives memory back after each spell of activity. Runs for ever, on the thread that copies.
pub(crate) async fn tidy() {
    loop {
        WAKE.notified().await;
        loop {
            USED.set(false);
            tokio::time::sleep(QUIET).await;
            if !USED.get() {
                break;
            }
        }
        BUFFER.set(Vec::new());
        BATCH.set(Vec::new());
        davit_sys::memory::trim();
        IDLE.set(true);
    }
}
