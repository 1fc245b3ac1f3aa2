//! The task that writes the rules. Whoever changes something asks it, and all
//! who ask while it writes share the next writing.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::{nft, rules, state::Known};
use crate::{Error, Result};

/// The way to the task; it ends with the last handle.
#[derive(Debug)]
pub(super) struct Writer {
    requests: mpsc::Sender<oneshot::Sender<Result<()>>>,
}

impl Writer {
    /// Starts the task for a table.
    pub(super) fn start(table: String, known: Arc<Mutex<Known>>) -> Self {
        let (requests, mailbox) = mpsc::channel(64);
        tokio::spawn(serve(table, known, mailbox));
        Self { requests }
    }

    /// Returns when the rules are those of what is known now.
    pub(super) async fn write(&self) -> Result<()> {
        let gone = || Error::internal("the task that writes the network rules is gone");
        let (reply, answer) = oneshot::channel();
        self.requests.send(reply).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn serve(
    table: String,
    known: Arc<Mutex<Known>>,
    mut mailbox: mpsc::Receiver<oneshot::Sender<Result<()>>>,
) {
    let mut written = None;
    while let Some(first) = mailbox.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = mailbox.try_recv() {
            waiting.push(next);
        }
        let picture = known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .picture();
        let result = if written.as_ref() == Some(&picture) {
            Ok(())
        } else {
            let (name, wanted) = (table.clone(), picture.clone());
            let work = tokio::task::spawn_blocking(move || {
                if wanted.bridges.is_empty() {
                    nft::delete(&name)
                } else {
                    nft::replace(&name, rules::chains(&wanted))
                }
            });
            work.await.unwrap_or_else(|panic| {
                Err(
                    Error::internal("writing the network rules panicked; this is a bug")
                        .with_source(panic),
                )
            })
        };
        written = result.is_ok().then_some(picture);
        for reply in waiting {
            let answer = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(Error::new(error.kind(), error.chain())),
            };
            let _ = reply.send(answer);
        }
    }
}
