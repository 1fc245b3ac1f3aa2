//! Transactions, scans, events and durability, as callers see them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use davit_store::{
    Condition, Error, From, Item, Kind, NewEvent, Options, Store,
    table::{
        ContainerRecord, Containers, ImageRecord, Images, IntentRecord, Intents, Namespaces,
        SnapshotRecord, Snapshots,
    },
};
use std::{path::Path, time::Duration};

fn open(dir: &Path) -> Store {
    Store::open(dir.join("store"), Options::default())
        .unwrap()
        .store
}

fn image(name: &str) -> ImageRecord {
    ImageRecord {
        name: name.to_owned(),
        ..ImageRecord::default()
    }
}

fn event(action: &str) -> NewEvent {
    NewEvent {
        namespace: "default".to_owned(),
        kind: "container".to_owned(),
        action: action.to_owned(),
        id: "c1".to_owned(),
        ..NewEvent::default()
    }
}

async fn next(stream: &mut davit_store::EventStream) -> Item {
    tokio::time::timeout(Duration::from_secs(10), stream.next())
        .await
        .expect("an event in time")
        .expect("the store is open")
}

async fn next_action(stream: &mut davit_store::EventStream) -> (u64, String) {
    match next(stream).await {
        Item::Event(event) => (event.number, event.action.clone()),
        lagged @ Item::Lagged { .. } => panic!("{lagged:?}"),
    }
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let failed: Result<(), Error> = store.transaction(|tx| {
        tx.put::<Images>(("a", "x"), &image("x"))?;
        tx.event(event("pull"))?;
        assert!(tx.contains::<Images>(("a", "x"))?);
        Err(Error::precondition("no"))
    });
    assert_eq!(failed.unwrap_err().kind(), Kind::FailedPrecondition);
    assert!(!store.contains::<Images>(("a", "x")).unwrap());
    assert_eq!(store.events().last_number(), 0);

    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.transaction(|tx| -> Result<(), Error> {
            tx.put::<Images>(("a", "x"), &image("x"))?;
            panic!("in the middle")
        })
    }));
    assert!(panicked.is_err());
    assert!(!store.contains::<Images>(("a", "x")).unwrap());

    let number = store
        .transaction(|tx| {
            tx.put::<Images>(("a", "x"), &image("x"))?;
            tx.event(event("pull"))
        })
        .unwrap();
    assert_eq!(number, 1);
    assert_eq!(store.get::<Images>(("a", "x")).unwrap().unwrap().name, "x");
}

#[test]
fn scans_keep_namespaces_apart_and_see_own_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store
        .transaction(|tx| {
            for (ns, name) in [("a", "2"), ("a", "1"), ("ab", "3"), ("", "0")] {
                tx.put::<Images>((ns, name), &image(name))?;
            }
            tx.put::<Snapshots>(("a", "overlayfs", "k"), &SnapshotRecord::default())?;
            tx.put::<Snapshots>(("a", "native", "k"), &SnapshotRecord::default())
        })
        .unwrap();
    let names = |found: Vec<((String, String), ImageRecord)>| {
        found.into_iter().map(|(_, r)| r.name).collect::<Vec<_>>()
    };
    assert_eq!(names(store.scan::<Images>("a").unwrap()), ["1", "2"]);
    assert_eq!(
        names(store.scan::<Images>(()).unwrap()),
        ["0", "1", "2", "3"]
    );
    assert_eq!(store.scan::<Snapshots>(("a", "native")).unwrap().len(), 1);
    assert_eq!(store.scan::<Snapshots>("a").unwrap().len(), 2);
    assert!(store.scan::<Namespaces>(()).unwrap().is_empty());
    store
        .transaction(|tx| {
            tx.put::<Images>(("a", "0"), &image("0"))?;
            assert!(tx.delete::<Images>(("a", "2"))?);
            assert!(!tx.delete::<Images>(("a", "2"))?);
            assert_eq!(names(tx.scan::<Images>("a")?), ["0", "1"]);
            let again = tx.insert::<Images>(("a", "1"), &image("1")).unwrap_err();
            assert_eq!(again.kind(), Kind::AlreadyExists);
            Ok(())
        })
        .unwrap();
    let mut walked = Vec::new();
    let mut after = None;
    loop {
        let page = store.scan_after::<Images>((), after.as_ref(), 2).unwrap();
        let Some((key, _)) = page.last() else { break };
        after = Some(key.clone());
        walked.extend(page.into_iter().map(|(_, r)| r.name));
    }
    assert_eq!(walked, ["0", "0", "1", "3"]);
}

