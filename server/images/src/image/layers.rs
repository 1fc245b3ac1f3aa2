//! Bringing in and unpacking the layers of one image.

use davit_store::{Error, Kind, Result, descriptor::Descriptor};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};

use bytes::Bytes;

use crate::{
    Digest, Images,
    content::Labels,
    lease::Operation,
    registry::{Repository, Sink},
    unpack::{Layer, LayerFetch, LayerUnpack, LayerWork},
};

/// How far one layer is; bytes are those of its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerStep {
    /// It waits for its turn.
    Queued,
    /// It was here already.
    Exists,
    /// Bytes have come in (and are being unpacked as they come).
    Downloading(u64),
    /// All bytes are here and right.
    Downloaded,
    /// Bytes have been unpacked.
    Extracting(u64),
    /// It is unpacked.
    Complete,
}

/// An image's layers as the unpacker wants them.
pub(crate) fn layers(layers: &[Descriptor], diff_ids: &[Digest]) -> Result<Vec<Layer>> {
    let layer = |(layer, diff_id): (&Descriptor, &Digest)| {
        Ok(Layer {
            digest: Digest::parse(&layer.digest)?,
            size: u64::try_from(layer.size).unwrap_or(0),
            media_type: layer.media_type.clone(),
            diff_id: diff_id.clone(),
            // Where it came from is noted when all is here.
            labels: Labels::new(),
        })
    };
    layers.iter().zip(diff_ids).map(layer).collect()
}

impl Images {
    /// Brings in what is missing `from` a repository, and unpacks everything;
    /// gives the key of the topmost snapshot. `step` is told how far the layer
    /// with an index is. Without a repository, `NotFound` for a missing blob.
    pub(crate) async fn run_layers(
        &self,
        op: &Operation,
        layers: Vec<Layer>,
        from: Option<&Repository>,
        step: impl Fn(usize, LayerStep) + Send + Sync,
    ) -> Result<String> {
        let count = layers.len();
        for (index, layer) in layers.iter().enumerate() {
            if !self.content().contains(op.namespace(), &layer.digest)? {
                step(index, LayerStep::Queued);
            }
        }
        let chain = self
            .unpacker()
            .chain(op, self.snapshots("")?, layers)
            .await?;
        {
            let mut running: FuturesUnordered<BoxFuture<'_, Result<()>>> = FuturesUnordered::new();
            let mut next = 0;
            // Layers are started one after the other, from the bottom: two
            // pulls of images that share layers then wait for each other in
            // one order, and never in a circle. What is started runs on
            // meanwhile, since the next one may wait for its blob.
            let mut starting = (next < count).then(|| chain.start(next).boxed());
            while starting.is_some() || !running.is_empty() {
                tokio::select! {
                    Some(work) = OptionFuture::from(starting.as_mut()), if starting.is_some() => {
                        let work = self.layer_work(next, work?, from, &step);
                        running.push(work.boxed());
                        next += 1;
                        starting = (next < count).then(|| chain.start(next).boxed());
                    }
                    Some(done) = running.next(), if !running.is_empty() => done?,
                }
            }
        }
        chain.finish().await
    }

    async fn layer_work(
        &self,
        index: usize,
        work: LayerWork,
        from: Option<&Repository>,
        step: &(impl Fn(usize, LayerStep) + Send + Sync),
    ) -> Result<()> {
        match work {
            LayerWork::Ready => step(index, LayerStep::Exists),
            LayerWork::Unpack(work) => self.unpack_layer(index, work, step).await?,
            LayerWork::Fetch(fetch) => {
                let from = from.ok_or_else(|| missing(fetch.layer()))?;
                self.fetch_layer(index, fetch, from, step).await?;
            }
        }
        Ok(())
    }

    async fn unpack_layer(
        &self,
        index: usize,
        work: LayerUnpack,
        step: &(impl Fn(usize, LayerStep) + Send + Sync),
    ) -> Result<()> {
        step(index, LayerStep::Extracting(0));
        work.run(|done| step(index, LayerStep::Extracting(done)))
            .await?;
        step(index, LayerStep::Complete);
        Ok(())
    }

    async fn fetch_layer(
        &self,
        index: usize,
        fetch: LayerFetch,
        from: &Repository,
        step: &(impl Fn(usize, LayerStep) + Send + Sync),
    ) -> Result<()> {
        let _place = self.download_place().await?;
        let (digest, size) = (fetch.layer().digest.clone(), fetch.layer().size);
        step(index, LayerStep::Downloading(fetch.offset()));
        let mut sink = LayerSink {
            fetch,
            tell: |done| step(index, LayerStep::Downloading(done)),
        };
        from.download(&digest, size, &mut sink).await?;
        fail::fail_point!("images.pull.after-layer-bytes");
        sink.fetch
            .finish()
            .await
            .map_err(|error| match error.kind() {
                // To content it is a writer's broken promise; here the registry's.
                Kind::FailedPrecondition => Error::new(Kind::DataLoss, error.chain()),
                _ => error,
            })?;
        step(index, LayerStep::Downloaded);
        step(index, LayerStep::Complete);
        Ok(())
    }
}

fn missing(layer: &Layer) -> Error {
    Error::not_found(format!(
        "the blob of layer {} is missing: pull the image again",
        layer.digest
    ))
}

/// A layer as a download sees it.
struct LayerSink<F> {
    fetch: LayerFetch,
    tell: F,
}

impl<F: Fn(u64) + Send> Sink for LayerSink<F> {
    fn offset(&self) -> u64 {
        self.fetch.offset()
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.fetch.write(bytes).await?;
        (self.tell)(self.fetch.offset());
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.fetch.restart().await
    }
}
