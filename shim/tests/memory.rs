//! What an idle shim costs. Meaningful for a release build: `DAVIT_TEST_SHIM=target/release/containerd-shim-davit-v2`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rig;

use std::fs;
use std::time::{Duration, Instant};

use rig::Rig;

/// What ten idle shims may take each, in KiB, counting shared pages once.
const LIMIT: u64 = 1024;

fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn idle_shims_are_small() {
    let mut rigs = Vec::new();
    for _ in 0..10 {
        let rig = Rig::new(&["sleep", "1000"]).await;
        rig.create().await;
        rig.start().await;
        rigs.push(rig);
        if rigs.len() == 1 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            println!("one idle shim: {} KiB", pss(rigs[0].shim_pid()));
        }
    }
    let each =
        |rigs: &[Rig]| rigs.iter().map(|rig| pss(rig.shim_pid())).sum::<u64>() / rigs.len() as u64;
    // Memory goes back when nothing has happened for a while.
    let end = Instant::now() + Duration::from_secs(10);
    while each(&rigs) > LIMIT && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("ten idle shims: {} KiB each", each(&rigs));
    println!(
        "{}",
        fs::read_to_string(format!("/proc/{}/smaps_rollup", rigs[0].shim_pid())).unwrap()
    );
    if std::env::var_os("DAVIT_TEST_SHIM").is_some() {
        assert!(each(&rigs) <= LIMIT);
    }
}

#[tokio::test]
#[ignore = "prints each mapping, for people"]
async fn where_it_goes() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    rig.create().await;
    rig.start().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let text = fs::read_to_string(format!("/proc/{}/smaps", rig.shim_pid())).unwrap();
    let mut name = String::new();
    for line in text.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if first.contains('-') {
            name = line.to_owned();
        } else if first == "Rss:" {
            print!("{name}: {}", line.trim());
        } else if first == "Private_Dirty:" {
            println!(" {}", line.trim());
        }
    }
}
