//! What a lifecycle costs; run with `--release -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)] // a test may

mod rig;

use std::time::{Duration, Instant};

use davit_engine::model::*;
use rig::{NS, Rig};

const ROUNDS: u32 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn one_after_the_other() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .try_init();
    for runtime in ["builtin", "runc"] {
        let rig = Rig::new(runtime).await;
        let mut spent = [const { Vec::new() }; 4];
        for round in 0..ROUNDS + 3 {
            let mut last = Instant::now();
            let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed();
            let id = rig.create("exit 0").await;
            let create = lap();
            rig.start(&id).await;
            let start = lap();
            rig.wait(&id).await;
            let wait = lap();
            rig.engine
                .containers()
                .remove(NS, &id, RemoveOptions::default())
                .await
                .unwrap();
            if round >= 3 {
                for (all, part) in spent.iter_mut().zip([create, start, wait, lap()]) {
                    all.push(part);
                }
            }
        }
        // Other work on the machine disturbs the mean.
        let [create, start, wait, remove] = spent.map(|mut all: Vec<Duration>| {
            all.sort();
            all[all.len() / 4]
        });
        println!("{runtime}: create {create:?} start {start:?} wait {wait:?} remove {remove:?}");
        println!("{runtime}: in all {:?}", create + start + wait + remove);
        rig.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn memory_with_fifty_running() {
    let rig = Rig::new("builtin").await;
    for _ in 0..50 {
        let id = rig.create("sleep 1000").await;
        rig.start(&id).await;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    for line in status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon"))
    {
        println!("50 running: {line}");
    }
    println!(
        "open files: {}",
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    );
    rig.finish().await;
}
