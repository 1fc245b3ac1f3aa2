//! The stages of unpacking one layer, each on a thread of its own, with
//! bounded channels between them:
//!
//! ```text
//! blocks ─► inflate, count, hash diff id ─► tar, files
//! ```
//!
//! The stage before (hash of the blob, file) is the content store's writer,
//! or a reader of a blob that is here.

use std::{
    any::Any,
    io::{self, Read},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use bytes::Bytes;
use davit_store::{Error, Kind, Result};
use tokio::sync::oneshot;

use super::{
    Limits,
    chunks::{Block, Chunks},
    extract::{Extracted, Extractor, Onto},
    inflate::Inflate,
    tar::Tar,
    walk::Refusal,
};
use crate::{Digest, content::Tee, digest::Hasher};

/// Uncompressed bytes that stages hand on at a time.
const BLOCK: usize = 512 << 10;
/// Blocks between two stages.
const DEPTH: usize = 4;
/// Steps of compressed bytes that wait to be inflated.
const QUEUE: usize = 8;

/// What a layer is and where it goes.
#[derive(Debug)]
pub(crate) struct Job {
    /// Digest of the blob, for errors.
    pub(crate) layer: Digest,
    pub(crate) diff_id: Digest,
    /// The directory to fill.
    pub(crate) root: OwnedFd,
    pub(crate) onto: Onto,
    pub(crate) limits: Limits,
}

/// How an extraction ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The layer is in the directory.
    Done(Extracted),
    /// It can't be unpacked without the layers below.
    NeedsParent,
}

/// A layer being unpacked. Dropping it (with the sender of its blocks) ends
/// the threads soon.
#[derive(Debug)]
pub(crate) struct Pipeline {
    outcome: oneshot::Receiver<Result<Outcome>>,
    read: Arc<AtomicU64>,
}

impl Pipeline {
    /// Starts the threads; `guard` is dropped when they no longer touch the
    /// directory.
    pub(crate) fn start(job: Job, guard: Arc<dyn Any + Send + Sync>) -> Result<(Self, Tee)> {
        let (tee, blocks) = sync_channel(QUEUE);
        let (reply, outcome) = oneshot::channel();
        let read = Arc::new(AtomicU64::new(0));
        let source = Chunks::new(blocks, read.clone());
        std::thread::Builder::new()
            .name("davit-inflate".into())
            .spawn(move || {
                let result = run(job, source);
                drop(guard);
                // Nobody waits any more: the work was cancelled.
                let _ = reply.send(result);
            })
            .map_err(|error| Error::io("starting a thread to unpack a layer", error))?;
        Ok((Self { outcome, read }, tee))
    }

    /// Compressed bytes unpacked so far.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The outcome, if the threads have ended.
    pub(crate) fn ended(&mut self) -> Option<Result<Outcome>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(died())),
        }
    }

    /// Waits for the outcome.
    pub(crate) async fn outcome(&mut self) -> Result<Outcome> {
        (&mut self.outcome).await.unwrap_or_else(|_| Err(died()))
    }
}

fn died() -> Error {
    Error::internal("the thread that unpacked a layer died")
}

/// Why a stage stopped.
enum Stop {
    /// The stage after it did; that one has the reason.
    Downstream,
    Failed(Error),
}

fn run(job: Job, source: Chunks<Bytes>) -> Result<Outcome> {
    let (layer, diff_id, limits) = (job.layer.clone(), job.diff_id.clone(), job.limits);
    let (blocks, queue) = sync_channel(DEPTH);
    let (used, free) = sync_channel(DEPTH + 1);
    let files = std::thread::Builder::new()
        .name("davit-files".into())
        .spawn(move || extract(job, queue, used))
        .map_err(|error| Error::io("starting a thread to unpack a layer", error))?;
    let inflated = inflate(&layer, limits, source, &blocks, &free);
    if inflated.is_ok() {
        // A stage that has ended has its own reason.
        let _ = blocks.send(Block::End);
    }
    drop(blocks);
    let extracted = files.join().unwrap_or_else(|_| Err(died()));
    match (extracted, inflated) {
        (_, Err(Stop::Failed(error))) => Err(error),
        (Err(error), _) => Err(error),
        (Ok(Outcome::NeedsParent), _) => Ok(Outcome::NeedsParent),
        (Ok(Outcome::Done(_)), Err(Stop::Downstream)) => Err(Error::internal(format!(
            "unpacking layer {layer} ended before its end"
        ))),
        (Ok(Outcome::Done(extracted)), Ok(found)) if found == diff_id => {
            Ok(Outcome::Done(extracted))
        }
        (Ok(Outcome::Done(_)), Ok(found)) => Err(Error::new(
            Kind::DataLoss,
            format!(
                "layer {layer} is refused: uncompressed it has the digest {found}, the image's config says {diff_id}"
            ),
        )),
    }
}