#[test]
fn large_records_are_kept_and_larger_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let with = |bytes: usize| {
        let mut record = ContainerRecord::default();
        record.labels.insert("l".to_owned(), "x".repeat(bytes));
        record
    };
    let key = ("default", "c");
    for bytes in [0, 4000, 5000, 900_000, 10_000, 4096, 1] {
        store
            .transaction(|tx| tx.put::<Containers>(key, &with(bytes)))
            .unwrap();
        assert_eq!(store.get::<Containers>(key).unwrap().unwrap(), with(bytes));
        assert_eq!(store.scan::<Containers>(()).unwrap().len(), 1);
        assert_eq!(store.verify().unwrap().problems, [""; 0]);
    }
    let refused = store.transaction(|tx| tx.put::<Containers>(key, &with(1 << 20)));
    assert_eq!(refused.unwrap_err().kind(), Kind::ResourceExhausted);
    let long = "k".repeat(600);
    let refused = store.transaction(|tx| tx.put::<Intents>(&long, &IntentRecord::default()));
    assert_eq!(refused.unwrap_err().kind(), Kind::InvalidArgument);
    let mut large = event("create");
    large
        .attributes
        .insert("a".to_owned(), "x".repeat(100 << 10));
    let refused = store.transaction(|tx| tx.event(large.clone()));
    assert_eq!(refused.unwrap_err().kind(), Kind::ResourceExhausted);
    store
        .transaction(|tx| tx.delete::<Containers>(key))
        .unwrap();
    assert_eq!(store.verify().unwrap().records.len(), 0);
}

#[test]
fn a_transaction_within_a_transaction_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let inner = store
        .transaction(|_| Ok(store.transaction(|_| Ok(())).unwrap_err().kind()))
        .unwrap();
    assert_eq!(inner, Kind::Internal);
    store.transaction(|_| Ok(())).unwrap();
}

#[tokio::test]
async fn what_was_durable_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let opened = Store::open(&path, Options::default()).unwrap();
    assert_eq!(opened.condition, Condition::Fresh);
    assert_eq!(opened.previous, None);
    let store = opened.store;
    store
        .transaction(|tx| {
            tx.put::<Images>(("a", "x"), &image("x"))?;
            assert_eq!(tx.next_number("dir")?, 1);
            assert_eq!(tx.next_number("dir")?, 2);
            tx.event(event("pull"))
        })
        .unwrap();
    store.durable().await.unwrap();
    let in_use = Store::open(&path, Options::default()).unwrap_err();
    assert_eq!(in_use.kind(), Kind::FailedPrecondition);
    let pid = format!("process {}", std::process::id());
    assert!(in_use.to_string().contains(&pid), "{in_use}");
    store.close().unwrap();
    assert_eq!(
        store.get::<Images>(("a", "x")).unwrap_err().kind(),
        Kind::Unavailable
    );
    assert_eq!(store.durable().await.map_err(|e| e.kind()), Ok(()));

    let opened = Store::open(&path, Options::default()).unwrap();
    assert_eq!(opened.condition, Condition::Existing);
    assert!(opened.previous.as_ref().unwrap().clean);
    assert!(!opened.rebooted());
    let store = opened.store;
    assert!(store.contains::<Images>(("a", "x")).unwrap());
    let number = store.transaction(|tx| {
        assert_eq!(tx.next_number("dir")?, 3);
        tx.event(event("tag"))
    });
    assert_eq!(number.unwrap(), 2);
    drop(store);
    let opened = Store::open(&path, Options::default()).unwrap();
    assert!(!opened.previous.unwrap().clean);
    assert_eq!(opened.store.events().last_number(), 2);
}

