//! Pushing: the bytes of an image, as they are, to a registry.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use davit_store::{Error, Kind, Result, descriptor::Descriptor, table::Images as Table};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};

use crate::{
    Digest, Images, Progress, Reference,
    image::{PushProgress, PushRequest, PushStage, facts::parse_manifest, names::event},
    labels,
    lease::{Operation, Resource},
    media, platform,
    progress::{self, Reporter},
    registry::{OpenBlob, Repository, Sent},
};

/// Bytes of a blob are told this often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What is to be sent for one reference.
struct Plan {
    reference: Reference,
    /// What the name points to, or the only manifest of it that is here.
    target: Descriptor,
    /// Manifests and indexes, each after what it refers to; the target last.
    manifests: Vec<Descriptor>,
    /// Configs and layers.
    blobs: Vec<Descriptor>,
    /// Said with the result.
    note: String,
}

/// All of one push.
struct Push<'a> {
    images: &'a Images,
    op: &'a Operation,
    reporter: Reporter<PushProgress>,
    /// Repositories that got a blob in this push, by (registry, digest).
    sent: Mutex<HashMap<(String, String), Vec<String>>>,
}

impl Images {
    /// Sends images to their registry, byte for byte. A message with stage
    /// `Done` ends each reference. `NotFound` when a name does not exist,
    /// `Unauthenticated` when the registry wants other credentials.
    pub fn push(&self, namespace: &str, request: PushRequest) -> Progress<PushProgress> {
        let (images, namespace) = (self.clone(), namespace.to_owned());
        progress::run(move |reporter, _| async move {
            let op = images.leases().operation(&namespace);
            let references = images.to_push(&namespace, &request)?;
            let push = Push {
                images: &images,
                op: &op,
                reporter,
                sent: Mutex::default(),
            };
            // Credentials belong to the registry of the name they came with.
            let domain = references.first().map(|first| first.domain().to_owned());
            for reference in references {
                let auth = request
                    .auth
                    .as_ref()
                    .filter(|_| Some(reference.domain()) == domain.as_deref());
                let repository = images.registry().repository(&reference, auth)?;
                push.one(reference, &repository).await?;
            }
            Ok(())
        })
    }

    /// The names to push, all of which exist.
    fn to_push(&self, namespace: &str, request: &PushRequest) -> Result<Vec<Reference>> {
        let first = Reference::parse(&request.reference)?;
        let mut references = Vec::new();
        if request.all_tags {
            if first.tag().is_some() || first.digest().is_some() {
                return Err(Error::invalid("tag can't be used with --all-tags/-a"));
            }
            for record in self.records(namespace)? {
                if let Ok(name) = Reference::parse(&record.name)
                    && name.name() == first.name()
                    && name.tag().is_some()
                {
                    references.push(name);
                }
            }
            if references.is_empty() {
                return Err(Error::not_found(format!(
                    "An image does not exist locally with the tag: {}",
                    first.familiar_name()
                )));
            }
        } else {
            references.push(first.or_latest());
        }
        for more in &request.more_references {
            references.push(Reference::parse(more)?.or_latest());
        }
        if references
            .iter()
            .any(|reference| reference.digest().is_some())
        {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        Ok(references)
    }
}

impl Push<'_> {
    async fn one(&self, reference: Reference, repository: &Repository) -> Result<()> {
        let namespace = self.op.namespace();
        let familiar = reference.familiar();
        let record = self
            .images
            .store()
            .get::<Table>((namespace, reference.to_string().as_str()))?
            .ok_or_else(|| {
                Error::not_found(format!(
                    "An image does not exist locally with the tag: {familiar}"
                ))
            })?;
        let plan = self.plan(reference, &record.target, repository).await?;
        for blob in &plan.blobs {
            self.say(&plan, PushStage::Queued, blob, 0, String::new());
        }
        let uploads: Vec<BoxFuture<'_, Result<()>>> = plan
            .blobs
            .iter()
            .map(|blob| self.blob(&plan, blob, repository).boxed())
            .collect();
        // The places are shared by the daemon; this only bounds who waits.
        futures::stream::iter(uploads)
            .buffer_unordered(16)
            .try_collect::<()>()
            .await?;
        fail::fail_point!("images.push.after-blobs");
        for manifest in &plan.manifests {
            let is_target = manifest.digest == plan.target.digest;
            let place = if is_target {
                plan.reference.target()
            } else {
                &manifest.digest
            };
            let bytes = self
                .images
                .document(namespace, &Digest::parse(&manifest.digest)?)
                .await?;
            repository
                .put_manifest(place, &manifest.media_type, bytes)
                .await?;
        }
        self.finish(&plan, repository).await
    }

