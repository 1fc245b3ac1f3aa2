//! Upgraded connections: the HTTP connection of attach and exec becomes a raw
//! stream. Towards the client it carries either bytes (terminal) or frames of
//! stdout and stderr; from the client always bytes.
//!
//! The end of the client's bytes is not its going away: docker's CLI closes
//! its sending side before it starts the container. What the end means is the
//! session's [`OnEof`].

use std::{io, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use http::{HeaderValue, StatusCode, Version, header};
use hyper::{ext::ReasonPhrase, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::Instant,
};

use crate::{
    reply::{self, Reply},
    server::HangUp,
    version::ApiVersion,
};

/// Bytes read from a client at once.
const READ: usize = 64 << 10;
/// Chunks of input on their way; a container that does not read stops the
/// client, not the gateway's memory.
const INPUT_DEPTH: usize = 4;
/// Output does not follow the 101 sooner. docker-py reads the head through a
/// buffer and the rest past it, and loses what arrives together with the head.
/// A process takes longer to say something, so nobody waits for it.
const HEAD_ALONE: Duration = Duration::from_millis(5);
/// Longest wait for the client to close after the last output. Closing at
/// once with its input unread would reset the connection under its last bytes.
const LINGER: Duration = Duration::from_secs(2);

const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
const RAW: &str = "application/vnd.docker.raw-stream";

/// What the client sends.
#[derive(Debug)]
pub(crate) enum Input {
    Data(Bytes),
    /// No more input; output goes on.
    Close,
}

/// What the client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// An error that ends the stream; clients show it as the daemon's.
    System(String),
}

/// What the end of the client's input means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnEof {
    /// Nothing: input was not wanted.
    Ignore,
    /// The process's stdin ends, output goes on.
    CloseStdin,
    /// This session ends; the process keeps its stdin.
    EndSession,
}

/// One attach or exec.
pub(crate) struct Session {
    pub(crate) tty: bool,
    pub(crate) on_eof: OnEof,
    pub(crate) input: mpsc::Sender<Input>,
    pub(crate) output: BoxStream<'static, Output>,
}

/// The two ends of a session's input.
pub(crate) fn input() -> (mpsc::Sender<Input>, mpsc::Receiver<Input>) {
    mpsc::channel(INPUT_DEPTH)
}

/// The content type of a stream that may be framed.
pub(crate) fn content_type(tty: bool, version: ApiVersion) -> &'static str {
    if !tty && version >= ApiVersion::new(1, 42) {
        MULTIPLEXED
    } else {
        RAW
    }
}

/// Output as it goes over the wire: bytes for a terminal, else a header of
/// eight bytes (stream, 0, 0, 0, length) before each piece.
pub(crate) fn frame(output: Output, tty: bool) -> impl Buf {
    let (stream, payload) = match output {
        Output::Stdout(data) => (1, data),
        Output::Stderr(data) => (2, data),
        Output::System(text) => (3, Bytes::from(text)),
    };
    let mut head = BytesMut::new();
    if !tty {
        head.reserve(8);
        head.put_u32(stream << 24);
        head.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    }
    head.freeze().chain(payload)
}

/// The same, as one piece.
pub(crate) fn frame_bytes(output: Output, tty: bool) -> Bytes {
    let mut frame = frame(output, tty);
    frame.copy_to_bytes(frame.remaining())
}

/// Answers an attach or exec: 101 and a raw connection when the client asked
/// for an upgrade, else a plain reply that ends with the connection and has no
/// input.
pub(crate) fn reply(upgrade: Option<OnUpgrade>, version: ApiVersion, session: Session) -> Reply {
    let content_type = content_type(session.tty, version);
    let Some(upgrade) = upgrade else {
        return plain(content_type, session);
    };
    tokio::spawn(async move {
        if let Err(error) = run(upgrade, session).await {
            tracing::debug!(%error, "upgraded connection ended");
        }
    });
    let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    reply
        .extensions_mut()
        .insert(ReasonPhrase::from_static(b"UPGRADED"));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    reply
}

fn plain(content_type: &'static str, session: Session) -> Reply {
    let Session {
        tty,
        input,
        mut output,
        ..
    } = session;
    let frames = async_stream::stream! {
        while let Some(item) = output.next().await {
            yield Ok::<_, io::Error>(frame_bytes(item, tty));
        }
        drop(input);
    };
    let mut reply = reply::stream(content_type, frames);
    // No chunks: such clients read what follows the head as it is.
    *reply.version_mut() = Version::HTTP_10;
    reply
}

async fn run(upgrade: OnUpgrade, session: Session) -> io::Result<()> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let parts = upgraded
        .downcast::<TokioIo<UnixStream>>()
        .map_err(|_| io::Error::other("the connection is no Unix socket"))?;
    // What the client sent right behind its request is in the parser.
    let (socket, early) = (parts.io.into_inner(), parts.read_buf);
    let gone = HangUp::watch(&socket)?;
    let (reader, mut writer) = socket.into_split();
    let not_before = Instant::now() + HEAD_ALONE;
    let mut receiving = std::pin::pin!(receive(reader, early, session.input, session.on_eof, gone));
    tokio::select! {
        () = &mut receiving => return Ok(()),
        sent = send(&mut writer, session.output, session.tty, not_before) => sent?,
    }
    writer.shutdown().await?;
    let _ = tokio::time::timeout(LINGER, receiving).await;
    Ok(())
}

async fn send(
    writer: &mut OwnedWriteHalf,
    mut output: BoxStream<'static, Output>,
    tty: bool,
    not_before: Instant,
) -> io::Result<()> {
    while let Some(item) = output.next().await {
        if Instant::now() < not_before {
            tokio::time::sleep_until(not_before).await;
        }
        writer.write_all_buf(&mut frame(item, tty)).await?;
    }
    Ok(())
}

/// Passes input on until the session is over by the client's doing.
async fn receive(
    mut reader: OwnedReadHalf,
    early: Bytes,
    input: mpsc::Sender<Input>,
    on_eof: OnEof,
    gone: HangUp,
) {
    let wanted = on_eof != OnEof::Ignore;
    if wanted && !early.is_empty() {
        let _ = input.send(Input::Data(early)).await;
    }
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => break,
            Ok(_) => {
                let data = buffer.split().freeze();
                // Input that nobody takes any more is read all the same, so
                // that the client does not hang on it.
                if wanted {
                    let _ = input.send(Input::Data(data)).await;
                }
            }
            Err(_) => return,
        }
    }
    match on_eof {
        OnEof::EndSession => return,
        OnEof::CloseStdin => {
            let _ = input.send(Input::Close).await;
        }
        OnEof::Ignore => {}
    }
    gone.wait().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version;

    #[test]
    fn frames_have_dockers_header() {
        let bytes = frame_bytes(Output::Stderr(Bytes::from_static(b"abc")), false);
        assert_eq!(&bytes[..], b"\x02\0\0\0\0\0\0\x03abc");
        assert_eq!(frame_bytes(Output::System("x".into()), false)[0], 3);
        assert_eq!(&frame_bytes(Output::Stdout("abc".into()), true)[..], b"abc");
    }

    #[test]
    fn the_content_type_follows_terminal_and_version() {
        assert_eq!(content_type(false, version::MAX), MULTIPLEXED);
        assert_eq!(content_type(true, version::MAX), RAW);
        assert_eq!(content_type(false, ApiVersion::new(1, 41)), RAW);
    }
}
