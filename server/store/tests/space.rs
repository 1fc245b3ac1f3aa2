//! The store stays small however many containers came and went.
//!
//! `DAVIT_STORE_LIFECYCLES=100000` sets the number of lifecycles.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use davit_store::{
    NewEvent, Options, Store,
    table::{ContainerRecord, Containers, IntentRecord, Intents, SnapshotRecord, Snapshots},
};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

const DEFAULT_LIFECYCLES: u64 = 10_000;
const LIMIT: u64 = 64 << 20;

fn container(id: &str) -> ContainerRecord {
    let mut record = ContainerRecord {
        id: id.to_owned(),
        image: "docker.io/library/busybox:latest".to_owned(),
        snapshotter: "overlayfs".to_owned(),
        snapshot_key: id.to_owned(),
        ..ContainerRecord::default()
    };
    // About 4 kB, as labels, environment and mounts are.
    for n in 0..40u64 {
        let value = format!("{id}-{n}-{}", "v".repeat(20));
        record
            .labels
            .insert(format!("com.example.label.{n}"), value);
    }
    record
}

fn event(id: &str, action: &str) -> NewEvent {
    NewEvent {
        namespace: "default".to_owned(),
        kind: "container".to_owned(),
        action: action.to_owned(),
        id: id.to_owned(),
        attributes: BTreeMap::from([
            (
                "image".to_owned(),
                "docker.io/library/busybox:latest".to_owned(),
            ),
            ("name".to_owned(), format!("test-{id}")),
            ("exitCode".to_owned(), "0".to_owned()),
        ]),
    }
}

/// What the engine does for create, start, exit and remove: six transactions.
fn lifecycle(store: &Store, n: u64) {
    let id = format!(
        "{:064x}",
        u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834)
    );
    let key = ("default", id.as_str());
    let snapshot = ("default", "overlayfs", id.as_str());
    let mut record = container(&id);
    let intent = |kind: &str| IntentRecord {
        id: format!("{kind}-{id}"),
        kind: kind.to_owned(),
        object: id.clone(),
        ..IntentRecord::default()
    };
    let creating = intent("container.create");
    let starting = intent("container.start");
    let step = |change: &dyn Fn(&davit_store::Tx<'_>) -> davit_store::Result<()>| {
        store.transaction(|tx| change(tx)).unwrap();
    };
    step(&|tx| {
        tx.put::<Intents>(&creating.id, &creating)?;
        tx.put::<Snapshots>(snapshot, &SnapshotRecord::default())
    });
    step(&|tx| {
        tx.delete::<Intents>(&creating.id)?;
        tx.put::<Containers>(key, &record)?;
        tx.event(event(&id, "create")).map(drop)
    });
    step(&|tx| tx.put::<Intents>(&starting.id, &starting));
    record.sandbox_id = "running".to_owned();
    step(&|tx| {
        tx.delete::<Intents>(&starting.id)?;
        tx.put::<Containers>(key, &record)?;
        tx.event(event(&id, "start")).map(drop)
    });
    record.sandbox_id = "exited".to_owned();
    step(&|tx| {
        tx.put::<Containers>(key, &record)?;
        tx.event(event(&id, "die")).map(drop)
    });
    step(&|tx| {
        tx.delete::<Containers>(key)?;
        tx.delete::<Snapshots>(snapshot)?;
        tx.event(event(&id, "destroy")).map(drop)
    });
}

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes that this process has written.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find(|l| l.starts_with("wchar:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn blob_files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("sled/blobs")).unwrap().count()
}

#[tokio::test]
async fn many_lifecycles_stay_small() {
    let lifecycles =
        std::env::var("DAVIT_STORE_LIFECYCLES").map_or(DEFAULT_LIFECYCLES, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let options = Options {
        // Old events must go by number here; nothing gets a week old.
        event_max_age: Duration::from_secs(3600),
        ..Options::default()
    };
    let store = Store::open(&path, options.clone()).unwrap().store;
    let keep = "kept".to_owned();
    let kept = container(&keep);
    store
        .transaction(|tx| tx.put::<Containers>(("default", &keep), &kept))
        .unwrap();
    let before = Instant::now();
    let mut peak = 0;
    for n in 0..lifecycles {
        lifecycle(&store, n);
        if n % 10 == 0 {
            store.durable().await.unwrap();
        }
        if n % 1000 == 0 {
            let bytes = store.disk_bytes().unwrap();
            peak = peak.max(bytes);
            assert!(bytes < LIMIT, "{bytes} bytes after {n} lifecycles");
            assert_eq!(blob_files(&path), 0, "sled spilled a page");
        }
    }
    let took = before.elapsed();
    let log = written() / lifecycles;
    store.durable().await.unwrap();
    let bytes = store.disk_bytes().unwrap();
    let found = store.verify().unwrap();
    println!(
        "{lifecycles} lifecycles in {took:.1?}: {bytes} bytes (peak {peak}), {} KiB resident, {log} bytes of log each, {:?}, {} events",
        resident(),
        store.stats(),
        found.events,
    );
    assert!(bytes.max(peak) < LIMIT);
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.last_event, lifecycles * 4);
    assert!(found.events <= 20_000 + 300);
    store.close().unwrap();
    let before = Instant::now();
    let opened = Store::open(&path, options).unwrap();
    println!(
        "opened again in {:.1?}, {} bytes",
        before.elapsed(),
        opened.store.disk_bytes().unwrap()
    );
    assert_eq!(opened.condition, davit_store::Condition::Existing);
    assert_eq!(
        opened.store.get::<Containers>(("default", &keep)).unwrap(),
        Some(kept)
    );
    assert_eq!(opened.store.scan::<Containers>(()).unwrap().len(), 1);
}
