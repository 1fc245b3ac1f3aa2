//! A tar stream, taken apart in a thread of its own.

use std::io::{self, BufRead, Read};

use bytes::{Bytes, BytesMut};
use davit_store::{Error, Kind, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use crate::unpack::{
    inflate::Inflate,
    tar::{Entry, Tar},
};

/// Bytes handed on at a time.
const BLOCK: usize = 256 << 10;
/// Blocks that wait between two stages.
const QUEUE: usize = 8;

/// A part of a tar stream, in order.
#[derive(Debug)]
pub(super) enum Piece {
    /// An entry begins; the one before is over.
    Entry(Box<Entry>),
    /// Bytes of the entry.
    Data(Bytes),
    /// The archive is over, as it should be.
    End,
}

/// Sends a stream to the thread that takes it apart; `read` is told the bytes
/// so far. Ends well when the stream does.
pub(super) async fn pump(data: impl AsyncRead, to: Input, read: impl Fn(u64)) -> Result<()> {
    let mut data = std::pin::pin!(data);
    let mut total = 0;
    loop {
        let mut block = BytesMut::with_capacity(BLOCK);
        let mut ended = false;
        while block.len() < BLOCK && !ended {
            match data.read_buf(&mut block).await {
                Ok(0) => ended = true,
                Ok(_) => {}
                Err(error) => return Err(Error::io("the archive can't be read", error)),
            }
        }
        total += block.len() as u64;
        read(total);
        // The thread may have enough before the stream ends: trailing bytes.
        let gone = !block.is_empty() && to.send(Ok(block.freeze())).await.is_err();
        if ended || gone {
            // An empty block is the end; a channel that closes without was
            // cut off.
            let _ = to.send(Ok(Bytes::new())).await;
            return Ok(());
        }
    }
}

/// Where a stream goes in; an empty block is its end.
pub(super) type Input = mpsc::Sender<io::Result<Bytes>>;

/// Starts the thread. The pieces end with [`Piece::End`] or an error.
pub(super) fn start() -> Result<(Input, mpsc::Receiver<Result<Piece>>)> {
    let (sender, blocks) = mpsc::channel(QUEUE);
    let (pieces, receiver) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name("davit-archive".into())
        .spawn(move || {
            let source = Blocks {
                source: blocks,
                block: Bytes::new(),
                ended: false,
            };
            if let Err(error) = take_apart(source, &pieces) {
                // Who does not listen any more knows why.
                let _ = pieces.blocking_send(Err(failure(error)));
            }
        })
        .map_err(|error| Error::io("starting a thread to read an archive", error))?;
    Ok((sender, receiver))
}

fn take_apart(source: Blocks, pieces: &mpsc::Sender<Result<Piece>>) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let inflate = Inflate::new(source)?;
    let mut tar = Tar::new(io::BufReader::with_capacity(BLOCK, inflate));
    while let Some(entry) = tar.next_entry()? {
        pieces
            .blocking_send(Ok(Piece::Entry(Box::new(entry))))
            .map_err(gone)?;
        tar.data(|bytes| {
            pieces
                .blocking_send(Ok(Piece::Data(Bytes::copy_from_slice(bytes))))
                .map_err(gone)
        })?;
    }
    tar.drain()?;
    pieces.blocking_send(Ok(Piece::End)).map_err(gone)
}

fn failure(error: io::Error) -> Error {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the archive is cut off",
        io::ErrorKind::ConnectionAborted => {
            return Error::new(Kind::Cancelled, "the archive's sender went away");
        }
        _ => "the archive is no valid tar (plain, gzip or zstd)",
    };
    Error::invalid(format!("{what}: {error}"))
}

/// Blocks from a channel as one stream.
struct Blocks {
    source: mpsc::Receiver<io::Result<Bytes>>,
    block: Bytes,
    ended: bool,
}

impl BufRead for Blocks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.block.is_empty() && !self.ended {
            match self.source.blocking_recv() {
                Some(block) => self.block = block?,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            self.ended = self.block.is_empty();
        }
        Ok(&self.block)
    }

    fn consume(&mut self, bytes: usize) {
        let _ = self.block.split_to(bytes.min(self.block.len()));
    }
}

impl Read for Blocks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let here = self.fill_buf()?;
        let take = here.len().min(into.len());
        into[..take].copy_from_slice(&here[..take]);
        self.consume(take);
        Ok(take)
    }
}
