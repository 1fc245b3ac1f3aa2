//! Pulling: from a name to an image that is unpacked and recorded.
//!
//! ```text
//! resolve ─► index ─► manifest ─► config ─► layers (all at once) ─► snapshots
//!                                                                      │
//!                                   name and event, one transaction ◄──┘
//! ```
//!
//! Everything is held by one operation until the name refers to it. A pull
//! that fails or is cancelled leaves its blobs and partial layers to the next
//! try, for as long as the configuration says.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use davit_store::{
    Error, Kind, Result,
    descriptor::{Descriptor, Platform},
    table::Images as Table,
};

use crate::{
    Digest, Images, Progress, Reference,
    content::Labels,
    image::{
        LayerStep, PullProgress, PullRequest, PullStage, RegistryAuth,
        facts::{Facts, MAX_DOCUMENT, is_attestation, parse_index, parse_manifest},
        layers::layers,
        names::{Pointing, event},
    },
    labels,
    lease::{Operation, Resource},
    media,
    platform::{self, Wanted},
    progress::{self, Reporter},
    registry::Repository,
};

/// Bytes of a layer are told this often.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Indexes within indexes.
const MAX_DEPTH: usize = 3;

/// One reference being pulled.
struct Pull<'a> {
    images: &'a Images,
    op: &'a Operation,
    repository: &'a Repository,
    wanted: &'a Wanted,
    tell: Tell,
}

/// Reports on one reference.
struct Tell {
    reporter: Reporter<PullProgress>,
    reference: String,
    /// When bytes were told last, by layer.
    told: Mutex<HashMap<usize, Instant>>,
    /// Something came over the network.
    brought: AtomicBool,
}

impl Images {
    /// Pulls an image and unpacks it; the last message has the image.
    /// `NotFound` when the registry has none, `Unauthenticated` when it wants
    /// other credentials.
    pub fn pull(&self, namespace: &str, request: PullRequest) -> Progress<PullProgress> {
        let (images, namespace) = (self.clone(), namespace.to_owned());
        progress::run(move |reporter, _| async move {
            images.pull_all(&namespace, request, reporter).await
        })
    }

    async fn pull_all(
        &self,
        namespace: &str,
        request: PullRequest,
        reporter: Reporter<PullProgress>,
    ) -> Result<()> {
        let reference = Reference::parse(&request.reference)?;
        let auth = request.auth.as_ref();
        let platform = request.platform.as_ref();
        if !request.all_tags {
            return self
                .pull_one(namespace, reference.or_latest(), platform, auth, reporter)
                .await;
        }
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(Error::invalid("tag can't be used with --all-tags/-a"));
        }
        let tags = self.registry().repository(&reference, auth)?.tags().await?;
        if tags.is_empty() {
            return Err(Error::not_found(format!(
                "{} has no tags",
                reference.familiar_name()
            )));
        }
        for tag in tags {
            let reference = reference.with_tag(&tag)?;
            self.pull_one(namespace, reference, platform, auth, reporter.clone())
                .await?;
        }
        Ok(())
    }

    async fn pull_one(
        &self,
        namespace: &str,
        reference: Reference,
        platform: Option<&Platform>,
        auth: Option<&RegistryAuth>,
        reporter: Reporter<PullProgress>,
    ) -> Result<()> {
        let repository = self.registry().repository(&reference, auth)?;
        let familiar = reference.familiar();
        let op = self.leases().recorded_operation(
            namespace,
            &format!("pull {familiar}"),
            self.config().partial_ttl,
        )?;
        let pull = Pull {
            images: self,
            op: &op,
            repository: &repository,
            wanted: &Wanted::new(platform),
            tell: Tell {
                reporter,
                reference: familiar,
                told: Mutex::default(),
                brought: AtomicBool::new(false),
            },
        };
        pull.tell.say(
            PullStage::Resolved,
            format!("Pulling from {}", reference.path()),
        );
        match pull.run(&reference).await {
            Ok(()) => op.done(),
            Err(error) => {
                // What is broken or hostile is not worth keeping for a next try.
                if !may_help_to_try_again(error.kind())
                    && let Err(error) = op.discard()
                {
                    // It expires; why the pull failed is what the caller has to hear.
                    tracing::warn!(
                        error = error.chain(),
                        "letting go of what a failed pull brought in"
                    );
                }
                Err(error)
            }
        }
    }
}

