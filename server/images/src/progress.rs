//! Long work in a task of its own, reporting to a stream that ends it.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use davit_store::Result;
use futures::Stream;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Progress;

/// Messages that may wait for a slow reader before counts of bytes are left
/// out. What tells of a change is never left out, nor does it wait: work that
/// others wait for must not wait for a reader.
const SLACK: usize = 64;

/// Where work reports to. Cheap to clone.
pub(crate) struct Reporter<T> {
    channel: mpsc::UnboundedSender<Result<T>>,
    waiting: Arc<AtomicUsize>,
}

impl<T> Clone for Reporter<T> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            waiting: self.waiting.clone(),
        }
    }
}

impl<T> fmt::Debug for Reporter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

impl<T> Reporter<T> {
    /// Something changed.
    pub(crate) fn say(&self, message: T) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // Nobody listens any more: the work is about to be ended.
        let _ = self.channel.send(Ok(message));
    }

    /// Bytes moved; left out when the reader is behind.
    pub(crate) fn count(&self, message: T) {
        if self.waiting.load(Ordering::Relaxed) < SLACK {
            self.say(message);
        }
    }
}

/// Runs `work`; its reports, and its error in the end, are the stream.
/// Dropping the stream cancels it: the token for what runs in threads of its
/// own, the rest at its next wait.
pub(crate) fn run<T, F, W>(work: F) -> Progress<T>
where
    T: Send + 'static,
    F: FnOnce(Reporter<T>, CancellationToken) -> W,
    W: Future<Output = Result<()>> + Send + 'static,
{
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let reporter = Reporter {
        channel: sender.clone(),
        waiting: waiting.clone(),
    };
    let token = CancellationToken::new();
    let work = work(reporter, token.clone());
    let task = tokio::spawn(async move {
        if let Err(error) = work.await {
            let _ = sender.send(Err(error));
        }
    });
    Box::pin(Reports {
        receiver,
        waiting,
        task,
        _token: token.drop_guard(),
    })
}

struct Reports<T> {
    receiver: mpsc::UnboundedReceiver<Result<T>>,
    waiting: Arc<AtomicUsize>,
    task: JoinHandle<()>,
    _token: DropGuard,
}

impl<T> Stream for Reports<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.receiver.poll_recv(cx);
        if let Poll::Ready(Some(Ok(_))) = &next {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        next
    }
}

impl<T> Drop for Reports<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
