//! Sessions: a caller connected to the streams of a container or an exec.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    Error, Kind, Result,
    detach::DetachKeys,
    events::Draft,
    index::Handle,
    model::{ExitStatus, Input, Output},
    shim::{Connect, Frame, FrameReader, FrameWriter, Run, connect_streams},
};

/// Chunks that may wait in either direction.
pub(crate) const CHUNKS: usize = 16;
/// Longest wait for the actor to learn of an end that the streams told of.
const LEARNT_WITHIN: Duration = Duration::from_secs(5);

/// A session that waits for a run; it lies with the actor.
#[derive(Debug)]
pub(crate) struct Waiting {
    go: oneshot::Sender<Arc<Run>>,
    connected: oneshot::Receiver<()>,
}

/// The session's side of [`Waiting`].
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) run: oneshot::Receiver<Arc<Run>>,
    pub(crate) connected: oneshot::Sender<()>,
}

impl Waiting {
    pub(crate) fn new() -> (Self, Gate) {
        let (go, run) = oneshot::channel();
        let (sender, connected) = oneshot::channel();
        (
            Self { go, connected },
            Gate {
                run,
                connected: sender,
            },
        )
    }

    /// Lets the session connect to `run`; what comes back tells when it has.
    /// None when the session is gone.
    pub(crate) fn go(self, run: Arc<Run>) -> Option<oneshot::Receiver<()>> {
        self.go.send(run).ok().map(|()| self.connected)
    }

    /// Whether the session has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.go.is_closed()
    }
}

/// What a caller's half-close does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfClose {
    /// Nothing: the process has no stdin, or keeps it.
    Ignored,
    /// Closes the process's stdin; output goes on.
    ClosesStdin,
    /// Ends the session; stdin stays open for others.
    EndsSession,
}

/// One session's settings.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) connect: Connect,
    pub(crate) half_close: HalfClose,
    /// Close stdin when the session ends in any way.
    pub(crate) close_at_end: bool,
    pub(crate) keys: Option<DetachKeys>,
}

/// A caller's ends.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) input: mpsc::Receiver<Input>,
    pub(crate) output: mpsc::Sender<Result<Output>>,
}

/// Why a pump stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The process ended, with this code if the shim still said it.
    Ended(Option<i32>),
    /// The detach keys, or a half-close that ends the session.
    Detached,
    /// The caller is gone, or was told of an error.
    Gone,
}

/// The streams, connected.
#[derive(Debug)]
pub(crate) struct Connected {
    reader: FrameReader,
    writer: FrameWriter,
}

/// Connects to the streams of a process.
pub(crate) async fn open(run: &Run, connect: &Connect) -> Result<Connected> {
    let (reader, writer) = connect_streams(&run.bundle.streams(), connect).await?;
    Ok(Connected { reader, writer })
}

impl Streams {
    /// Carries input and output until one side ends.
    pub(crate) async fn pump(mut self, connected: Connected, ends: &mut Ends) -> Stop {
        let Connected {
            mut reader,
            mut writer,
        } = connected;
        let output = ends.output.clone();
        let outward = outward(&mut reader, &output);
        let inward = self.inward(&mut writer, &mut ends.input);
        let stop = tokio::select! {
            stop = outward => stop,
            stop = inward => stop,
            () = output.closed() => Stop::Gone,
        };
        if self.close_at_end && !matches!(stop, Stop::Ended(_)) {
            // A process that has ended takes no more.
            let _ = tokio::time::timeout(Duration::from_secs(1), writer.close_stdin()).await;
        }
        stop
    }

    async fn inward(
        &mut self,
        writer: &mut FrameWriter,
        input: &mut mpsc::Receiver<Input>,
    ) -> Stop {
        while let Some(next) = input.recv().await {
            let written = match next {
                Input::Stdin(_) if !self.connect.stdin => Ok(()),
                Input::Stdin(bytes) => match &mut self.keys {
                    Some(keys) => {
                        let typed = keys.filter(&bytes);
                        let written = writer.stdin(&typed.bytes).await;
                        if typed.detached {
                            return Stop::Detached;
                        }
                        written
                    }
                    None => writer.stdin(&bytes).await,
                },
                Input::CloseStdin => match self.half_close {
                    HalfClose::Ignored => Ok(()),
                    HalfClose::ClosesStdin => writer.close_stdin().await,
                    HalfClose::EndsSession => return Stop::Detached,
                },
                Input::Resize(size) => writer.resize(&size).await,
            };
            if let Err(error) = written {
                // The output tells how it ended.
                tracing::debug!(error = %error.chain(), "input for a process that takes no more");
                break;
            }
        }
        std::future::pending().await
    }
}

async fn outward(reader: &mut FrameReader, output: &mpsc::Sender<Result<Output>>) -> Stop {
    loop {
        let item = match reader.next().await {
            Ok(Some(Frame::Stdout(bytes))) => Ok(Output::Stdout(bytes)),
            Ok(Some(Frame::Stderr(bytes))) => Ok(Output::Stderr(bytes)),
            Ok(Some(Frame::Exit { code })) => return Stop::Ended(Some(code)),
            Ok(None) => return Stop::Ended(None),
            Ok(Some(Frame::Lagged { dropped })) => Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "this reader was too slow; {dropped} bytes of output were not sent (they are in the log)"
                ),
            )),
            Err(error) => Err(error),
        };
        let last = item.is_err();
        if output.send(item).await.is_err() || last {
            return Stop::Gone;
        }
    }
}

/// Waits until the actor has recorded the end that the streams told of, so
/// that who asks next sees it, and gives what was recorded.
pub(crate) async fn recorded_end(run: &Run, code: Option<i32>) -> Result<ExitStatus> {
    let recorded = tokio::time::timeout(LEARNT_WITHIN, run.recorded()).await;
    match (recorded, code) {
        (Ok(Some(exit)), _) => Ok(exit),
        (Ok(None) | Err(_), Some(exit_code)) => Ok(ExitStatus {
            exit_code,
            exited_at: None,
            error: String::new(),
            oom_killed: false,
        }),
        (Ok(None) | Err(_), None) => Err(Error::new(
            Kind::Unavailable,
            format!("the streams of container {} broke off", run.id),
        )),
    }
}

/// Sends an event about the container to its actor.
pub(crate) async fn tell(handle: &Handle, draft: Draft) {
    // An actor that is gone has no events.
    let _ = handle
        .mailbox
        .send(crate::actor::Command::Event(draft))
        .await;
}

/// The event of a terminal's new size.
pub(crate) fn resized(size: &davit_store::options::TerminalSize) -> Draft {
    Draft::new("resize")
        .with("height", size.height)
        .with("width", size.width)
}
