//! Stacks of layers being unpacked: what is to be done for each, and putting
//! them on top of one another in the end.

use std::sync::{Arc, Mutex, PoisonError};

use davit_store::{Error, Kind, Result};

use super::{
    Layer, LayerFetch, LayerUnpack, Unpacker,
    extract::{Extracted, Onto},
    fixup,
    layer::{Draft, Extraction},
    pipeline::{Outcome, Pipeline},
    walk::open_root,
};
use crate::{
    Digest, Snapshots,
    content::{Expected, Labels, Reserved, blocking, labels::UNCOMPRESSED},
    digest::chain_ids,
    lease::{Operation, Resource},
    single_flight::Flight,
    snapshots::Commit,
};

/// One layer of a chain.
pub(super) struct Slot {
    pub(super) unpacker: Unpacker,
    pub(super) op: Operation,
    pub(super) snapshots: Snapshots,
    pub(super) layer: Layer,
    pub(super) chain_id: Digest,
    pub(super) parent: Option<Digest>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stage: Stage,
    /// Keeps others from unpacking the same stack.
    flight: Option<Flight>,
}

/// How far a layer is.
#[derive(Default)]
pub(super) enum Stage {
    /// Nobody has asked what is to be done.
    #[default]
    Unknown,
    /// Its snapshot is there.
    Ready,
    /// Its blob is there (or is coming), to be unpacked onto its parent.
    Fetched,
    /// It is unpacked in a snapshot without parent.
    Apart(Arc<Draft>, Extracted),
}

impl Stage {
    pub(super) fn of(done: Option<(Arc<Draft>, Extracted)>) -> Self {
        done.map_or(Self::Fetched, |(draft, extracted)| {
            Self::Apart(draft, extracted)
        })
    }
}

impl Slot {
    pub(super) fn set(&self, stage: Stage) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stage = stage;
    }

    fn take_stage(&self) -> Stage {
        std::mem::take(
            &mut self
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .stage,
        )
    }

    fn set_flight(&self, flight: Option<Flight>) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flight = flight;
    }

    fn parent_key(&self) -> &str {
        self.parent.as_ref().map_or("", Digest::as_str)
    }
}

/// What is to be done for a layer.
#[derive(Debug)]
pub enum LayerWork {
    /// Nothing: blob and snapshot are here, or will be made when the chain is
    /// finished.
    Ready,
    /// The blob is here and has to be unpacked: run it.
    Unpack(LayerUnpack),
    /// The blob's bytes are wanted.
    Fetch(LayerFetch),
}

/// A stack of layers being unpacked. Dropping it leaves nothing half-made
/// (partial blobs stay for the next try).
pub struct Chain {
    slots: Vec<Arc<Slot>>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.slots.iter().map(|slot| &slot.layer.digest))
            .finish()
    }
}

