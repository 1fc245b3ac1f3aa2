//! The store under `kill -9`, and after damage to its files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use davit_store::{
    Condition, Item, Kind, NewEvent, Options, Store,
    table::{ContainerRecord, Containers, Meta, MetaRecord},
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Set in the child that writes until it is killed.
const CHILD: &str = "DAVIT_STORE_CRASH_CHILD";

/// Ids that the child's containers have.
const IDS: u64 = 40;

fn change(store: &Store, n: u64) {
    let id = format!("{:032x}", n % IDS);
    let mut record = ContainerRecord {
        id: id.clone(),
        image: n.to_string(),
        ..ContainerRecord::default()
    };
    let length = (n * 37 % 9000) as usize;
    record.labels.insert("l".to_owned(), "x".repeat(length));
    let done = MetaRecord {
        number: n,
        ..MetaRecord::default()
    };
    let number = store
        .transaction(|tx| {
            tx.put::<Containers>(("default", &id), &record)?;
            tx.put::<Meta>("done", &done)?;
            tx.event(NewEvent {
                action: n.to_string(),
                ..NewEvent::default()
            })
        })
        .unwrap();
    assert_eq!(number, n);
}

fn done(store: &Store) -> u64 {
    store.get::<Meta>("done").unwrap().map_or(0, |r| r.number)
}

/// Everything is as after transaction `done`.
fn check(store: &Store) {
    let done = done(store);
    let found = store.verify().unwrap();
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.last_event, done);
    assert_eq!(store.events().last_number(), done);
    for n in (1..=done).rev().take(IDS as usize) {
        let id = format!("{:032x}", n % IDS);
        let record = store.get::<Containers>(("default", &id)).unwrap().unwrap();
        assert_eq!(record.image, n.to_string());
        assert_eq!(record.labels["l"].len(), (n * 37 % 9000) as usize);
    }
}

/// Not a test: what the killed process does. It says which transactions are
/// durable and which events a subscriber saw.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let store = Store::open(dir, Options::default()).unwrap().store;
    let mut events = store.events().subscribe(davit_store::From::New).unwrap();
    let mut out = std::io::stdout();
    let first = done(&store) + 1;
    for n in first.. {
        change(&store, n);
        if n % 5 == 0 {
            store.durable().await.unwrap();
            writeln!(out, "\ndurable {n}").unwrap();
        }
        if n % 7 == 0 {
            let seen = events.next().await;
            if let Some(Item::Event(event)) = seen {
                writeln!(out, "\nseen {}", event.number).unwrap();
            }
        }
    }
}

