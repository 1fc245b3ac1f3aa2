//! The streams of a container or exec: the shim's attach protocol, frames of
//! `[type u8][length u32 big-endian][payload]` over `<bundle>/a.sock`.

use std::{path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use davit_store::options::TerminalSize;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::unix;
use crate::{Error, Kind, Result};

const HELLO: u8 = 0x01;
const READY: u8 = 0x02;
const STDIN: u8 = 0x10;
const CLOSE_STDIN: u8 = 0x11;
const RESIZE: u8 = 0x12;
const STDOUT: u8 = 0x20;
const STDERR: u8 = 0x21;
const EXIT: u8 = 0x22;
const LAGGED: u8 = 0x23;

/// The longest frame that a shim may send.
const LONGEST: u32 = 1 << 20;
/// Longest wait for READY.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// Which streams are wanted.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Connect {
    /// Id of the exec; empty for the container itself.
    pub(crate) exec: String,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) from: &'static str,
}

/// What comes from the shim.
#[derive(Debug)]
pub(crate) enum Frame {
    Stdout(Bytes),
    Stderr(Bytes),
    Exit {
        code: i32,
    },
    /// So many bytes were dropped since this reader was too slow; the end.
    Lagged {
        dropped: u64,
    },
}

/// The reading side.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: BufReader<OwnedReadHalf>,
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    stream: OwnedWriteHalf,
}

/// Connects; when this returns, nothing that comes after is missed.
pub(crate) async fn connect(socket: &Path, what: &Connect) -> Result<(FrameReader, FrameWriter)> {
    let stream = unix::connect(socket).map_err(|error| {
        Error::new(
            Kind::Unavailable,
            format!("cannot connect to the streams at {}", socket.display()),
        )
        .with_source(error)
    })?;
    tokio::time::timeout(READY_WITHIN, handshake(stream, what))
        .await
        .map_err(|_| {
            Error::new(
                Kind::DeadlineExceeded,
                format!(
                    "the shim did not answer at {} within {READY_WITHIN:?}",
                    socket.display()
                ),
            )
        })?
}

async fn handshake(stream: UnixStream, what: &Connect) -> Result<(FrameReader, FrameWriter)> {
    let (reader, writer) = stream.into_split();
    let mut reader = FrameReader {
        stream: BufReader::with_capacity(4096, reader),
    };
    let mut writer = FrameWriter { stream: writer };
    let hello = serde_json::to_vec(what).map_err(|error| {
        Error::internal("cannot encode a request for streams").with_source(error)
    })?;
    writer.frame(HELLO, &hello).await?;
    match reader.raw().await? {
        Some((READY, _)) => Ok((reader, writer)),
        Some((kind, payload)) => Err(Error::internal(format!(
            "the shim answered a request for streams with {kind:#04x}: {}",
            String::from_utf8_lossy(&payload)
        ))),
        None => Err(Error::new(
            Kind::Unavailable,
            "the shim closed the streams at once: no such process",
        )),
    }
}

impl FrameReader {
    /// The next frame; None at the end of the connection.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>> {
        #[derive(Deserialize)]
        struct ExitPayload {
            code: i32,
        }
        #[derive(Deserialize)]
        struct LaggedPayload {
            dropped: u64,
        }
        loop {
            let Some((kind, payload)) = self.raw().await? else {
                return Ok(None);
            };
            return Ok(Some(match kind {
                STDOUT => Frame::Stdout(payload),
                STDERR => Frame::Stderr(payload),
                EXIT => {
                    let exit: ExitPayload = parse(&payload)?;
                    Frame::Exit { code: exit.code }
                }
                LAGGED => Frame::Lagged {
                    dropped: parse::<LaggedPayload>(&payload)?.dropped,
                },
                // A newer shim may say more than we know.
                _ => continue,
            }));
        }
    }

    async fn raw(&mut self) -> Result<Option<(u8, Bytes)>> {
        let broken = |error| {
            Error::new(
                Kind::Unavailable,
                "the connection to the shim's streams broke",
            )
            .with_source(error)
        };
        let kind = match self.stream.read_u8().await {
            Ok(kind) => kind,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(broken(error)),
        };
        let length = self.stream.read_u32().await.map_err(broken)?;
        if length > LONGEST {
            return Err(Error::new(
                Kind::DataLoss,
                format!("the shim sent a frame of {length} bytes"),
            ));
        }
        let mut payload = BytesMut::zeroed(length as usize);
        self.stream.read_exact(&mut payload).await.map_err(broken)?;
        Ok(Some((kind, payload.freeze())))
    }
}

impl FrameWriter {
    /// Input for the process; waits while it does not read.
    pub(crate) async fn stdin(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(64 << 10) {
            self.frame(STDIN, chunk).await?;
        }
        Ok(())
    }

    /// No more input.
    pub(crate) async fn close_stdin(&mut self) -> Result<()> {
        self.frame(CLOSE_STDIN, &[]).await
    }

    /// The terminal's size.
    pub(crate) async fn resize(&mut self, size: &TerminalSize) -> Result<()> {
        let payload = format!("{{\"width\":{},\"height\":{}}}", size.width, size.height);
        self.frame(RESIZE, payload.as_bytes()).await
    }

    async fn frame(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len())
            .map_err(|_| Error::internal("a frame of more than 4 GiB"))?;
        let mut frame = BytesMut::with_capacity(5 + payload.len());
        frame.extend_from_slice(&[kind]);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await.map_err(|error| {
            Error::new(Kind::Unavailable, "the shim takes no more input").with_source(error)
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T> {
    serde_json::from_slice(payload).map_err(|error| {
        Error::new(Kind::DataLoss, "the shim sent a broken frame").with_source(error)
    })
}
