//! What images cost on disk.

use std::collections::{BTreeMap, BTreeSet};

use davit_store::Result;

use super::{DiskUsage, ImageUsage, lookup::Group};
use crate::{Digest, Images, platform::Wanted};

/// A thing on disk that images may share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Blob(Digest),
    Layer(Digest),
}

impl Images {
    /// What the images of a namespace cost on disk.
    pub async fn disk_usage(&self, namespace: &str) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        for blob in self.content().list(namespace)? {
            usage.blobs += to_i64(blob.size);
        }
        for ingest in self.content().ingests(namespace)? {
            usage.ingests += to_i64(ingest.offset);
        }
        let snapshots = self.snapshots("")?;
        for info in snapshots.walk(namespace)? {
            if let Ok(used) = snapshots.usage(namespace, &info.key).await {
                usage.snapshots += to_i64(used.size);
            }
        }
        let users = self.users(namespace)?;
        let groups = self.groups(namespace).await?;
        let pieces = self.pieces(namespace, &groups).await?;
        let holders = holders(&pieces);
        let mut unused = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            let wanted = Wanted::new(None);
            let Ok(image) = self.view(namespace, group, None, &wanted, &users).await else {
                continue;
            };
            if image.containers == 0 {
                unused.push(index);
            }
            let mut entry = ImageUsage {
                image,
                unique: 0,
                shared: 0,
            };
            for (piece, size) in &pieces[index] {
                let alone = holders.get(piece).is_some_and(|holders| holders.len() == 1);
                let sum = if alone {
                    &mut entry.unique
                } else {
                    &mut entry.shared
                };
                *sum += to_i64(*size);
            }
            usage.images.push(entry);
        }
        usage.reclaimable = to_i64(bytes_of_only(&pieces, &unused.into_iter().collect()));
        Ok(usage)
    }

    /// Bytes that would be free if these images, and no others, went.
    pub(crate) async fn unique_bytes(&self, namespace: &str, going: &[Group]) -> Result<u64> {
        let groups = self.groups(namespace).await?;
        let pieces = self.pieces(namespace, &groups).await?;
        let goes = |group: &Group| {
            going
                .iter()
                .any(|other| other.target.digest == group.target.digest)
        };
        let indices = groups.iter().enumerate().filter(|(_, group)| goes(group));
        Ok(bytes_of_only(
            &pieces,
            &indices.map(|(index, _)| index).collect(),
        ))
    }

    /// What each image has on disk, with its bytes.
    async fn pieces(&self, namespace: &str, groups: &[Group]) -> Result<Vec<BTreeMap<Piece, u64>>> {
        let mut all = Vec::new();
        for group in groups {
            let mut pieces = BTreeMap::new();
            self.add_blob(namespace, &mut pieces, &group.target.digest);
            for manifest in self
                .manifests(namespace, &group.target, 0)
                .await
                .unwrap_or_default()
            {
                self.add_blob(namespace, &mut pieces, &manifest.digest);
                let Ok(facts) = self.manifest_facts(namespace, &manifest).await else {
                    continue;
                };
                self.add_blob(namespace, &mut pieces, &facts.config.digest);
                for (layer, chain_id) in facts.layers.iter().zip(&facts.chain) {
                    self.add_blob(namespace, &mut pieces, &layer.digest);
                    if let Some(size) = self.layer_size(namespace, chain_id).await {
                        pieces.insert(Piece::Layer(chain_id.clone()), size);
                    }
                }
            }
            all.push(pieces);
        }
        Ok(all)
    }

    fn add_blob(&self, namespace: &str, pieces: &mut BTreeMap<Piece, u64>, digest: &str) {
        let Ok(digest) = Digest::parse(digest) else {
            return;
        };
        if let Ok(info) = self.content().info(namespace, &digest) {
            pieces.insert(Piece::Blob(digest), info.size);
        }
    }
}

fn holders(pieces: &[BTreeMap<Piece, u64>]) -> BTreeMap<Piece, BTreeSet<usize>> {
    let mut holders: BTreeMap<Piece, BTreeSet<usize>> = BTreeMap::new();
    for (index, own) in pieces.iter().enumerate() {
        for piece in own.keys() {
            holders.entry(piece.clone()).or_default().insert(index);
        }
    }
    holders
}

/// Bytes of what only the images at `going` have.
fn bytes_of_only(pieces: &[BTreeMap<Piece, u64>], going: &BTreeSet<usize>) -> u64 {
    let holders = holders(pieces);
    let mut counted = BTreeSet::new();
    let mut bytes = 0;
    for &index in going {
        for (piece, size) in &pieces[index] {
            let only = holders
                .get(piece)
                .is_some_and(|holders| holders.is_subset(going));
            if only && counted.insert(piece.clone()) {
                bytes += size;
            }
        }
    }
    bytes
}

fn to_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
