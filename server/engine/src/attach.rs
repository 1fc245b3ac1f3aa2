//! Attach: a session on a container's own streams.

use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::mpsc;

use crate::{
    Error, Kind, Result,
    actor::Command,
    detach::DetachKeys,
    events::Draft,
    index::Handle,
    logs,
    model::{AttachOptions, LogStream, LogsRequest, Output, Session},
    policy::{self, Call},
    session::{self, CHUNKS, Ends, Gate, HalfClose, Stop, Streams, Waiting},
    shared::Shared,
    shim::Connect,
};

/// Connects a caller to the streams of a container, now or at its next start.
pub(crate) async fn attach(
    shared: &Arc<Shared>,
    handle: Handle,
    options: AttachOptions,
) -> Result<Session> {
    let view = handle.now();
    policy::admit(Call::Attach, view.status, &handle.id)?;
    let details = view.details().cloned().unwrap_or_default();
    let (tty, open_stdin) = (details.options.tty, details.options.open_stdin);
    let keys = if tty {
        DetachKeys::parse(&options.detach_keys)?
    } else {
        None
    };
    let stdin = options.stdin && open_stdin;
    let once = stdin && details.options.stdin_once && !tty;
    let streams = Streams {
        connect: Connect {
            exec: String::new(),
            stdin,
            stdout: options.stdout,
            // A terminal has one stream for both.
            stderr: options.stderr && !tty,
            // The shim replays the log up to the live stream without a gap.
            from: if options.logs && view.is_running() {
                "start"
            } else {
                "live"
            },
        },
        half_close: match (stdin, once) {
            (false, _) => HalfClose::Ignored,
            (true, true) => HalfClose::ClosesStdin,
            (true, false) => HalfClose::EndsSession,
        },
        close_at_end: once,
        keys,
    };
    let (input, input_end) = mpsc::channel(CHUNKS);
    let (output_end, output) = mpsc::channel(CHUNKS);
    let ends = Ends {
        input: input_end,
        output: output_end,
    };
    session::tell(&handle, Draft::new("attach")).await;
    if options.stream {
        let (waiting, gate) = Waiting::new();
        // When this returns the session is before any start that is asked for
        // from now on.
        handle
            .mailbox
            .send(Command::Attach(waiting))
            .await
            .map_err(|_| gone(&handle))?;
        tokio::spawn(serve(
            Arc::clone(shared),
            handle,
            options,
            streams,
            gate,
            ends,
        ));
    } else {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            if options.logs {
                replay(&shared, &handle, &options, &ends.output).await;
            }
        });
    }
    Ok(Session {
        exec_id: String::new(),
        pid: None,
        tty,
        input,
        output,
    })
}

async fn serve(
    shared: Arc<Shared>,
    handle: Handle,
    options: AttachOptions,
    streams: Streams,
    gate: Gate,
    mut ends: Ends,
) {
    let Gate { run, connected } = gate;
    // What a container that does not run has written does not change until
    // its start.
    if options.logs
        && streams.connect.from == "live"
        && !replay(&shared, &handle, &options, &ends.output).await
    {
        return;
    }
    let run = tokio::select! {
        run = run => run,
        () = ends.output.closed() => return,
    };
    let Ok(run) = run else {
        let text = format!("container {} did not start, or is gone", handle.id);
        let _ = ends.output.send(Err(Error::precondition(text))).await;
        return;
    };
    let opened = match session::open(&run, &streams.connect).await {
        Ok(opened) => opened,
        Err(error) => {
            let _ = ends.output.send(Err(error)).await;
            return;
        }
    };
    let _ = connected.send(());
    match streams.pump(opened, &mut ends).await {
        Stop::Ended(code) => {
            let item = session::recorded_end(&run, code).await.map(Output::Exit);
            let _ = ends.output.send(item).await;
        }
        Stop::Detached => {
            session::tell(&handle, Draft::new("detach")).await;
            let _ = ends.output.send(Ok(Output::Detached)).await;
        }
        Stop::Gone => {}
    }
}

/// Sends what is in the log; false when the caller is gone.
async fn replay(
    shared: &Arc<Shared>,
    handle: &Handle,
    options: &AttachOptions,
    output: &mpsc::Sender<Result<Output>>,
) -> bool {
    let request = LogsRequest {
        stdout: options.stdout,
        stderr: options.stderr,
        ..Default::default()
    };
    let mut entries = match logs::read(shared, handle.clone(), request) {
        Ok(entries) => entries,
        // Nothing is logged, so there is nothing to replay.
        Err(error) if error.kind() == Kind::Unimplemented => return true,
        Err(error) => return output.send(Err(error)).await.is_ok(),
    };
    while let Some(entry) = entries.next().await {
        let item = entry.map(|entry| match entry.stream {
            LogStream::Stdout => Output::Stdout(entry.line),
            LogStream::Stderr => Output::Stderr(entry.line),
        });
        if output.send(item).await.is_err() {
            return false;
        }
    }
    true
}

fn gone(handle: &Handle) -> Error {
    Error::not_found(format!("No such container: {}", handle.id))
}
