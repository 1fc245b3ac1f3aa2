//! Comparing records with what is on disk, mending what differs, and making
//! the records again when the store was lost.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use davit_store::{
    Result,
    table::{BlobRecord, Blobs, Images as ImageTable, Ingests, Snapshots as SnapshotTable},
};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    Digest, Images,
    content::{
        Labels, blocking, ensure_namespace,
        labels::{GC_REF_CONTENT, GC_ROOT, UNCOMPRESSED, child_labels, snapshot_label},
    },
    digest::{Hasher, chain_ids},
    image::Rebuilt,
};

/// Documents above this are no manifests or configs.
const MAX_DOCUMENT: u64 = 8 << 20;

impl Images {
    /// Records again what lies on disk, after the store was lost: image names
    /// from their copy, the blobs that they refer to, and snapshots from their
    /// own notes. What is recorded already stays as it is.
    /// Blocks. Only before garbage collection runs: what that has just forgotten would be found on its way out.
    pub(crate) fn rebuild(&self) -> Result<Rebuilt> {
        let mut rebuilt = Rebuilt::default();
        for name in self.0.names.read() {
            let (namespace, record) = (name.namespace, name.record);
            let Ok(target) = Digest::parse(&record.target.digest) else {
                continue;
            };
            if self.0.content.files().size(&target)?.is_none() {
                rebuilt.lost.push((namespace, record.name));
                continue;
            }
            rebuilt.blobs += self.rebuild_blobs(&namespace, &target)?;
            let key = (namespace.as_str(), record.name.as_str());
            let added = self.0.store.transaction(|tx| {
                if tx.contains::<ImageTable>(key)? {
                    return Ok(false);
                }
                ensure_namespace(tx, &namespace)?;
                tx.put::<ImageTable>(key, &record)?;
                Ok(true)
            })?;
            rebuilt.images += usize::from(added);
        }
        for snapshots in &self.0.snapshots {
            snapshots.rebuild()?;
        }
        Ok(rebuilt)
    }

    /// Records a blob and all that it refers to, as far as they are there.
    fn rebuild_blobs(&self, namespace: &str, top: &Digest) -> Result<usize> {
        let mut added = 0;
        let mut seen = HashSet::new();
        let mut todo = vec![(top.clone(), Labels::new())];
        while let Some((digest, mut labels)) = todo.pop() {
            let Some(size) = self
                .0
                .content
                .files()
                .size(&digest)?
                .filter(|_| seen.insert(digest.clone()))
            else {
                continue;
            };
            let document = self.small_document(&digest, size);
            labels.extend(child_labels(&document));
            todo.extend(self.children(&document, &labels));
            if let Some(config) = diff_ids(&document)
                && let Some(chain) = chain_ids(&config).last()
            {
                labels.extend([snapshot_label(
                    self.0.config.snapshotter.as_str(),
                    chain.as_str(),
                )]);
            }
            let now = Timestamp::now();
            let record = BlobRecord {
                digest: digest.to_string(),
                size,
                labels,
                created_at: now,
                updated_at: now,
            };
            let key = (namespace, &digest);
            added += self.0.store.transaction(|tx| {
                if tx.contains::<Blobs>(key)? {
                    return Ok(0);
                }
                ensure_namespace(tx, namespace)?;
                tx.put::<Blobs>(key, &record)?;
                Ok(1)
            })?;
        }
        Ok(added)
    }

    /// The bytes of a blob that may be a manifest or config: small and JSON.
    fn small_document(&self, digest: &Digest, size: u64) -> Vec<u8> {
        if size > MAX_DOCUMENT {
            return Vec::new();
        }
        let bytes = std::fs::read(self.0.content.files().blob(digest)).unwrap_or_default();
        if bytes.first() == Some(&b'{') {
            bytes
        } else {
            Vec::new()
        }
    }

    /// What a document refers to, layers with the digest of their tar.
    fn children(&self, document: &[u8], labels: &Labels) -> Vec<(Digest, Labels)> {
        let config = labels
            .get(&format!("{GC_REF_CONTENT}.config"))
            .and_then(|text| Digest::parse(text).ok());
        let config = config.and_then(|digest| {
            let size = self.0.content.files().size(&digest).ok()??;
            diff_ids(&self.small_document(&digest, size))
        });
        let mut found = Vec::new();
        for (key, value) in child_labels(document) {
            let Ok(digest) = Digest::parse(&value) else {
                continue;
            };
            let layer = key
                .rsplit_once(".l.")
                .and_then(|(_, n)| n.parse::<usize>().ok());
            let diff_id = layer.zip(config.as_ref()).and_then(|(n, ids)| ids.get(n));
            let labels = diff_id
                .map(|id| (UNCOMPRESSED.to_owned(), id.to_string()))
                .into_iter()
                .collect();
            found.push((digest, labels));
        }
        found
    }

    /// Compares records with blobs, names and snapshots on disk: one sentence
    /// for each thing that is wrong. With `repair` it is mended too. Every
    /// blob is read and hashed.
    pub async fn check(&self, repair: bool) -> Result<Vec<String>> {
        let this = self.clone();
        let mut problems = blocking(move || this.check_blobs(repair)).await?;
        let this = self.clone();
        problems.extend(blocking(move || this.check_names(repair)).await?);
        for snapshots in &self.0.snapshots {
            let (snapshots, this) = (snapshots.clone(), self.clone());
            problems.extend(blocking(move || snapshots.check(&this.0.content, repair)).await?);
        }
        if repair {
            for snapshots in &self.0.snapshots {
                snapshots.sync().await?;
            }
            self.0.store.durable().await?;
        }
        Ok(problems)
    }