/// Runs a child on `dir` until it has acknowledged `acks` times, kills it, and
/// gives the last transaction that it acknowledged and the last event seen.
fn run_and_kill(dir: &Path, acks: usize) -> (u64, u64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut durable, mut seen, mut count) = (0, 0, 0);
    for line in lines {
        let Ok(line) = line else { break };
        let mut words = line.split(' ');
        let (word, number) = (words.next(), words.next());
        let number = || number.and_then(|n| n.parse().ok()).unwrap_or_default();
        match word {
            Some("durable") => durable = number(),
            Some("seen") => seen = number(),
            _ => continue,
        }
        count += 1;
        if count == acks {
            // It goes on writing while it is killed; what it still says is
            // read below.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(count >= acks, "the child ended by itself");
    (durable, seen)
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut before = 0;
    for round in 0..25usize {
        let (durable, seen) = run_and_kill(&path, 1 + round * 17 % 60);
        let opened = Store::open(&path, Options::default()).unwrap();
        assert_ne!(opened.condition, Condition::Fresh);
        assert!(
            matches!(opened.condition, Condition::Existing),
            "{:?}",
            opened.condition
        );
        let previous = opened.previous.unwrap();
        assert!(!previous.clean);
        assert_eq!(previous.boot_id, opened.boot_id);
        let now = done(&opened.store);
        assert!(now >= durable, "{now} of {durable} durable ones");
        assert!(now >= seen, "event {seen} was seen and is gone");
        assert!(now > before, "round {round} got nowhere");
        before = now;
        check(&opened.store);
    }
}

/// A closed store with a few hundred changes.
fn make(path: &Path) -> u64 {
    let store = Store::open(path, Options::default()).unwrap().store;
    for n in 1..=400 {
        change(&store, n);
    }
    store.close().unwrap();
    400
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Opens a damaged store: either it is in order up to some transaction, or it
/// was moved aside and an empty one works. Says whether it was moved.
fn open_damaged(path: &Path, last: u64, what: &str) -> bool {
    let checked = davit_store::check(path).unwrap();
    let opened =
        Store::open(path, Options::default()).unwrap_or_else(|e| panic!("{what}: {}", e.chain()));
    let store = opened.store;
    match opened.condition {
        Condition::Existing => {
            assert_eq!(checked.problems, [""; 0], "{what}");
            assert_eq!(done(&store), last, "{what}");
            check(&store);
            false
        }
        Condition::Rebuilt { moved_to, reason } => {
            assert!(moved_to.join("conf").exists(), "{what}");
            assert!(!reason.is_empty());
            assert_ne!(checked.problem_count, 0, "{what}: {reason}");
            // What was saved is whole, though it may be old.
            let saved = store.scan::<Containers>(()).unwrap();
            for ((_, id), record) in &saved {
                let n: u64 = record.image.parse().unwrap();
                assert_eq!(&format!("{:032x}", n % IDS), id);
                assert_eq!(record.labels["l"].len(), (n * 37 % 9000) as usize);
            }
            assert!(opened.salvaged >= saved.len() as u64);
            let number = store
                .transaction(|tx| tx.event(NewEvent::default()))
                .unwrap();
            assert!(number > last, "{what}: event {number} was used before");
            store.close().unwrap();
            let again = Store::open(path, Options::default()).unwrap();
            assert_eq!(again.condition, Condition::Existing);
            assert_eq!(again.store.events().last_number(), number);
            true
        }
        Condition::Fresh => panic!("{what}: nobody was told"),
    }
}

#[test]
fn damaged_stores_are_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let last = make(&whole);
    let file = whole.join("sled/db");
    let length = fs::metadata(&file).unwrap().len();
    let mut moved = 0;
    let mut try_one = |name: String, damage: &dyn Fn(&Path)| {
        let path = dir.path().join(&name);
        copy(&whole, &path);
        damage(&path.join("sled"));
        moved += u32::from(open_damaged(&path, last, &name));
    };
    for n in 0..40u64 {
        // Flip a byte, mostly in what is in use.
        let at = n * 7919 * 31 % length;
        try_one(format!("flip-{at}"), &|sled| {
            let mut bytes = fs::read(sled.join("db")).unwrap();
            bytes[at as usize] ^= 0x55;
            fs::write(sled.join("db"), bytes).unwrap();
        });
    }
    for n in [0, 1, 19, 512, 4096, 100_000, length / 2, length - 1] {
        try_one(format!("truncate-{n}"), &|sled| {
            let file = fs::OpenOptions::new().write(true).open(sled.join("db"));
            file.unwrap().set_len(n).unwrap();
        });
    }
    try_one("zeros".to_owned(), &|sled| {
        fs::write(sled.join("db"), vec![0; length as usize]).unwrap();
    });
    try_one("noise".to_owned(), &|sled| {
        let noise: Vec<u8> = (0..length).map(|n| (n * n % 251) as u8).collect();
        fs::write(sled.join("db"), noise).unwrap();
    });
    try_one("no-db".to_owned(), &|sled| {
        fs::remove_file(sled.join("db")).unwrap();
    });
    try_one("conf".to_owned(), &|sled| {
        fs::write(sled.join("conf"), b"segment_size: banana, ").unwrap();
    });
    try_one("snapshots".to_owned(), &|sled| {
        for entry in fs::read_dir(sled).unwrap() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("snap")
            {
                let mut bytes = fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0xff;
                fs::write(&path, bytes).unwrap();
            }
        }
    });
    assert!(moved > 10, "{moved}");
}

#[test]
fn without_a_state_file_numbers_jump_far_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let last = make(&path);
    fs::remove_file(path.join("state.json")).unwrap();
    fs::write(path.join("sled/db"), vec![7; 1 << 20]).unwrap();
    let opened = Store::open(&path, Options::default()).unwrap();
    assert!(matches!(opened.condition, Condition::Rebuilt { .. }));
    assert!(opened.rebooted());
    let number = opened
        .store
        .transaction(|tx| tx.event(NewEvent::default()))
        .unwrap();
    assert!(number > last + (1 << 40) && number < 1 << 53, "{number}");
}

#[tokio::test]
async fn after_a_power_cut_numbers_leave_a_gap_and_subscribers_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path, Options::default()).unwrap().store;
    for n in 1..=3 {
        change(&store, n);
    }
    drop(store);
    // Another boot, and no clean stop before it.
    let state = fs::read_to_string(path.join("state.json")).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
    state["boot_id"] = "another".into();
    fs::write(path.join("state.json"), state.to_string()).unwrap();
    let opened = Store::open(&path, Options::default()).unwrap();
    assert!(opened.rebooted());
    let store = opened.store;
    let number = store
        .transaction(|tx| tx.event(NewEvent::default()))
        .unwrap();
    assert!(number > 4);
    let mut stream = store
        .events()
        .subscribe(davit_store::From::After(2))
        .unwrap();
    let mut items = Vec::new();
    for _ in 0..3 {
        let item = tokio::time::timeout(Duration::from_secs(10), stream.next());
        items.push(match item.await.unwrap().unwrap() {
            Item::Event(event) => (event.number, event.number),
            Item::Lagged { first, last } => (first, last),
        });
    }
    assert_eq!(items, [(3, 3), (4, number - 1), (number, number)]);
    assert!(store.verify().unwrap().problems.is_empty());
    assert_eq!(
        store
            .events()
            .subscribe(davit_store::From::After(u64::MAX))
            .unwrap()
            .position(),
        number
    );
}

#[test]
fn what_the_system_refuses_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    fs::create_dir_all(&path).unwrap();
    // sled's directory can't be made where a file is.
    fs::write(path.join("sled"), b"in the way").unwrap();
    let error = Store::open(&path, Options::default()).unwrap_err();
    assert_ne!(error.kind(), Kind::DataLoss, "{error:?}");
    assert_eq!(fs::read(path.join("sled")).unwrap(), b"in the way");
}
