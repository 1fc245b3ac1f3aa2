//! The work on single layers of a chain: unpacking a blob that is here, and
//! taking in one that comes over the network while it is unpacked.

use std::{
    io::Read,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use davit_store::{Error, Kind, Result};

use super::{
    Layer, UNPACKS,
    chain::{Slot, Stage},
    chunks::Block,
    extract::{Extracted, Onto},
    pipeline::{Job, Outcome, Pipeline},
    walk::open_root,
};
use crate::{
    Snapshots,
    content::{Labels, Tee, Writer, labels::UNCOMPRESSED},
    lease::Operation,
};

/// Bytes read from a blob at a time.
const STEP: usize = 256 << 10;

/// A snapshot that a layer is unpacked into. It goes with the last holder
/// unless it was kept.
pub(super) struct Draft {
    snapshots: Snapshots,
    op: Operation,
    pub(super) key: String,
    kept: AtomicBool,
}

impl Draft {
    /// Prepares a snapshot on `parent` (empty: none) for the layer `slot`.
    pub(super) async fn prepare(slot: &Slot, parent: &str) -> Result<Arc<Self>> {
        let key = format!(
            "extract-{} {}",
            uuid::Uuid::new_v4().simple(),
            slot.chain_id
        );
        let labels = Labels::from([(UNPACKS.to_owned(), slot.chain_id.to_string())]);
        let (snapshots, op) = (slot.snapshots.clone(), slot.op.clone());
        snapshots.prepare(&op, &key, parent, labels).await?;
        Ok(Arc::new(Self {
            snapshots,
            op,
            key,
            kept: AtomicBool::new(false),
        }))
    }

    /// Where its own files are.
    pub(super) fn fs(&self) -> Result<PathBuf> {
        self.snapshots.own_dir(self.op.namespace(), &self.key)
    }

    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed)
            && let Err(error) = self.snapshots.remove_now(self.op.namespace(), &self.key)
            && error.kind() != Kind::NotFound
        {
            tracing::warn!(
                key = self.key,
                error = error.chain(),
                "removing a half unpacked layer; garbage collection will"
            );
        }
    }
}

/// A layer on its way into a directory of its own.
pub(super) struct Extraction {
    pub(super) pipeline: Pipeline,
    draft: Arc<Draft>,
}

impl Extraction {
    /// Starts unpacking into a snapshot without parent.
    pub(super) async fn start(slot: &Slot) -> Result<(Self, Tee)> {
        let draft = Draft::prepare(slot, "").await?;
        let onto = if slot.parent.is_some() {
            Onto::Nothing
        } else {
            Onto::Bottom
        };
        let root = draft.fs()?;
        let root = open_root(&root)
            .map_err(|error| Error::io(format!("opening {}", root.display()), error))?;
        let (pipeline, tee) = Pipeline::start(slot.job(root, onto), draft.clone())?;
        Ok((Self { pipeline, draft }, tee))
    }

    /// Waits for the end: the snapshot and what it still needs, or `None`
    /// when the layer has to be unpacked onto its parent.
    pub(super) async fn end(mut self) -> Result<Option<(Arc<Draft>, Extracted)>> {
        let outcome = self.pipeline.outcome().await?;
        Ok(self.take(outcome))
    }

    fn take(self, outcome: Outcome) -> Option<(Arc<Draft>, Extracted)> {
        match outcome {
            Outcome::Done(extracted) => Some((self.draft, extracted)),
            Outcome::NeedsParent => None,
        }
    }
}

impl Slot {
    pub(super) fn job(&self, root: std::os::fd::OwnedFd, onto: Onto) -> Job {
        Job {
            layer: self.layer.digest.clone(),
            diff_id: self.layer.diff_id.clone(),
            root,
            onto,
            limits: self.unpacker.0.limits,
        }
    }