fn inflate(
    layer: &Digest,
    limits: Limits,
    source: Chunks<Bytes>,
    blocks: &SyncSender<Block<Vec<u8>>>,
    free: &Receiver<Vec<u8>>,
) -> Result<Digest, Stop> {
    let failed = |error: io::Error| Stop::Failed(stream_error(layer, error));
    let mut source = Inflate::new(source).map_err(failed)?;
    let mut hasher = Hasher::new(crate::digest::Algorithm::Sha256);
    let mut total = 0u64;
    loop {
        let mut block = free.try_recv().unwrap_or_default();
        block.resize(BLOCK, 0);
        let mut filled = 0;
        while filled < BLOCK {
            match source.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if filled == 0 {
            return Ok(hasher.finish());
        }
        total += filled as u64;
        if total > limits.bytes {
            return Err(Stop::Failed(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "layer {layer} is refused: it unpacks to more than {} bytes, the bound that the configuration sets",
                    limits.bytes
                ),
            )));
        }
        block.truncate(filled);
        hasher.update(&block);
        blocks
            .send(Block::Data(block))
            .map_err(|_| Stop::Downstream)?;
    }
}

fn stream_error(layer: &Digest, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionAborted => Error::new(
            Kind::Cancelled,
            format!("unpacking layer {layer} was broken off"),
        ),
        io::ErrorKind::UnexpectedEof => Error::new(
            Kind::DataLoss,
            format!("layer {layer} is refused: its compressed data is cut off"),
        ),
        _ => Error::new(
            Kind::DataLoss,
            format!("layer {layer} is refused: its compressed data is damaged ({error})"),
        ),
    }
}

fn extract(
    job: Job,
    queue: Receiver<Block<Vec<u8>>>,
    used: SyncSender<Vec<u8>>,
) -> Result<Outcome> {
    let mut tar = Tar::new(Chunks::new(queue, Arc::default()).recycling(used));
    let mut extractor = Extractor::new(job.root, job.onto);
    let layer = &job.layer;
    let (mut entries, mut apparent) = (0u64, 0u64);
    loop {
        let entry = match tar.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => return Err(tar_error(layer, None, error)),
        };
        entries += 1;
        apparent = apparent.saturating_add(entry.size);
        if entries > job.limits.entries || apparent > job.limits.bytes {
            let name = name_of(&entry.path);
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "layer {layer} is refused at entry {name}: more entries or bytes than the configuration allows"
                ),
            ));
        }
        let mut data = |sink: &mut dyn FnMut(&[u8]) -> io::Result<()>| tar.data(sink);
        match extractor.apply(&entry, &mut data) {
            Ok(()) => {}
            Err(Refusal::NeedsParent) => return Ok(Outcome::NeedsParent),
            Err(Refusal::Hostile(why)) => {
                let name = name_of(&entry.path);
                return Err(Error::new(
                    Kind::DataLoss,
                    format!("layer {layer} is refused: entry {name}: {why}"),
                ));
            }
            Err(Refusal::Io(error)) => return Err(tar_error(layer, Some(&entry.path), error)),
        }
    }
    // What follows the archive's end counts for the diff id.
    tar.drain().map_err(|error| tar_error(layer, None, error))?;
    match extractor.finish() {
        Ok(extracted) => Ok(Outcome::Done(extracted)),
        Err(Refusal::Io(error)) => Err(Error::io(
            format!("unpacking layer {layer}: setting times"),
            error,
        )),
        Err(Refusal::Hostile(_) | Refusal::NeedsParent) => Err(Error::internal(format!(
            "unpacking layer {layer}: setting times"
        ))),
    }
}

fn name_of(path: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(path).chars().take(300).collect();
    format!("{text:?}")
}

fn tar_error(layer: &Digest, entry: Option<&[u8]>, error: io::Error) -> Error {
    let place = entry
        .map(|path| format!(": entry {}", name_of(path)))
        .unwrap_or_default();
    match error.kind() {
        // The inflating stage has the reason; this one is not shown.
        io::ErrorKind::ConnectionAborted => Error::new(
            Kind::Cancelled,
            format!("unpacking layer {layer} was broken off"),
        ),
        io::ErrorKind::UnexpectedEof => Error::new(
            Kind::DataLoss,
            format!("layer {layer} is refused{place}: the tar is cut off"),
        ),
        io::ErrorKind::InvalidData => Error::new(
            Kind::DataLoss,
            format!("layer {layer} is refused{place}: {error}"),
        ),
        _ => Error::io(format!("unpacking layer {layer}{place}: {error}"), error),
    }
}
