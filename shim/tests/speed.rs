//! Prints how fast the shim is, for people; run with `--ignored --nocapture` and `DAVIT_TEST_SHIM` set to a release
//! build.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rig;

use std::fs;
use std::time::{Duration, Instant};

use containerd_shim_protos::api;
use rig::{Rig, deadline};

#[tokio::test]
#[ignore = "prints numbers"]
async fn lifecycle() {
    let mut steps = [Duration::ZERO; 6];
    const ROUNDS: u32 = 30;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let mut rig = Rig::new(&["true"]).await;
        let mut last = Instant::now();
        let mut step = |at: usize| {
            steps[at] += last.elapsed();
            last = Instant::now();
        };
        rig.create().await;
        step(0);
        rig.start().await;
        step(1);
        rig.wait("").await;
        step(2);
        rig.delete("").await.unwrap();
        step(3);
        rig.shutdown().await;
        step(4);
        steps[5] += begin.elapsed();
        // What the test itself cleans up.
        rig.forget();
    }
    let names = [
        "create",
        "start",
        "wait",
        "delete",
        "shutdown",
        "all with spawning",
    ];
    for (name, step) in names.iter().zip(steps) {
        println!(
            "{name}: {:.2} ms",
            step.as_secs_f64() * 1000.0 / f64::from(ROUNDS)
        );
    }
}

#[tokio::test]
#[ignore = "prints numbers"]
async fn log() {
    for (what, script) in [
        (
            "long lines",
            "yes 'a line of a log that is as long as many lines of logs are, about a hundred bytes, or some more, yes' | head -c 500000000",
        ),
        ("short lines", "yes short | head -c 100000000"),
    ] {
        let rig = Rig::new(&["sh", "-c", script]).await;
        let request = api::CreateTaskRequest {
            stdout: format!(
                "davit://{}?max-size=20971520&max-file=5",
                rig.log_path().display()
            ),
            ..rig.create_request()
        };
        rig.client.create(deadline(60), &request).await.unwrap();
        let begin = Instant::now();
        rig.start().await;
        rig.wait("").await;
        let bytes = script
            .split(' ')
            .next_back()
            .unwrap()
            .parse::<f64>()
            .unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", rig.shim_pid())).unwrap();
        let ticks: f64 = stat
            .split(' ')
            .skip(13)
            .take(2)
            .map(|n| n.parse::<f64>().unwrap())
            .sum();
        println!(
            "{what}: {:.0} MB/s, {:.1} s of CPU in the shim for {} MB",
            bytes / 1e6 / begin.elapsed().as_secs_f64(),
            ticks / 100.0,
            bytes / 1e6
        );
    }
}
