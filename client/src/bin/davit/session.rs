//! The user's terminal joined to a process: stdin goes to it, its output comes
//! back, signals and window sizes are passed on.

use std::io::{IsTerminal, Read};

use davit_client::v1;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    context::{Context, write_all},
    error::Outcome,
    terminal,
};

/// Bytes read from stdin at once.
const CHUNK: usize = 64 << 10;

/// What the user does.
#[derive(Debug)]
pub(crate) enum Input {
    Bytes(Vec<u8>),
    End,
    Resize(v1::TerminalSize),
}

/// Starts to read stdin (when `stdin`) and to watch the window (when `tty`).
/// The channel is small: a process that does not read stops our reading.
pub(crate) fn inputs(stdin: bool, tty: bool) -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(4);
    if stdin {
        let sender = sender.clone();
        // A thread, since a pending read of a terminal can't be cancelled.
        std::thread::spawn(move || read_stdin(&sender));
    }
    if tty {
        tokio::spawn(watch_window(sender));
    }
    receiver
}

fn read_stdin(sender: &mpsc::Sender<Input>) {
    let mut stdin = std::io::stdin().lock();
    let mut buffer = vec![0; CHUNK];
    loop {
        let input = match stdin.read(&mut buffer) {
            Ok(0) | Err(_) => Input::End,
            Ok(length) => Input::Bytes(buffer[..length].to_vec()),
        };
        let end = matches!(input, Input::End);
        if sender.blocking_send(input).is_err() || end {
            return;
        }
    }
}

async fn watch_window(sender: mpsc::Sender<Input>) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else {
        return;
    };
    loop {
        if let Some(size) = terminal::size()
            && sender.send(Input::Resize(size)).await.is_err()
        {
            return;
        }
        if changed.recv().await.is_none() {
            return;
        }
    }
}

/// Whether stdin is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Writes the process's standard output.
pub(crate) fn stdout(bytes: &[u8]) -> Outcome<()> {
    write_all(bytes)
}

/// Writes the process's standard error.
pub(crate) fn stderr(bytes: &[u8]) -> Outcome<()> {
    use std::io::Write;
    let mut out = std::io::stderr().lock();
    out.write_all(bytes).and_then(|()| out.flush())?;
    Ok(())
}

/// Passes the signals that we get on to the container, until dropped.
#[derive(Debug)]
pub(crate) struct SignalProxy(Vec<tokio::task::JoinHandle<()>>);

impl SignalProxy {
    /// Starts to forward to `container`.
    pub(crate) fn start(context: &Context, container: &str) -> Self {
        let signals = [
            (SignalKind::interrupt(), "INT"),
            (SignalKind::terminate(), "TERM"),
            (SignalKind::hangup(), "HUP"),
            (SignalKind::quit(), "QUIT"),
            (SignalKind::user_defined1(), "USR1"),
            (SignalKind::user_defined2(), "USR2"),
        ];
        let tasks = signals
            .into_iter()
            .filter_map(|(kind, name)| {
                let mut stream = signal(kind).ok()?;
                let (context, container) = (context.clone(), container.to_owned());
                Some(tokio::spawn(async move {
                    while stream.recv().await.is_some() {
                        let request = v1::KillRequest {
                            container: container.clone(),
                            signal: name.into(),
                            ..Default::default()
                        };
                        // The container may have ended meanwhile.
                        let _ = context.client.tasks().kill(request).await;
                    }
                }))
            })
            .collect();
        Self(tasks)
    }
}

impl Drop for SignalProxy {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// A process's exit code as ours.
pub(crate) fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(255)
}
