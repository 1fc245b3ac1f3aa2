//! Tar streams between async callers and the blocking threads that walk files.

use std::io::{self, BufRead, Read, Write};

use bytes::{BufMut, Bytes, BytesMut};
use davit_store::{Error, Result};
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::model::TarStream;

/// Bytes that are gathered before they are handed on.
const CHUNK: usize = 256 << 10;

/// Chunks that wait for a slow reader.
const QUEUE: usize = 4;

/// Runs `work` on a blocking thread with a writer; what it writes comes out of
/// the stream. When the reader goes, the next write fails and the work ends.
pub(super) fn produce(work: impl FnOnce(&mut Writer) -> Result<()> + Send + 'static) -> TarStream {
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut writer = Writer {
            sender,
            buffer: BytesMut::with_capacity(CHUNK),
        };
        let done = work(&mut writer).and_then(|()| {
            writer
                .flush()
                .map_err(|error| Error::io("writing the stream", error))
        });
        if let Err(error) = done {
            // The reader may be gone, which is why it failed.
            let _ = writer.sender.blocking_send(Err(error));
        }
    });
    futures::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed()
}

/// Runs `work` on a blocking thread with what comes in by `stream`.
pub(super) async fn consume<T: Send + 'static>(
    mut stream: TarStream,
    work: impl FnOnce(Reader) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let reader = Reader {
        receiver,
        chunk: Bytes::new(),
        failed: None,
    };
    let mut task = tokio::task::spawn_blocking(move || work(reader));
    let feed = async {
        while let Some(chunk) = stream.next().await {
            let broken = chunk.is_err();
            if sender.send(chunk).await.is_err() || broken {
                break;
            }
        }
        drop(sender);
    };
    let join = |result: std::result::Result<Result<T>, tokio::task::JoinError>| {
        result.unwrap_or_else(|panic| {
            Err(Error::internal("unpacking panicked; this is a bug").with_source(panic))
        })
    };
    // When the work fails early, nobody waits for the rest of the stream.
    tokio::select! {
        result = &mut task => return join(result),
        () = feed => {}
    }
    join(task.await)
}

/// The writing end.
#[derive(Debug)]
pub(super) struct Writer {
    sender: mpsc::Sender<Result<Bytes>>,
    buffer: BytesMut,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..take]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK)).freeze();
        self.sender
            .blocking_send(Ok(chunk))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader has gone"))
    }
}

/// The reading end.
#[derive(Debug)]
pub(super) struct Reader {
    receiver: mpsc::Receiver<Result<Bytes>>,
    chunk: Bytes,
    failed: Option<String>,
}

impl Reader {
    /// Waits until the first `bytes` are here in one block (or the stream has
    /// ended), for those who recognise a format by them.
    pub(super) fn gather(&mut self, bytes: usize) -> io::Result<()> {
        let mut start = BytesMut::new();
        while start.len() < bytes && !self.fill_buf()?.is_empty() {
            start.put(std::mem::take(&mut self.chunk));
        }
        self.chunk = start.freeze();
        Ok(())
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            if let Some(text) = &self.failed {
                return Err(io::Error::other(text.clone()));
            }
            match self.receiver.blocking_recv() {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => self.failed = Some(error.chain()),
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.chunk.split_to(amount.min(self.chunk.len()));
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let have = self.fill_buf()?;
        let take = have.len().min(buffer.len());
        buffer[..take].copy_from_slice(&have[..take]);
        self.consume(take);
        Ok(take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_go_through_both_ways() {
        let stream = produce(|writer| {
            for number in 0..100_000u32 {
                writer
                    .write_all(&number.to_le_bytes())
                    .map_err(|error| Error::io("x", error))?;
            }
            Ok(())
        });
        let bytes = consume(stream, |mut reader| {
            let mut bytes = Vec::new();
            reader
                .read_to_end(&mut bytes)
                .map_err(|error| Error::io("y", error))?;
            Ok(bytes)
        })
        .await
        .unwrap();
        assert_eq!(bytes.len(), 400_000);
        assert_eq!(bytes[399_996..], 99_999u32.to_le_bytes());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn failures_go_through() {
        let mut stream = produce(|_| Err(Error::not_found("gone")));
        assert_eq!(
            stream.next().await.unwrap().unwrap_err().to_string(),
            "gone"
        );
        let failing =
            futures::stream::iter([Ok(Bytes::from_static(b"abc")), Err(Error::internal("cut"))])
                .boxed();
        let result = consume(failing, |mut reader| {
            let mut text = String::new();
            reader
                .read_to_string(&mut text)
                .map_err(|error| Error::io("reading", error))?;
            Ok(text)
        });
        assert!(result.await.unwrap_err().chain().contains("cut"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn work_ends_when_the_reader_goes() {
        let (done, ended) = tokio::sync::oneshot::channel();
        let stream = produce(move |writer| {
            let result = loop {
                if let Err(error) = writer.write_all(&[0; 4096]) {
                    break error.kind();
                }
            };
            let _ = done.send(result);
            Ok(())
        });
        drop(stream);
        assert_eq!(ended.await.unwrap(), io::ErrorKind::BrokenPipe);
    }
}