    /// Records where everything is now, tells, and says so.
    async fn finish(&self, plan: &Plan, repository: &Repository) -> Result<()> {
        let namespace = self.op.namespace();
        let known = plan.blobs.iter().chain(&plan.manifests);
        for blob in known {
            let digest = Digest::parse(&blob.digest)?;
            labels::add_source(self.images.content(), self.op, &digest, repository.name())?;
        }
        let familiar = plan.reference.familiar();
        let told = event(
            namespace,
            "push",
            &familiar,
            &plan.reference.familiar_name(),
        );
        self.images.store().transaction(|tx| tx.event(told))?;
        let mut message = format!(
            "{}: digest: {} size: {}",
            plan.reference.tag().unwrap_or_default(),
            plan.target.digest,
            plan.target.size
        );
        if !plan.note.is_empty() {
            message = format!("{message} ({})", plan.note);
        }
        self.say(
            plan,
            PushStage::Done,
            &plan.target,
            plan.target.size,
            message,
        );
        Ok(())
    }

    /// Finds out what has to be sent. Of an index all platforms that are here
    /// are sent; those that are not must be in the registry already, or the
    /// index can't be pushed: then its only image is, as docker does.
    async fn plan(
        &self,
        reference: Reference,
        target: &Descriptor,
        repository: &Repository,
    ) -> Result<Plan> {
        let mut plan = Plan {
            reference,
            target: target.clone(),
            manifests: Vec::new(),
            blobs: Vec::new(),
            note: String::new(),
        };
        let mut missing = Vec::new();
        self.collect(&mut plan, target, &mut missing, 0).await?;
        let mut lacking = Vec::new();
        for entry in missing {
            if !repository
                .has_manifest(&Digest::parse(&entry.digest)?)
                .await?
            {
                lacking.push(entry);
            }
        }
        if !lacking.is_empty() {
            self.only_image(&mut plan, &lacking)?;
        }
        let mut seen = HashSet::new();
        plan.blobs.retain(|blob| seen.insert(blob.digest.clone()));
        let mut seen = HashSet::new();
        plan.manifests
            .retain(|manifest| seen.insert(manifest.digest.clone()));
        Ok(plan)
    }

    fn only_image(&self, plan: &mut Plan, lacking: &[Descriptor]) -> Result<()> {
        let mut images = plan
            .manifests
            .iter()
            .filter(|one| media::is_manifest(&one.media_type));
        let (Some(only), None) = (images.next().cloned(), images.next()) else {
            let names: Vec<_> = lacking
                .iter()
                .filter_map(|entry| entry.platform.as_ref())
                .map(platform::format)
                .collect();
            return Err(Error::precondition(format!(
                "{}: the index lists images that are not here ({}); pull them (--platform) before pushing it",
                plan.reference.familiar(),
                names.join(", ")
            )));
        };
        plan.note = "only this platform of the index is here".to_owned();
        plan.manifests = vec![only.clone()];
        plan.target = only;
        Ok(())
    }

    /// Adds a manifest or index and what it refers to.
    async fn collect(
        &self,
        plan: &mut Plan,
        target: &Descriptor,
        missing: &mut Vec<Descriptor>,
        depth: usize,
    ) -> Result<()> {
        let namespace = self.op.namespace();
        let digest = Digest::parse(&target.digest)?;
        self.op.hold(Resource::Blob(digest.clone()));
        if depth > 0 && !self.images.content().contains(namespace, &digest)? {
            missing.push(target.clone());
            return Ok(());
        }
        let bytes = self.images.document(namespace, &digest).await?;
        let media_type = media::of_manifest(&target.media_type, &bytes)?;
        if media::is_index(&media_type) && depth < 3 {
            let target = Descriptor {
                media_type: media_type.clone(),
                ..target.clone()
            };
            for entry in self.images.index_entries(namespace, &target).await?.iter() {
                Box::pin(self.collect(plan, entry, missing, depth + 1)).await?;
            }
        } else {
            // Attestations are manifests of other things, and go along.
            let (config, layers) = match parse_manifest(&target.digest, &bytes) {
                Ok(parts) => (parts.config, parts.layers),
                Err(_) => any_parts(&target.digest, &bytes)?,
            };
            for blob in layers.into_iter().chain([config]) {
                // Layers that must not be passed on stay where they are.
                let bound = blob.media_type.contains("nondistributable")
                    || blob.media_type.contains("foreign");
                if !bound {
                    plan.blobs.push(blob);
                }
            }
        }
        plan.manifests.push(Descriptor {
            media_type,
            ..target.clone()
        });
        Ok(())
    }

