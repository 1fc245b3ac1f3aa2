//! Channels of byte blocks that read as streams: how the stages of an
//! unpacking hand data on.

use std::{
    io::{self, BufRead, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvError},
    },
};

/// What goes through a channel: a block, or how the stream ended. A channel
/// that closes without [`Block::End`] was cut off.
#[derive(Debug)]
pub(crate) enum Block<T> {
    Data(T),
    End,
}

/// Blocks from a channel as one stream.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    source: Receiver<Block<T>>,
    block: Option<T>,
    at: usize,
    ended: bool,
    /// Bytes consumed, for who watches.
    read: Arc<AtomicU64>,
    /// Where used blocks go, to be filled again.
    recycle: Option<std::sync::mpsc::SyncSender<T>>,
}

impl<T: AsRef<[u8]>> Chunks<T> {
    pub(crate) fn new(source: Receiver<Block<T>>, read: Arc<AtomicU64>) -> Self {
        Self {
            source,
            block: None,
            at: 0,
            ended: false,
            read,
            recycle: None,
        }
    }

    pub(crate) fn recycling(mut self, to: std::sync::mpsc::SyncSender<T>) -> Self {
        self.recycle = Some(to);
        self
    }
}

/// The error of a stream whose sender went away: not an end of file.
pub(crate) fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the stream was cut off")
}

impl<T: AsRef<[u8]>> BufRead for Chunks<T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while !self.ended
            && self
                .block
                .as_ref()
                .is_none_or(|block| self.at >= block.as_ref().len())
        {
            if let (Some(used), Some(recycle)) = (self.block.take(), &self.recycle) {
                // Full or closed: the block is just dropped.
                let _ = recycle.try_send(used);
            }
            match self.source.recv() {
                Ok(Block::Data(block)) => (self.block, self.at) = (Some(block), 0),
                Ok(Block::End) => self.ended = true,
                Err(RecvError) => return Err(cut_off()),
            }
        }
        Ok(self
            .block
            .as_ref()
            .map_or(&[], |block| block.as_ref().get(self.at..).unwrap_or(&[])))
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl<T: AsRef<[u8]>> Read for Chunks<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let here = self.fill_buf()?;
        let take = here.len().min(into.len());
        into[..take].copy_from_slice(&here[..take]);
        self.consume(take);
        Ok(take)
    }
}