    /// Sends the layer's blob, which is here, to `tee` from a thread.
    pub(super) fn feed(&self, tee: Tee) -> Result<()> {
        let (mut file, _) = self
            .unpacker
            .0
            .content
            .open(self.op.namespace(), &self.layer.digest)?;
        let digest = self.layer.digest.clone();
        let work = move || {
            loop {
                let mut block = vec![0; STEP];
                let mut filled = 0;
                while filled < STEP {
                    match file.read(&mut block[filled..]) {
                        Ok(0) => break,
                        Ok(n) => filled += n,
                        Err(error) => {
                            tracing::warn!(%digest, %error, "reading a blob");
                            // Without an end: the stream counts as cut off.
                            return;
                        }
                    }
                }
                if filled == 0 {
                    let _ = tee.send(Block::End);
                    return;
                }
                block.truncate(filled);
                if tee.send(Block::Data(block.into())).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("davit-read".into())
            .spawn(work)
            .map(drop)
            .map_err(|error| Error::io("starting a thread to read a blob", error))
    }

    pub(super) fn labels(&self) -> Labels {
        let mut labels = self.layer.labels.clone();
        labels.insert(UNCOMPRESSED.to_owned(), self.layer.diff_id.to_string());
        labels
    }
}

/// A layer whose blob is here.
pub struct LayerUnpack(pub(super) Arc<Slot>);

impl LayerUnpack {
    /// The layer.
    pub fn layer(&self) -> &Layer {
        &self.0.layer
    }

    /// Unpacks it; `progress` is told the bytes of the blob that are done.
    pub async fn run(self, progress: impl Fn(u64) + Send + Sync) -> Result<()> {
        let slot = self.0;
        let _place = slot.unpacker.0.places.acquire().await;
        let (mut extraction, tee) = Extraction::start(&slot).await?;
        slot.feed(tee)?;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let outcome = loop {
            tokio::select! {
                outcome = extraction.pipeline.outcome() => break outcome?,
                _ = tick.tick() => progress(extraction.pipeline.read()),
            }
        };
        progress(slot.layer.size);
        slot.set(Stage::of(extraction.take(outcome)));
        Ok(())
    }
}

/// A layer whose bytes are wanted; it is unpacked while they come.
pub struct LayerFetch {
    pub(super) slot: Arc<Slot>,
    pub(super) writer: Writer,
    pub(super) extraction: Option<Extraction>,
}

impl LayerFetch {
    /// The layer.
    pub fn layer(&self) -> &Layer {
        &self.slot.layer
    }

    /// Bytes that are here from an earlier try: the next byte to bring.
    pub fn offset(&self) -> u64 {
        self.writer.offset()
    }

    /// Bytes of the blob that have been unpacked so far.
    pub fn unpacked(&self) -> u64 {
        self.extraction
            .as_ref()
            .map_or(0, |extraction| extraction.pipeline.read())
    }

    /// Takes the next bytes; waits while disk or inflate are behind. Fails
    /// with what unpacking has found wrong as soon as it has.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if let Some(extraction) = &mut self.extraction
            && let Some(ended) = extraction.pipeline.ended()
        {
            match ended {
                Ok(Outcome::NeedsParent) => self.extraction = None,
                // All of the layer was unpacked and yet there are more bytes:
                // trailing ones count for the blob's digest only.
                Ok(outcome @ Outcome::Done(_)) => {
                    let done = self
                        .extraction
                        .take()
                        .and_then(|extraction| extraction.take(outcome));
                    self.slot.set(Stage::of(done));
                }
                Err(error) => return Err(error),
            }
        }
        self.writer.write(bytes).await
    }

    /// Starts again from byte 0: the source can't continue at
    /// [`LayerFetch::offset`].
    pub async fn restart(&mut self) -> Result<()> {
        self.slot.set(Stage::Fetched);
        let unpacks = self.extraction.take().is_some();
        let (extraction, tee) = match unpacks {
            true => Extraction::start(&self.slot)
                .await
                .map(|(e, t)| (Some(e), Some(t)))?,
            false => (None, None),
        };
        self.extraction = extraction;
        self.writer.restart_into(tee).await
    }

    /// All bytes were written: checks digests and size, records the blob.
    /// The snapshot follows in [`Chain::finish`](super::Chain::finish).
    pub async fn finish(self) -> Result<()> {
        let checked = self.writer.finish().await?;
        let outcome = match self.extraction {
            Some(extraction) => extraction.end().await.map(Some),
            None => Ok(None),
        };
        match outcome {
            Ok(stage) => {
                checked.adopt(self.slot.labels()).await?;
                if let Some(done) = stage {
                    self.slot.set(Stage::of(done));
                }
                Ok(())
            }
            Err(error) => {
                checked.abort().await?;
                Err(error)
            }
        }
    }

    /// Gives up for good: what has arrived is thrown away. (Dropping keeps it
    /// for another try.)
    pub async fn abort(self) -> Result<()> {
        self.writer.abort().await
    }
}

impl std::fmt::Debug for LayerUnpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LayerUnpack")
            .field(&self.0.layer.digest)
            .finish()
    }
}

impl std::fmt::Debug for LayerFetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LayerFetch")
            .field(&self.slot.layer.digest)
            .finish()
    }
}
