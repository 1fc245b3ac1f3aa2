//! The shim dies at every step; `delete` must leave nothing. Needs the feature `failpoints`.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rig;

use std::fs;
use std::process::Command;

use rig::{Rig, Setup, deadline, until};

/// Runs a whole life against a shim that dies at some point: what the first call said that failed.
async fn live(rig: &Rig) -> Result<(), String> {
    let said = |what: &'static str| move |error| format!("{what}: {error}");
    let request = rig.create_request();
    let create = rig.client.create(deadline(30), &request);
    create.await.map_err(said("create"))?;
    rig.start_exec("").await.map_err(said("start"))?;
    let exec = rig.exec("e1", &["true"], false);
    exec.await.map_err(said("exec"))?;
    rig.start_exec("e1").await.map_err(said("start the exec"))?;
    let mut wait = containerd_shim_protos::api::WaitRequest {
        id: rig.id.clone(),
        exec_id: "e1".into(),
        ..Default::default()
    };
    let ended = rig.client.wait(deadline(30), &wait);
    ended.await.map_err(said("wait for the exec"))?;
    rig.delete("e1").await.map_err(said("delete the exec"))?;
    rig.kill("", 9, false).await.map_err(said("kill"))?;
    wait.exec_id.clear();
    let ended = rig.client.wait(deadline(30), &wait);
    ended.await.map_err(said("wait"))?;
    rig.delete("").await.map_err(said("delete"))?;
    Ok(())
}

async fn dies_at(point: &str, record_expected: bool) {
    let failpoints = format!("{point}=panic");
    let setup = Setup {
        environment: &[("FAILPOINTS", failpoints.as_str())],
        ..Setup::default()
    };
    let mut rig = Rig::with(&["sleep", "1000"], setup).await;
    let life = live(&rig).await;
    until(&format!("the shim to die at {point} ({life:?})"), || {
        rig.exited()
    })
    .await;
    let record =
        fs::read_dir(rig.bundle.join("exits")).is_ok_and(|mut entries| entries.next().is_some());
    assert!(record || !record_expected, "{point}: no exit record");
    let output = rig.clean_up();
    assert!(
        output.status.success(),
        "{point}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let pid = fs::read_to_string(rig.bundle.join("init.pid")).unwrap_or_default();
    if !pid.is_empty() {
        until("init is gone", || {
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.contains(") Z "))
        })
        .await;
    }
    let left = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "ls -d /sys/fs/cgroup/*/davit-shim-{} {}/runtime-root/test/*",
            rig.id,
            rig.directory.path().display()
        ))
        .output()
        .unwrap();
    assert!(
        left.stdout.is_empty(),
        "{point}: {}",
        String::from_utf8_lossy(&left.stdout)
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(rig.directory.path().to_str().unwrap()),
        "{point}: {mounts}"
    );
}

#[tokio::test]
async fn at_every_step() {
    let points = [
        ("shim.create.begin", false),
        ("shim.create.after-mount", false),
        ("shim.create.after-runtime", false),
        ("shim.start.begin", false),
        ("shim.start.after-runtime", false),
        ("shim.exec.added", false),
        ("shim.exec.before-runtime", false),
        ("shim.exec.after-runtime", false),
        ("shim.exit.before-record", false),
        ("shim.exit.after-record", true),
        ("shim.exit.after-tell", true),
        ("shim.delete.exec", false),
        ("shim.delete.begin", true),
        ("shim.delete.after-runtime", true),
        ("shim.delete.after-unmount", true),
    ];
    for (point, record) in points {
        dies_at(point, record).await;
    }
}
