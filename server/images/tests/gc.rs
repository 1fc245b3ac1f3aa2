//! Garbage collection: what is held stays, whoever holds it, and what is not goes, from the disk too.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use davit_images::{Digest, Kind, Operation, Resource, content::Labels};
use jiff::Timestamp;
use support::{Home, NS, fixture::noise};

async fn put(home: &Home, op: &Operation, bytes: &[u8], labels: Labels) -> Digest {
    let content = home.images.content();
    let blob = content.put(op, Bytes::copy_from_slice(bytes), None, labels);
    blob.await.unwrap().digest
}

fn has(home: &Home, digest: &Digest) -> bool {
    home.images.content().contains(NS, digest).unwrap()
}

async fn collect(home: &Home) -> davit_images::gc::Collected {
    home.images.collector().run().await.unwrap()
}

/// Bytes of all files below `dir`.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test]
async fn what_nobody_holds_goes_and_the_disk_is_free() {
    let home = Home::new().await;
    let root = home.path().join("root/content");
    let before = bytes_below(&root);
    let op = home.images.leases().operation(NS);
    let digest = put(&home, &op, &noise(1, 100_000), Labels::new()).await;
    collect(&home).await;
    assert!(has(&home, &digest), "an operation holds it");
    assert!(bytes_below(&root) >= before + 100_000);
    drop(op);
    let collected = collect(&home).await;
    // The collector in the background may have been first.
    assert!(collected.bytes == 100_000 || collected.blobs.is_empty());
    assert!(!has(&home, &digest));
    assert_eq!(bytes_below(&root), before);
}

#[tokio::test]
async fn a_lease_holds_until_it_is_deleted_or_over() {
    let home = Home::new().await;
    let leases = home.images.leases();
    leases.create(NS, "kept", BTreeMap::new(), None).unwrap();
    let soon = Timestamp::now()
        .checked_add(Duration::from_millis(300))
        .unwrap();
    leases
        .create(NS, "short", BTreeMap::new(), Some(soon))
        .unwrap();
    let mut digests = Vec::new();
    for (number, lease) in ["kept", "short"].into_iter().enumerate() {
        let op = leases.operation_in(NS, lease).unwrap();
        digests.push(put(&home, &op, &noise(number as u64 + 7, 1000), Labels::new()).await);
    }
    collect(&home).await;
    assert!(has(&home, &digests[0]));
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while has(&home, &digests[1]) {
        assert!(
            std::time::Instant::now() < end,
            "a lease that is over still holds"
        );
        collect(&home).await;
        tokio::task::yield_now().await;
    }
    assert!(Timestamp::now() >= soon, "collected before its time");
    assert_eq!(leases.get(NS, "short").unwrap_err().kind(), Kind::NotFound);
    assert!(has(&home, &digests[0]));
    leases.delete(NS, "kept").unwrap();
    collect(&home).await;
    assert!(!has(&home, &digests[0]));
}

#[tokio::test]
async fn a_blob_holds_what_its_labels_name() {
    let home = Home::new().await;
    let leases = home.images.leases();
    leases.create(NS, "l", BTreeMap::new(), None).unwrap();
    let op = leases.operation(NS);
    let layer = put(&home, &op, b"layer", Labels::new()).await;
    let config = put(&home, &op, b"config", Labels::new()).await;
    let loose = put(&home, &op, b"loose", Labels::new()).await;
    let labels = Labels::from([
        (
            "containerd.io/gc.ref.content.config".to_owned(),
            config.to_string(),
        ),
        (
            "containerd.io/gc.ref.content.l.0".to_owned(),
            layer.to_string(),
        ),
    ]);
    let manifest = put(&home, &op, b"manifest", labels).await;
    leases
        .add(NS, "l", &Resource::Blob(manifest.clone()))
        .unwrap();
    drop(op);
    collect(&home).await;
    assert!(
        [&manifest, &config, &layer]
            .into_iter()
            .all(|digest| has(&home, digest))
    );
    assert!(!has(&home, &loose));
    leases.delete(NS, "l").unwrap();
    collect(&home).await;
    assert!(
        ![&manifest, &config, &layer]
            .into_iter()
            .any(|digest| has(&home, digest))
    );
}

#[tokio::test]
async fn a_snapshot_in_use_holds_its_parents() {
    let home = Home::new().await;
    let leases = home.images.leases();
    leases
        .create(NS, "container", BTreeMap::new(), None)
        .unwrap();
    let snapshots = home.images.snapshots("").unwrap().clone();
    let op = leases.operation(NS);
    snapshots
        .prepare(&op, "making", "", Labels::new())
        .await
        .unwrap();
    snapshots
        .commit(&op, "base", "making", Default::default())
        .await
        .unwrap();
    let top = leases.operation_in(NS, "container").unwrap();
    snapshots
        .prepare(&top, "top", "base", Labels::new())
        .await
        .unwrap();
    let dirs = snapshots.layer_paths(NS, "top").unwrap();
    drop((op, top));
    collect(&home).await;
    assert!(snapshots.contains(NS, "base").unwrap() && snapshots.contains(NS, "top").unwrap());
    leases.delete(NS, "container").unwrap();
    collect(&home).await;
    assert!(!snapshots.contains(NS, "base").unwrap() && !snapshots.contains(NS, "top").unwrap());
    assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_never_takes_what_is_being_brought_in() {
    let home = Arc::new(Home::new().await);
    let writers = (0..8).map(|writer| {
        let home = Arc::clone(&home);
        tokio::spawn(async move {
            for round in 0..40 {
                let op = home.images.leases().operation(NS);
                // The same few blobs again and again: one's garbage is another's new blob.
                let digest = put(
                    &home,
                    &op,
                    &noise((writer + round) % 5 + 100, 5000),
                    Labels::new(),
                )
                .await;
                tokio::task::yield_now().await;
                let read = home.images.content().read(NS, &digest, 10_000).await;
                assert_eq!(read.unwrap().len(), 5000);
                drop(op);
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    while writers.iter().any(|writer| !writer.is_finished()) {
        collect(&home).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    collect(&home).await;
    assert!(home.images.content().list(NS).unwrap().is_empty());
}