#[tokio::test]
async fn events_are_replayed_and_followed_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let add = |action: String| store.transaction(|tx| tx.event(event(&action))).unwrap();
    for n in 1..=300 {
        assert_eq!(add(format!("{n}")), n);
    }
    let events = store.events();
    let mut start = events.subscribe(From::Start).unwrap();
    let mut after = events.subscribe(From::After(250)).unwrap();
    let mut new = events.subscribe(From::New).unwrap();
    assert_eq!(new.try_next(), None);
    let writer = store.clone();
    let writing = std::thread::spawn(move || {
        for n in 301..=1000 {
            let action = n.to_string();
            writer.transaction(|tx| tx.event(event(&action))).unwrap();
        }
    });
    for (stream, first) in [(&mut start, 1), (&mut after, 251), (&mut new, 301)] {
        for n in first..=1000u64 {
            assert_eq!(next_action(stream).await, (n, n.to_string()));
        }
        assert_eq!(stream.position(), 1000);
        assert_eq!(stream.try_next(), None);
    }
    writing.join().unwrap();
    assert_eq!(store.verify().unwrap().events, 1000);
    store.close().unwrap();
    assert_eq!(start.next().await, None);
}

#[tokio::test]
async fn events_are_found_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut times = Vec::new();
    for n in 0..200 {
        store
            .transaction(|tx| tx.event(event(&n.to_string())))
            .unwrap();
    }
    store.written().await.unwrap();
    let mut all = store.events().subscribe(From::Start).unwrap();
    while let Some(Item::Event(event)) = all.try_next() {
        times.push(event.time);
    }
    assert_eq!(times.len(), 200);
    for wanted in [times[0], times[77], times[199]] {
        let first = times.iter().position(|t| *t >= wanted).unwrap() as u64 + 1;
        let mut since = store.events().subscribe(From::Since(wanted)).unwrap();
        assert_eq!(next_action(&mut since).await.0, first);
    }
    let later = times[199] + jiff::SignedDuration::from_secs(60);
    let mut since = store.events().subscribe(From::Since(later)).unwrap();
    store.transaction(|tx| tx.event(event("late"))).unwrap();
    assert_eq!(next_action(&mut since).await.0, 201);
}

#[tokio::test]
async fn a_bounded_log_says_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        event_max_count: 100,
        ..Options::default()
    };
    let store = Store::open(dir.path().join("store"), options)
        .unwrap()
        .store;
    let mut slow = store.events().subscribe(From::Start).unwrap();
    store.transaction(|tx| tx.event(event("1"))).unwrap();
    assert_eq!(next_action(&mut slow).await.0, 1);
    for n in 2..=1000 {
        store
            .transaction(|tx| tx.event(event(&n.to_string())))
            .unwrap();
    }
    store.durable().await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    // It is trimmed once it is 64 above its bound.
    while store.events().first_number().unwrap() < 1001 - 164 {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = store.events().first_number().unwrap();
    assert!(first <= 901, "{first}");
    let lagged = Item::Lagged {
        first: 2,
        last: first - 1,
    };
    assert_eq!(next(&mut slow).await, lagged);
    for n in first..=1000 {
        assert_eq!(next_action(&mut slow).await.0, n);
    }
    let mut start = store.events().subscribe(From::Start).unwrap();
    assert_eq!(next_action(&mut start).await.0, first);
    let mut since = store
        .events()
        .subscribe(From::Since(jiff::Timestamp::UNIX_EPOCH))
        .unwrap();
    assert!(matches!(next(&mut since).await, Item::Lagged { .. }));
    assert_eq!(next_action(&mut since).await.0, first);
    assert!(store.verify().unwrap().problems.is_empty());
    assert!(store.stats().events_trimmed >= 700);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut tasks = Vec::new();
    for n in 0..200 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let name = n.to_string();
            store
                .transaction(|tx| tx.put::<Images>(("a", &name), &image(&name)))
                .unwrap();
            store.durable().await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let stats = store.stats();
    assert_eq!(stats.transactions, 200);
    assert!(stats.fdatasyncs < 100, "{stats:?}");
    let before = store.stats().fdatasyncs;
    for _ in 0..10 {
        store.durable().await.unwrap();
    }
    assert_eq!(store.stats().fdatasyncs, before, "nothing new to sync");
}
