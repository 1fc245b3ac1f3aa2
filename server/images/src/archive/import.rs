//! Reading archives (`load`).

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use davit_store::{Error, Kind, Result};
use tokio::io::AsyncRead;

use super::{layout::Listed, reader};
use crate::{
    Digest, Images, Progress, Reference,
    content::Labels,
    image::{
        ImportOptions, ImportProgress,
        layers::layers,
        names::{Pointing, event, familiar},
    },
    lease::{Operation, Resource},
    platform::Wanted,
    progress::{self, Reporter},
};

/// Bytes are told this often.
const TELL_EVERY: Duration = Duration::from_millis(100);

impl Images {
    /// Reads images from a tar (OCI layout or docker-archive; plain, gzip or
    /// zstd), without holding it in memory. `InvalidArgument` when it is
    /// neither, or is not what it says; nothing of it stays then.
    pub fn import(
        &self,
        namespace: &str,
        options: ImportOptions,
        data: impl AsyncRead + Send + 'static,
    ) -> Progress<ImportProgress> {
        let (images, namespace) = (self.clone(), namespace.to_owned());
        progress::run(move |reporter, _| async move {
            let op = images.leases().operation(&namespace);
            match images.import_all(&op, options, data, &reporter).await {
                Ok(()) => op.done(),
                Err(error) => {
                    op.discard()?;
                    Err(error)
                }
            }
        })
    }

    async fn import_all(
        &self,
        op: &Operation,
        options: ImportOptions,
        data: impl AsyncRead,
        reporter: &Reporter<ImportProgress>,
    ) -> Result<()> {
        let fallback = match options.fallback_name.as_str() {
            "" => None,
            name => Some(Reference::parse(name)?),
        };
        let (to, pieces) = reader::start()?;
        let told = Mutex::new(Instant::now());
        let total = AtomicU64::new(0);
        let tell = |bytes: u64| {
            total.store(bytes, Ordering::Relaxed);
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.elapsed() >= TELL_EVERY {
                *told = Instant::now();
                reporter.count(ImportProgress {
                    current: to_i64(bytes),
                    ..Default::default()
                });
            }
        };
        let take_in = async { self.take_in(op, pieces).await };
        let (_, contents) = tokio::try_join!(reader::pump(data, to, tell), take_in)?;
        fail::fail_point!("images.import.after-blobs");
        let mut listed = match (
            contents.document("index.json"),
            contents.document("manifest.json"),
        ) {
            (Some(text), _) => {
                self.layout_images(op, &contents, text, fallback.as_ref())
                    .await?
            }
            (None, Some(text)) => self.docker_images(op, &contents, text).await?,
            (None, None) => {
                return Err(Error::invalid(
                    "the archive is neither an OCI layout nor a docker-archive: it has no index.json and no manifest.json",
                ));
            }
        };
        name_the_nameless(&mut listed, fallback);
        let wanted = Wanted::new(options.platform.as_ref());
        let mut unpacked = HashSet::new();
        for listed in listed {
            let fresh = unpacked.insert(listed.target.digest.clone());
            let mut message = self.import_one(op, &listed, &wanted, fresh).await?;
            message.current = to_i64(total.load(Ordering::Relaxed));
            reporter.say(message);
        }
        Ok(())
    }

    /// Unpacks and records one image of an archive.
    async fn import_one(
        &self,
        op: &Operation,
        listed: &Listed,
        wanted: &Wanted,
        fresh: bool,
    ) -> Result<ImportProgress> {
        let namespace = op.namespace();
        op.hold(Resource::Blob(Digest::parse(&listed.target.digest)?));
        let facts = self
            .facts(namespace, &listed.target, wanted)
            .await
            .map_err(invalid)?;
        if fresh {
            for layer in &facts.layers {
                let info = self
                    .content()
                    .info(namespace, &Digest::parse(&layer.digest)?);
                let size = info
                    .as_ref()
                    .ok()
                    .and_then(|info| i64::try_from(info.size).ok());
                if size != Some(layer.size) {
                    return Err(Error::invalid(format!(
                        "the archive does not have layer {} of image {}",
                        layer.digest, facts.config.digest
                    )));
                }
            }
            let layers = layers(&facts.layers, &facts.diff_ids)?;
            let key = self
                .run_layers(op, layers, None, |_, _| ())
                .await
                .map_err(invalid)?;
            fail::fail_point!("images.import.after-layers");
            self.keep_snapshot(op, &facts.config.digest, &key)?;
        }
        let told = match listed.name.as_str() {
            "" => String::new(),
            name => familiar(name),
        };
        self.point(Pointing {
            namespace,
            name: &listed.name,
            target: &listed.target,
            image_id: &facts.config.digest,
            labels: Labels::new(),
            event: event(namespace, "load", &facts.config.digest, &told),
        })
        .await?;
        let found = match listed.name.as_str() {
            "" => self.find(namespace, &listed.target.digest).await?,
            name => self.find(namespace, name).await?,
        };
        Ok(ImportProgress {
            current: 0,
            image: Some(self.image_of(namespace, &found, wanted).await?),
            name: listed.name.clone(),
        })
    }
}

/// The caller's name is for the one image that has none.
fn name_the_nameless(listed: &mut [Listed], fallback: Option<Reference>) {
    let mut nameless = listed.iter_mut().filter(|listed| listed.name.is_empty());
    if let (Some(fallback), Some(only), None) = (fallback, nameless.next(), nameless.next()) {
        only.name = fallback.or_latest().to_string();
    }
}

/// What is wrong with an archive is the caller's to mend.
fn invalid(error: Error) -> Error {
    match error.kind() {
        Kind::DataLoss | Kind::NotFound | Kind::FailedPrecondition => {
            Error::invalid(format!("the archive: {}", error.chain()))
        }
        _ => error,
    }
}

fn to_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
