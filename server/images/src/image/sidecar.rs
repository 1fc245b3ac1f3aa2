//! Image names in a file of their own, so that a lost store can be made anew:
//! `<root>/images/<namespace>.json`, written after each change of a name.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use davit_store::{
    Error, Result,
    descriptor::Descriptor,
    table::{ImageRecord, Images as Table},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Rebuilt, facts::MAX_DOCUMENT};
use crate::{
    Digest, Images,
    content::{Expected, Labels, Opened, blocking},
    labels,
    lease::Operation,
    media,
};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 256 << 20;

#[derive(Serialize, Deserialize, Default)]
struct File {
    images: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    labels: Labels,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// Where it came from: labels of the target's blob.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    sources: Labels,
}

impl Images {
    /// Writes the names of a namespace as they are now.
    pub(crate) async fn save_names(&self, namespace: &str) -> Result<()> {
        let _turn = self.sidecar_turn().await;
        let entries = self.records(namespace)?.into_iter().map(|record| {
            let mut sources = self.target_labels(namespace, &record.target);
            sources.retain(|label, _| label.starts_with(labels::SOURCE));
            Entry {
                name: record.name,
                media_type: record.target.media_type,
                digest: record.target.digest,
                size: record.target.size,
                labels: record.labels,
                created_at: record.created_at,
                updated_at: record.updated_at,
                sources,
            }
        });
        let file = File { images: entries.collect() };
        let text = serde_json::to_vec_pretty(&file)
            .map_err(|error| Error::internal("image names can't be written").with_source(error))?;
        let path = self.sidecar_path(namespace);
        blocking(move || write(&path, &text)).await
    }

    /// Records the names and blobs again that lie on disk, after the store was
    /// lost. Snapshots are unpacked again when they are needed.
    pub async fn rebuild(&self) -> Result<Rebuilt> {
        let mut rebuilt = Rebuilt::default();
        for (namespace, path) in self.sidecars()? {
            let file = match read(&path) {
                Ok(file) => file,
                Err(error) => {
                    tracing::warn!(path = %path.display(), error = error.chain(), "image names can't be read");
                    continue;
                }
            };
            let op = self.leases().operation(&namespace);
            for entry in file.images {
                let name = entry.name.clone();
                match self.restore(&op, entry).await {
                    Ok(blobs) => {
                        rebuilt.images += 1;
                        rebuilt.blobs += blobs;
                    }
                    Err(error) => {
                        tracing::warn!(namespace, name, error = error.chain(), "image lost");
                        rebuilt.lost.push((namespace.clone(), name));
                    }
                }
            }
        }
        self.store().durable().await?;
        Ok(rebuilt)
    }

    /// Records one image again; gives the number of its blobs.
    async fn restore(&self, op: &Operation, entry: Entry) -> Result<usize> {
        let target = Descriptor {
            media_type: entry.media_type,
            digest: entry.digest,
            size: entry.size,
            ..Descriptor::default()
        };
        let blobs = self.adopt_tree(op, &target, entry.sources, 0).await?;
        let record = ImageRecord {
            name: entry.name,
            target,
            labels: entry.labels,
            created_at: entry.created_at,
            updated_at: entry.updated_at,
        };
        self.store().transaction(|tx| tx.put::<Table>((op.namespace(), &record.name), &record))?;
        Ok(blobs)
    }

    /// Records a blob and all that it refers to, as far as they are on disk.
    async fn adopt_tree(
        &self,
        op: &Operation,
        target: &Descriptor,
        sources: Labels,
        depth: usize,
    ) -> Result<usize> {
        let digest = self.adopt(op, target, sources).await?;
        let bytes = self.content().read(op.namespace(), &digest, MAX_DOCUMENT).await?;
        let mut count = 1;
        if media::is_index(&media::of_manifest(&target.media_type, &bytes)?) {
            let entries = super::facts::parse_index(&target.digest, &bytes)?;
            self.content().label(op.namespace(), &digest, &labels::of_index(&entries))?;
            let mut found = 0;
            for entry in entries.iter().filter(|_| depth < 3) {
                match Box::pin(self.adopt_tree(op, entry, Labels::new(), depth + 1)).await {
                    Ok(blobs) => found += blobs,
                    // Other platforms' manifests need not be here.
                    Err(error) => tracing::debug!(digest = entry.digest, %error, "not here"),
                }
            }
            if found == 0 {
                return Err(Error::not_found("none of its images is on disk"));
            }
            return Ok(count + found);
        }
        let parts = super::facts::parse_manifest(&target.digest, &bytes)?;
        self.content().label(
            op.namespace(),
            &digest,
            &labels::of_manifest(&parts.config, &parts.layers),
        )?;
        self.adopt(op, &parts.config, Labels::new()).await?;
        for layer in &parts.layers {
            self.adopt(op, layer, Labels::new()).await?;
            count += 1;
        }
        Ok(count + 1)
    }

    /// Records a blob whose file is on disk.
    async fn adopt(&self, op: &Operation, blob: &Descriptor, labels: Labels) -> Result<Digest> {
        let digest = Digest::parse(&blob.digest)?;
        let expected =
            Expected { digest: Some(digest.clone()), size: u64::try_from(blob.size).ok() };
        let reference = format!("rebuild-{digest}");
        match self.content().writer(op, &reference, expected).await? {
            Opened::Exists(_) => {}
            Opened::Writer(writer) => {
                writer.abort().await?;
                return Err(Error::not_found(format!("blob {digest} is not on disk")));
            }
        }
        if !labels.is_empty() {
            self.content().label(op.namespace(), &digest, &labels)?;
        }
        Ok(digest)
    }

    fn sidecar_dir(&self) -> PathBuf {
        self.config().root.join("images")
    }

    /// Namespaces are plain identifiers; one that came from elsewhere must not
    /// name another place.
    fn sidecar_path(&self, namespace: &str) -> PathBuf {
        self.sidecar_dir().join(format!("{}.json", namespace.replace('/', "%2F")))
    }

    fn sidecars(&self) -> Result<Vec<(String, PathBuf)>> {
        let dir = self.sidecar_dir();
        let failed = |error| Error::io(format!("can't list {}", dir.display()), error);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            if let (true, Some(stem)) = (is_json, path.file_stem().and_then(|stem| stem.to_str())) {
                found.push((stem.replace("%2F", "/"), path.clone()));
            }
        }
        found.sort();
        Ok(found)
    }
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    let failed = |error| Error::io(format!("can't write {}", path.display()), error);
    let dir = path.parent().ok_or_else(|| Error::internal("a file without a directory"))?;
    fs::create_dir_all(dir).map_err(failed)?;
    let aside = path.with_extension("json.new");
    let mut file = fs::File::create(&aside).map_err(failed)?;
    file.write_all(text).map_err(failed)?;
    // A power cut leaves the old file or the new one, not an empty one.
    file.sync_data().map_err(failed)?;
    fs::rename(&aside, path).map_err(failed)
}

fn read(path: &Path) -> Result<File> {
    let failed = |error| Error::io(format!("can't read {}", path.display()), error);
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(Error::invalid(format!("{} is too large", path.display())));
    }
    serde_json::from_slice(&fs::read(path).map_err(failed)?)
        .map_err(|error| Error::invalid(format!("{} is damaged", path.display())).with_source(error))
}