impl Chain {
    pub(super) fn plan(
        unpacker: Unpacker,
        op: Operation,
        snapshots: Snapshots,
        layers: Vec<Layer>,
    ) -> Self {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let mut parent = None;
        let mut slots = Vec::with_capacity(layers.len());
        for (layer, chain_id) in layers.into_iter().zip(chain_ids(&diff_ids)) {
            slots.push(Arc::new(Slot {
                unpacker: unpacker.clone(),
                op: op.clone(),
                snapshots: snapshots.clone(),
                layer,
                chain_id: chain_id.clone(),
                parent: parent.replace(chain_id),
                state: Mutex::default(),
            }));
        }
        Self { slots }
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no layers.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Finds out what is to be done for the layer `index`. Waits while another
    /// chain unpacks the same layer stack or brings the same blob; take a
    /// place among the permitted downloads only after it has answered.
    pub async fn start(&self, index: usize) -> Result<LayerWork> {
        let slot = self.slots.get(index).ok_or_else(|| {
            Error::new(
                Kind::OutOfRange,
                format!("layer {index} of {}", self.slots.len()),
            )
        })?;
        let namespace = slot.op.namespace();
        slot.op.hold(Resource::Blob(slot.layer.digest.clone()));
        slot.op.hold(Resource::Snapshot {
            snapshotter: slot.snapshots.name().to_owned(),
            key: slot.chain_id.to_string(),
        });
        let place = (
            namespace.to_owned(),
            slot.snapshots.name(),
            slot.chain_id.clone(),
        );
        let flight = slot.unpacker.0.chains.enter(place).await;
        let unpacked = slot.snapshots.contains(namespace, slot.chain_id.as_str())?;
        // Who comes here later need not wait for what is done.
        slot.set_flight((!unpacked).then_some(flight));
        slot.set(if unpacked {
            Stage::Ready
        } else {
            Stage::Fetched
        });
        let apart = !unpacked && slot.snapshots.unpacks_apart();
        match self.open(slot, apart).await? {
            Some(fetch) => Ok(LayerWork::Fetch(fetch)),
            None if apart => Ok(LayerWork::Unpack(LayerUnpack(slot.clone()))),
            None => Ok(LayerWork::Ready),
        }
    }

    /// Opens the layer's blob for writing; `None` when it is here.
    async fn open(&self, slot: &Arc<Slot>, apart: bool) -> Result<Option<LayerFetch>> {
        let content = &slot.unpacker.0.content;
        let (namespace, layer) = (slot.op.namespace(), &slot.layer);
        if content.contains(namespace, &layer.digest)? {
            self.note_diff_id(slot)?;
            return Ok(None);
        }
        let reference = format!("layer-{}", layer.digest);
        let expected = Expected {
            digest: Some(layer.digest.clone()),
            size: Some(layer.size),
        };
        match content.reserve(&slot.op, &reference, expected).await? {
            Reserved::Exists(_) => {
                self.note_diff_id(slot)?;
                Ok(None)
            }
            Reserved::Place(place) => {
                // Bytes of an earlier try go through as well, so the threads
                // that unpack must be there before the writer is.
                let (extraction, tee) = match apart {
                    true => Extraction::start(slot)
                        .await
                        .map(|(e, t)| (Some(e), Some(t)))?,
                    false => (None, None),
                };
                let writer = place.start(tee)?;
                Ok(Some(LayerFetch {
                    slot: slot.clone(),
                    writer,
                    extraction,
                }))
            }
        }
    }

    fn note_diff_id(&self, slot: &Slot) -> Result<()> {
        let content = &slot.unpacker.0.content;
        let info = content.info(slot.op.namespace(), &slot.layer.digest)?;
        if info.labels.get(UNCOMPRESSED).map(String::as_str) == Some(slot.layer.diff_id.as_str())
            && slot
                .layer
                .labels
                .iter()
                .all(|label| info.labels.get_key_value(label.0) == Some(label))
        {
            return Ok(());
        }
        content
            .label(slot.op.namespace(), &slot.layer.digest, &slot.labels())
            .map(drop)
    }

    /// Puts all layers on top of one another and gives the key of the topmost
    /// snapshot (empty when there are no layers). Every layer must be done.
    pub async fn finish(self) -> Result<String> {
        for slot in &self.slots {
            let done = match slot.take_stage() {
                Stage::Ready => Ok(()),
                Stage::Unknown => Err(Error::internal(format!(
                    "layer {} was never started",
                    slot.layer.digest
                ))),
                Stage::Fetched => unpack_onto_parent(slot).await,
                Stage::Apart(draft, extracted) => match settle(slot, &draft, &extracted).await {
                    Ok(true) => commit(slot, &draft, Some(slot.parent_key())).await,
                    Ok(false) => {
                        drop(draft);
                        unpack_onto_parent(slot).await
                    }
                    Err(error) => Err(error),
                },
            };
            slot.set_flight(None);
            done?;
        }
        Ok(self
            .slots
            .last()
            .map(|slot| slot.chain_id.to_string())
            .unwrap_or_default())
    }
}

/// Gives the layer what it takes from its parents; `false` when it has to be
/// unpacked onto them.
async fn settle(slot: &Slot, draft: &Arc<Draft>, extracted: &Extracted) -> Result<bool> {
    let Some(parent) = &slot.parent else {
        return Ok(true);
    };
    if extracted.implicit.is_empty() {
        return Ok(true);
    }
    let below = slot
        .snapshots
        .open_tree(slot.op.namespace(), parent.as_str())
        .await?;
    let (path, implicit, layer) = (
        draft.fs()?,
        extracted.implicit.clone(),
        slot.layer.digest.clone(),
    );
    blocking(move || {
        open_root(&path)
            .and_then(|root| fixup::apply(&root, &implicit, &below))
            .map_err(|error| Error::io(format!("putting layer {layer} on the ones below"), error))
    })
    .await
}

/// Unpacks the layer from its blob onto the merged tree of its parents.
async fn unpack_onto_parent(slot: &Slot) -> Result<()> {
    let draft = Draft::prepare(slot, slot.parent_key()).await?;
    let root = slot
        .snapshots
        .open_tree_for_unpacking(slot.op.namespace(), &draft.key)
        .await?;
    let onto = if slot.parent.is_some() {
        Onto::Parent
    } else {
        Onto::Bottom
    };
    let (mut pipeline, tee) = Pipeline::start(slot.job(root, onto), draft.clone())?;
    slot.feed(tee)?;
    match pipeline.outcome().await? {
        Outcome::Done(_) => commit(slot, &draft, None).await,
        Outcome::NeedsParent => Err(Error::internal(format!(
            "layer {} asks for a parent that it has",
            slot.layer.digest
        ))),
    }
}

async fn commit(slot: &Slot, draft: &Arc<Draft>, parent: Option<&str>) -> Result<()> {
    let parent = parent
        .filter(|parent| !parent.is_empty())
        .map(str::to_owned);
    let how = Commit {
        labels: Labels::new(),
        parent,
    };
    fail::fail_point!("images.unpack.before-commit");
    match slot
        .snapshots
        .commit(&slot.op, slot.chain_id.as_str(), &draft.key, how)
        .await
    {
        Ok(()) => {
            draft.keep();
            Ok(())
        }
        // Another client of ours made it through the snapshot API meanwhile.
        Err(error) if error.kind() == Kind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