    async fn blob(&self, plan: &Plan, blob: &Descriptor, repository: &Repository) -> Result<()> {
        let _place = self.images.upload_place().await?;
        let namespace = self.op.namespace();
        let digest = Digest::parse(&blob.digest)?;
        let info = self
            .images
            .content()
            .info(namespace, &digest)
            .map_err(|error| {
                error.context(format!("{}: a blob is missing", plan.reference.familiar()))
            })?;
        let name = repository.name();
        let key = (name.domain().to_owned(), blob.digest.clone());
        let mut from = self.sent().get(&key).cloned().unwrap_or_default();
        if from.iter().any(|path| path == name.path()) {
            self.say(plan, PushStage::Exists, blob, blob.size, String::new());
            return Ok(());
        }
        from.extend(labels::sources(&info.labels, name.domain()));
        from.retain(|path| path != name.path());
        let progress = Arc::new(AtomicU64::new(0));
        let upload = repository.upload(
            &digest,
            info.size,
            self.opener(&digest),
            &from,
            progress.clone(),
        );
        let sent = self.watched(plan, blob, &progress, upload).await?;
        self.sent()
            .entry(key)
            .or_default()
            .push(name.path().to_owned());
        let (stage, message) = match sent {
            Sent::Exists => (PushStage::Exists, String::new()),
            Sent::Mounted(from) => (PushStage::Mounted, from),
            Sent::Uploaded => (PushStage::Pushed, String::new()),
        };
        self.say(plan, stage, blob, blob.size, message);
        Ok(())
    }

    /// Waits for an upload and tells how far it is.
    async fn watched<T>(
        &self,
        plan: &Plan,
        blob: &Descriptor,
        progress: &AtomicU64,
        upload: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut upload = std::pin::pin!(upload);
        let mut told = 0;
        loop {
            tokio::select! {
                sent = &mut upload => return sent,
                () = tokio::time::sleep(TELL_EVERY) => {}
            }
            let now = progress.load(Ordering::Relaxed);
            if now != told {
                told = now;
                let current = i64::try_from(now).unwrap_or(i64::MAX);
                self.reporter
                    .count(message(plan, PushStage::Uploading, blob, current));
            }
        }
    }

    fn opener(&self, digest: &Digest) -> OpenBlob {
        let (content, digest) = (self.images.content().clone(), digest.clone());
        let namespace = self.op.namespace().to_owned();
        Arc::new(move || Ok(content.stream(&namespace, &digest, 0)?.boxed()))
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Vec<String>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, plan: &Plan, stage: PushStage, blob: &Descriptor, current: i64, text: String) {
        self.reporter.say(PushProgress {
            message: text,
            ..message(plan, stage, blob, current)
        });
    }
}

fn message(plan: &Plan, stage: PushStage, blob: &Descriptor, current: i64) -> PushProgress {
    PushProgress {
        stage,
        digest: blob.digest.clone(),
        current,
        total: blob.size,
        message: String::new(),
        reference: plan.reference.familiar(),
    }
}

/// Config and layers of any manifest, image or not.
fn any_parts(digest: &str, bytes: &[u8]) -> Result<(Descriptor, Vec<Descriptor>)> {
    use crate::image::facts::WireDescriptor;
    #[derive(serde::Deserialize)]
    struct Wire {
        config: WireDescriptor,
        #[serde(default)]
        layers: Vec<WireDescriptor>,
    }
    let wire: Wire = serde_json::from_slice(bytes).map_err(|error| {
        Error::new(Kind::DataLoss, format!("{digest} is no valid manifest")).with_source(error)
    })?;
    let layers = wire
        .layers
        .into_iter()
        .map(|layer| layer.checked(digest))
        .collect::<Result<_>>()?;
    Ok((wire.config.checked(digest)?, layers))
}