/// Whether what has come in may be of use to another try.
fn may_help_to_try_again(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Unavailable
            | Kind::DeadlineExceeded
            | Kind::Cancelled
            | Kind::Unauthenticated
            | Kind::PermissionDenied
            | Kind::Internal
    )
}

impl Pull<'_> {
    async fn run(&self, reference: &Reference) -> Result<()> {
        let namespace = self.op.namespace();
        let name = reference.clone().into_record_name().to_string();
        let before = self
            .images
            .store()
            .get::<Table>((namespace, name.as_str()))?;
        let target = self
            .target(reference, before.as_ref().map(|record| &record.target))
            .await?;
        let manifest = self
            .manifest_for(&target, 0)
            .await?
            .ok_or_else(|| self.no_match(reference))?;
        let facts = self.facts(&manifest).await?;
        self.check_platform(reference, &facts)?;
        let key = self.layers(&facts).await?;
        fail::fail_point!("images.pull.after-layers");
        self.images
            .keep_snapshot(self.op, &facts.config.digest, &key)?;
        self.note_sources(&target, &facts)?;
        let image_id = &facts.config.digest;
        let familiar = reference.clone().into_record_name().familiar();
        let told = event(namespace, "pull", &familiar, &reference.familiar_name());
        self.images
            .point(Pointing {
                namespace,
                name: &name,
                target: &target,
                image_id,
                labels: Labels::new(),
                event: told,
            })
            .await?;
        let up_to_date = before.is_some_and(|before| before.target.digest == target.digest)
            && !self.tell.brought.load(Ordering::Relaxed);
        let status = if up_to_date {
            "Image is up to date for"
        } else {
            "Downloaded newer image for"
        };
        let found = self.images.find(namespace, &name).await?;
        self.tell.reporter.say(PullProgress {
            stage: PullStage::Done,
            message: format!("{status} {familiar}"),
            image: Some(self.images.image_of(namespace, &found, self.wanted).await?),
            up_to_date,
            reference: self.tell.reference.clone(),
            ..PullProgress::default()
        });
        Ok(())
    }

    /// What the reference points to. An image that is here is only asked
    /// after, since registries count the manifests that they hand out.
    async fn target(
        &self,
        reference: &Reference,
        known: Option<&Descriptor>,
    ) -> Result<Descriptor> {
        if let Some(digest) = reference.digest() {
            if let Some(target) = self.local(digest, "").await? {
                return Ok(target);
            }
        } else if let Some(known) = known {
            let digest = Digest::parse(&known.digest)?;
            if self.repository.head(reference.target()).await? == Some(digest.clone())
                && let Some(target) = self.local(&digest, &known.media_type).await?
            {
                return Ok(target);
            }
        }
        let fetched = self.repository.manifest(reference.target()).await?;
        self.store_manifest(&fetched.digest, &fetched.media_type, fetched.bytes)
            .await
    }

    /// A manifest or index that is here already.
    async fn local(&self, digest: &Digest, media_type: &str) -> Result<Option<Descriptor>> {
        self.op.hold(Resource::Blob(digest.clone()));
        let namespace = self.op.namespace();
        if !self.images.content().contains(namespace, digest)? {
            return Ok(None);
        }
        // One that was damaged on disk is fetched again.
        let Ok(bytes) = self
            .images
            .content()
            .read(namespace, digest, MAX_DOCUMENT)
            .await
        else {
            return Ok(None);
        };
        let Ok(media_type) = media::of_manifest(media_type, &bytes) else {
            return Ok(None);
        };
        Ok(Some(descriptor(digest, &media_type, bytes.len())))
    }

    async fn store_manifest(
        &self,
        digest: &Digest,
        media_type: &str,
        bytes: bytes::Bytes,
    ) -> Result<Descriptor> {
        let mut blob_labels = labels::source(self.repository.name());
        blob_labels.extend(if media::is_index(media_type) {
            labels::of_index(&parse_index(digest.as_str(), &bytes)?)
        } else {
            let parts = parse_manifest(digest.as_str(), &bytes)?;
            labels::of_manifest(&parts.config, &parts.layers)
        });
        let target = descriptor(digest, media_type, bytes.len());
        // What was known about an existing blob must not be lost.
        let source = labels::source(self.repository.name());
        if self
            .images
            .content()
            .contains(self.op.namespace(), digest)?
        {
            blob_labels.retain(|label, _| !source.contains_key(label));
        }
        self.images
            .content()
            .put(self.op, bytes, Some(digest), blob_labels)
            .await?;
        Ok(target)
    }

    /// The manifest for the wanted platform, fetched if it is not here.
    async fn manifest_for(&self, target: &Descriptor, depth: usize) -> Result<Option<Descriptor>> {
        if !media::is_index(&target.media_type) {
            return Ok(Some(target.clone()));
        }
        let entries = self
            .images
            .index_entries(self.op.namespace(), target)
            .await?;
        let mut fitting: Vec<_> = entries
            .iter()
            .filter(|entry| !is_attestation(entry))
            .filter_map(|entry| {
                let rank = match &entry.platform {
                    Some(platform) => self.wanted.rank(platform)?,
                    // Its config tells; what says that it fits comes first.
                    None => u32::MAX,
                };
                Some((rank, entry.clone()))
            })
            .collect();
        fitting.sort_by_key(|(rank, _)| *rank);
        for (_, entry) in fitting {
            if depth >= MAX_DEPTH {
                break;
            }
            let fetched = self.entry(&entry).await?;
            let found = Box::pin(self.manifest_for(&fetched, depth + 1)).await?;
            let Some(found) = found else { continue };
            if entry.platform.is_some() || media::is_index(&entry.media_type) {
                return Ok(Some(found));
            }
            let facts = self.facts(&found).await?;
            if self.wanted.rank(&facts.platform()).is_some() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// An entry of an index, fetched if it is not here.
    async fn entry(&self, entry: &Descriptor) -> Result<Descriptor> {
        let digest = Digest::parse(&entry.digest)?;
        let here = match self.local(&digest, &entry.media_type).await? {
            Some(here) => here,
            None => {
                let fetched = self.repository.manifest(digest.as_str()).await?;
                self.store_manifest(&fetched.digest, &fetched.media_type, fetched.bytes)
                    .await?
            }
        };
        if here.size != entry.size {
            return Err(Error::new(
                Kind::DataLoss,
                format!(
                    "manifest {digest} has {} bytes; its index says {}",
                    here.size, entry.size
                ),
            ));
        }
        Ok(Descriptor {
            platform: entry.platform.clone(),
            ..here
        })
    }

    /// Manifest and config, checked against each other.
    async fn facts(&self, manifest: &Descriptor) -> Result<std::sync::Arc<Facts>> {
        let namespace = self.op.namespace();
        let digest = Digest::parse(&manifest.digest)?;
        let bytes = self.images.document(namespace, &digest).await?;
        let parts = parse_manifest(&manifest.digest, &bytes)?;
        let config = Digest::parse(&parts.config.digest)?;
        self.op.hold(Resource::Blob(config.clone()));
        let here = self
            .images
            .content()
            .read(namespace, &config, MAX_DOCUMENT)
            .await
            .is_ok();
        if !here {
            let size = u64::try_from(parts.config.size).unwrap_or(0);
            let json = self
                .repository
                .small_blob(&config, size, MAX_DOCUMENT)
                .await?;
            // It must say what the manifest says before it is kept.
            self.tell.brought.store(true, Ordering::Relaxed);
            Facts::new(manifest.clone(), parts, &json)?;
            let source = labels::source(self.repository.name());
            self.images
                .content()
                .put(self.op, json, Some(&config), source)
                .await?;
        }
        self.images.manifest_facts(namespace, manifest).await
    }

    async fn layers(&self, facts: &Facts) -> Result<String> {
        if let Some(foreign) = facts
            .layers
            .iter()
            .find(|layer| layer.media_type.contains("foreign"))
        {
            tracing::debug!(
                layer = foreign.digest,
                "a layer that its registry may not have"
            );
        }
        let wanted = layers(&facts.layers, &facts.diff_ids)?;
        let step = |index: usize, step: LayerStep| {
            if let Some(layer) = facts.layers.get(index) {
                self.tell.layer(index, layer, step);
            }
        };
        self.images
            .run_layers(self.op, wanted, Some(self.repository), step)
            .await
    }

    /// Notes that the repository has all of these blobs.
    fn note_sources(&self, target: &Descriptor, facts: &Facts) -> Result<()> {
        let blobs = [target, &facts.manifest, &facts.config];
        for blob in blobs.into_iter().chain(&facts.layers) {
            let digest = Digest::parse(&blob.digest)?;
            labels::add_source(
                self.images.content(),
                self.op,
                &digest,
                self.repository.name(),
            )?;
        }
        Ok(())
    }

    /// An image without an index says only in its config what it is for.
    fn check_platform(&self, reference: &Reference, facts: &Facts) -> Result<()> {
        let actual = facts.platform();
        if !self.wanted.is_strict() || self.wanted.rank(&actual).is_some() {
            return Ok(());
        }
        Err(Error::not_found(format!(
            "image with reference {} was found but does not match the specified platform: wanted {}, actual: {}",
            reference.familiar(),
            platform::format(self.wanted.platform()),
            platform::format(&actual)
        )))
    }

    fn no_match(&self, reference: &Reference) -> Error {
        Error::not_found(format!(
            "no matching manifest for {} in the manifest list entries of {}",
            platform::format(self.wanted.platform()),
            reference.familiar()
        ))
    }
}

impl Tell {
    fn say(&self, stage: PullStage, message: String) {
        self.reporter.say(PullProgress {
            stage,
            message,
            reference: self.reference.clone(),
            ..PullProgress::default()
        });
    }

    fn layer(&self, index: usize, layer: &Descriptor, step: LayerStep) {
        let total = layer.size;
        let (stage, current) = match step {
            LayerStep::Queued => (PullStage::Queued, 0),
            LayerStep::Exists => (PullStage::Exists, total),
            LayerStep::Downloading(done) => (PullStage::Downloading, to_i64(done)),
            LayerStep::Downloaded => {
                self.brought.store(true, Ordering::Relaxed);
                (PullStage::Downloaded, total)
            }
            LayerStep::Extracting(done) => (PullStage::Extracting, to_i64(done)),
            LayerStep::Complete => (PullStage::Complete, total),
        };
        let message = PullProgress {
            stage,
            layer: layer.digest.clone(),
            current,
            total,
            reference: self.reference.clone(),
            ..PullProgress::default()
        };
        let counts = matches!(stage, PullStage::Downloading | PullStage::Extracting);
        if counts && current != 0 {
            if self.is_due(index) {
                self.reporter.count(message);
            }
        } else {
            self.reporter.say(message);
        }
    }

    fn is_due(&self, index: usize) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told
            .get(&index)
            .is_some_and(|&at| now.duration_since(at) < TELL_EVERY)
        {
            return false;
        }
        told.insert(index, now);
        true
    }
}

fn descriptor(digest: &Digest, media_type: &str, size: usize) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        ..Descriptor::default()
    }
}

fn to_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