    fn check_blobs(&self, repair: bool) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        let mut by_digest: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        for ((namespace, digest), record) in self.0.store.scan::<Blobs>(())? {
            by_digest
                .entry(digest)
                .or_default()
                .push((namespace, record.size));
        }
        for (text, owners) in &by_digest {
            let Some(wrong) = self.wrong_with(text, owners[0].1)? else {
                continue;
            };
            problems.push(format!("blob {text} {wrong}"));
            if !repair {
                continue;
            }
            for (namespace, _) in owners {
                self.0
                    .store
                    .transaction(|tx| tx.delete::<Blobs>((namespace, text)))?;
            }
            if let Ok(digest) = Digest::parse(text) {
                self.0.content.files().remove(&digest)?;
            }
        }
        for digest in self.0.content.files().all_blobs()? {
            if !by_digest.contains_key(digest.as_str()) {
                problems.push(format!("blob {digest} is on disk but in no namespace"));
                if repair {
                    self.0.content.files().remove(&digest)?;
                }
            }
        }
        let ingests = self.0.store.scan::<Ingests>(())?;
        let known: HashSet<String> = ingests.into_iter().map(|(_, record)| record.dir).collect();
        for name in self.0.content.files().all_ingests()? {
            if !known.contains(&name) {
                problems.push(format!("the partial download {name} belongs to nothing"));
                if repair {
                    self.0.content.files().remove_ingest(&name)?;
                }
            }
        }
        Ok(problems)
    }

    /// What is wrong with a blob's file.
    fn wrong_with(&self, text: &str, size: u64) -> Result<Option<String>> {
        let Ok(digest) = Digest::parse(text) else {
            return Ok(Some("has no digest that can be".into()));
        };
        match self.0.content.files().size(&digest)? {
            None => return Ok(Some("has no file".into())),
            Some(found) if found != size => {
                return Ok(Some(format!("has {found} bytes on disk instead of {size}")));
            }
            Some(_) => {}
        }
        let mut hasher = Hasher::new(digest.algorithm());
        let path = self.0.content.files().blob(&digest);
        let mut file = std::fs::File::open(&path).map_err(|error| {
            davit_store::Error::io(format!("opening {}", path.display()), error)
        })?;
        let mut block = vec![0; 1 << 20];
        loop {
            match std::io::Read::read(&mut file, &mut block) {
                Ok(0) => break,
                Ok(n) => hasher.update(&block[..n]),
                Err(error) => return Ok(Some(format!("can't be read: {error}"))),
            }
        }
        Ok((hasher.finish() != digest)
            .then(|| "does not have the bytes that its digest says".into()))
    }

    fn check_names(&self, repair: bool) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for ((namespace, name), record) in self.0.store.scan::<ImageTable>(())? {
            let missing = self.missing_blobs(&namespace, &record.target.digest)?;
            for digest in missing {
                problems.push(format!(
                    "image {name:?} of namespace {namespace:?} lacks {digest}: pull it again"
                ));
            }
        }
        let (recorded, copied) = (self.0.names.recorded()?, self.0.names.read());
        if recorded != copied {
            problems.push("the copy of the image names is out of date".into());
            if repair {
                self.0.names.write()?;
            }
        }
        Ok(problems)
    }

    /// Blobs that an image refers to and its namespace does not have.
    /// Manifests of an index that were never fetched are no loss.
    fn missing_blobs(&self, namespace: &str, target: &str) -> Result<BTreeSet<String>> {
        let mut missing = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut todo = vec![target.to_owned()];
        while let Some(digest) = todo.pop() {
            let Some(record) = self.0.store.get::<Blobs>((namespace, &digest))? else {
                missing.insert(digest);
                continue;
            };
            for (key, value) in &record.labels {
                let manifest_of_index = key.starts_with(&format!("{GC_REF_CONTENT}.m."));
                if key.starts_with(GC_REF_CONTENT) && seen.insert(value.clone()) {
                    let known = self.0.store.contains::<Blobs>((namespace, value))?;
                    if known || !manifest_of_index {
                        todo.push(value.clone());
                    }
                }
            }
        }
        Ok(missing)
    }

    /// Whether nothing at all is recorded although there are files: the store
    /// was lost or moved away.
    pub(crate) fn looks_lost(&self) -> Result<bool> {
        let store = &self.0.store;
        let recorded = store.scan_after::<Blobs>((), None, 1)?.len()
            + store.scan_after::<SnapshotTable>((), None, 1)?.len()
            + store.scan_after::<ImageTable>((), None, 1)?.len();
        if recorded > 0 {
            return Ok(false);
        }
        let mut files = !self.0.content.files().all_blobs()?.is_empty();
        for snapshots in &self.0.snapshots {
            files |= !snapshots.numbers()?.is_empty();
        }
        Ok(files)
    }
}

/// The diff ids of an image config; `None` for anything else.
fn diff_ids(document: &[u8]) -> Option<Vec<Digest>> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        diff_ids: Vec<Digest>,
    }
    serde_json::from_slice::<Config>(document)
        .ok()
        .map(|config| config.rootfs.diff_ids)
}

/// Marks what was rebuilt and has no owner any more, so that it is not taken
/// for garbage: the files that a container wrote exist nowhere else.
pub(crate) fn keep_for_ever(labels: &mut Labels) {
    labels.insert(GC_ROOT.to_owned(), Timestamp::now().to_string());
}
