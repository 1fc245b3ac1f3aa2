//! A container's life through the Task API, with a real runtime.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rig;

use std::fs;
use std::process::Command;

use containerd_shim_protos::api;
use containerd_shim_protos::cgroups::metrics::Metrics;
use protobuf::Message;
use rig::{Rig, Setup, code, deadline, message, until};
use serde_json::{Value, json};
use ttrpc::Code;

#[tokio::test]
async fn create_start_exit_delete_shutdown() {
    let mut rig = Rig::new(&["sh", "-c", "echo out; echo err >&2; exit 7"]).await;
    let pid = rig.create().await;
    assert!(pid > 0);
    assert_eq!(rig.status("").await, "CREATED");
    assert_eq!(
        fs::read_to_string(rig.bundle.join("init.pid")).unwrap(),
        pid.to_string()
    );
    assert_eq!(rig.start().await, pid);
    assert_eq!(rig.wait("").await, 7);
    assert_eq!(rig.status("").await, "STOPPED");
    let record: Value =
        serde_json::from_slice(&fs::read(rig.bundle.join("exits/init.json")).unwrap()).unwrap();
    assert_eq!(
        (&record["id"], &record["code"], &record["pid"]),
        (&json!("init"), &json!(7), &json!(pid))
    );
    assert_eq!(
        (&record["oom"], &record["signal"]),
        (&json!(false), &json!(null))
    );
    let mut lines: Vec<_> = rig
        .log_entries()
        .iter()
        .map(|entry| {
            (
                entry["stream"].as_str().unwrap().to_owned(),
                entry["log"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            ("stderr".into(), "err\n".into()),
            ("stdout".into(), "out\n".into())
        ]
    );
    // The mount is in the shim's own namespace.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(rig.bundle.to_str().unwrap()));
    let deleted = rig.delete("").await.unwrap();
    assert_eq!((deleted.exit_status, deleted.pid), (7, pid));
    assert!(!rig.bundle.join("exits/init.json").exists());
    assert_eq!(code(&rig.state("").await.unwrap_err()), Code::NOT_FOUND);
    assert_eq!(code(&rig.delete("").await.unwrap_err()), Code::NOT_FOUND);
    assert!(rig.shutdown().await);
    assert!(!rig.directory.path().join("s.sock").exists());
    assert_eq!(rig.shim_log(), "");
}

#[tokio::test]
async fn a_shim_with_a_container_does_not_go() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    rig.create().await;
    let request = api::ShutdownRequest {
        id: rig.id.clone(),
        now: true,
        ..Default::default()
    };
    rig.client.shutdown(deadline(10), &request).await.unwrap();
    assert_eq!(rig.status("").await, "CREATED");
}

#[tokio::test]
async fn signals_and_their_codes() {
    let rig = Rig::new(&[
        "sh",
        "-c",
        "trap 'exit 3' TERM; while true; do sleep 0.05; done",
    ])
    .await;
    rig.create().await;
    rig.start().await;
    until("the trap is set", || rig_ready(&rig)).await;
    assert_eq!(
        code(&rig.delete("").await.unwrap_err()),
        Code::FAILED_PRECONDITION
    );
    // The shell may not have come to its trap yet; then TERM, ignored by an init without handler, is sent again.
    while rig.status("").await == "RUNNING" {
        let _ = rig.kill("", 15, false).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(rig.wait("").await, 3);
    assert_eq!(
        code(&rig.kill("", 15, false).await.unwrap_err()),
        Code::NOT_FOUND
    );
    rig.delete("").await.unwrap();
}

fn rig_ready(rig: &Rig) -> bool {
    rig.bundle.join("init.pid").exists()
}

#[tokio::test]
async fn killed_is_137_and_many_may_wait() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    rig.create().await;
    rig.start().await;
    let waits = [rig.wait(""), rig.wait(""), rig.wait("")];
    let kill = async {
        rig.kill("", 9, false).await.unwrap();
    };
    let (codes, ()) = tokio::join!(futures_join(waits), kill);
    assert_eq!(codes, [137, 137, 137]);
    let record: Value =
        serde_json::from_slice(&fs::read(rig.bundle.join("exits/init.json")).unwrap()).unwrap();
    assert_eq!(
        (&record["signal"], &record["code"]),
        (&json!(9), &json!(137))
    );
    assert_eq!(
        code(&rig.kill("", 77, false).await.unwrap_err()),
        Code::INVALID_ARGUMENT
    );
    rig.delete("").await.unwrap();
}

async fn futures_join<F: Future<Output = u32>>(futures: [F; 3]) -> [u32; 3] {
    let [a, b, c] = futures;
    let (a, b, c) = tokio::join!(a, b, c);
    [a, b, c]
}

#[tokio::test]
async fn a_created_container_can_be_deleted() {
    let mut rig = Rig::new(&["sleep", "1000"]).await;
    let pid = rig.create().await;
    let deleted = rig.delete("").await.unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    assert!(rig.shutdown().await);
}

#[tokio::test]
async fn the_runtime_s_errors_keep_their_words() {
    let rig = Rig::new(&["no-such-program"]).await;
    let error = rig
        .client
        .create(deadline(60), &rig.create_request())
        .await
        .unwrap_err();
    let text = message(&error);
    assert!(text.starts_with("OCI runtime create failed: "), "{text}");
    assert!(
        text.contains("exec: \"no-such-program\": executable file not found in $PATH"),
        "{text}"
    );
    assert_eq!(code(&rig.state("").await.unwrap_err()), Code::NOT_FOUND);
    // Nothing is left, and the id is free.
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", rig.shim_pid())).unwrap();
    assert!(!mounts.contains(rig.bundle.to_str().unwrap()), "{mounts}");
    let config = rig.bundle.join("config.json");
    let changed = fs::read_to_string(&config)
        .unwrap()
        .replace("no-such-program", "true");
    fs::write(&config, changed).unwrap();
    assert_eq!(rig.run().await.0, 0);
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let rig = Rig::new(&["true"]).await;
    let good = rig.create_request();
    let refused = async |request: api::CreateTaskRequest| {
        rig.client.create(deadline(10), &request).await.unwrap_err()
    };
    let error = refused(api::CreateTaskRequest {
        id: "../x".into(),
        ..good.clone()
    })
    .await;
    assert_eq!(code(&error), Code::INVALID_ARGUMENT);
    let error = refused(api::CreateTaskRequest {
        bundle: "relative".into(),
        ..good.clone()
    })
    .await;
    assert_eq!(code(&error), Code::INVALID_ARGUMENT);
    let error = refused(api::CreateTaskRequest {
        bundle: "/nowhere".into(),
        ..good.clone()
    })
    .await;
    assert_eq!(code(&error), Code::NOT_FOUND);
    let error = refused(api::CreateTaskRequest {
        stdout: "what://x".into(),
        ..good.clone()
    })
    .await;
    assert_eq!(code(&error), Code::INVALID_ARGUMENT);
    let mut bad = good.clone();
    bad.options.as_mut().unwrap().value = br#"{"runtime":"no-such-runtime"}"#.to_vec();
    let error = refused(bad).await;
    assert_eq!(code(&error), Code::NOT_FOUND);
    assert!(message(&error).contains("no-such-runtime"));
    let mut bad = good.clone();
    bad.rootfs[0].source = "/nowhere".into();
    let error = refused(bad).await;
    assert!(
        message(&error).contains("failed to mount rootfs component"),
        "{error}"
    );
    rig.create().await;
    let error = refused(good).await;
    assert_eq!(code(&error), Code::ALREADY_EXISTS);
}

#[tokio::test]
async fn execs() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    let init = rig.create().await;
    rig.start().await;
    rig.exec("e1", &["sh", "-c", "exit 42"], false)
        .await
        .unwrap();
    assert_eq!(
        code(&rig.exec("e1", &["true"], false).await.unwrap_err()),
        Code::ALREADY_EXISTS
    );
    assert_eq!(
        code(&rig.exec("../e", &["true"], false).await.unwrap_err()),
        Code::INVALID_ARGUMENT
    );
    assert_eq!(
        code(&rig.kill("e1", 9, false).await.unwrap_err()),
        Code::FAILED_PRECONDITION
    );
    assert_eq!(rig.status("e1").await, "CREATED");
    assert!(rig.start_exec("e1").await.unwrap() > 0);
    assert_eq!(rig.wait("e1").await, 42);
    assert!(rig.bundle.join("exits/e1.json").exists());
    assert_eq!(rig.delete("e1").await.unwrap().exit_status, 42);
    assert!(!rig.bundle.join("exits/e1.json").exists());
    // One that never starts.
    rig.exec("e2", &["true"], false).await.unwrap();
    rig.delete("e2").await.unwrap();
    // One that cannot.
    rig.exec("e3", &["no-such-program"], false).await.unwrap();
    let error = rig.start_exec("e3").await.unwrap_err();
    let text = message(&error);
    assert!(text.starts_with("OCI runtime exec failed: "), "{text}");
    assert!(
        text.contains("exec: \"no-such-program\": executable file not found in $PATH"),
        "{text}"
    );
    rig.delete("e3").await.unwrap();
    // One that runs is known by its id, and dies with init; its end is told first.
    rig.exec("e4", &["sleep", "1000"], false).await.unwrap();
    let pid = rig.start_exec("e4").await.unwrap();
    let request = api::PidsRequest {
        id: rig.id.clone(),
        ..Default::default()
    };
    let pids = rig
        .client
        .pids(deadline(60), &request)
        .await
        .unwrap()
        .processes;
    assert!(
        pids.iter()
            .any(|process| process.pid == init && process.info.is_none())
    );
    let exec = pids.iter().find(|process| process.pid == pid).unwrap();
    assert_eq!(exec.info.type_url, "containerd.runc.v1.ProcessDetails");
    rig.kill("", 9, false).await.unwrap();
    assert_eq!(rig.wait("").await, 137);
    assert_eq!(rig.threads(), 1);
    assert_eq!(rig.status("e4").await, "STOPPED");
    assert_eq!(rig.wait("e4").await, 137);
    assert_eq!(
        code(&rig.exec("e5", &["true"], false).await.unwrap_err()),
        Code::NOT_FOUND
    );
    rig.delete("").await.unwrap();
}

#[tokio::test]
async fn pause_stats_update() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    rig.create().await;
    rig.start().await;
    let pause = api::PauseRequest {
        id: rig.id.clone(),
        ..Default::default()
    };
    let resume = api::ResumeRequest {
        id: rig.id.clone(),
        ..Default::default()
    };
    assert_eq!(
        code(&rig.client.resume(deadline(30), &resume).await.unwrap_err()),
        Code::FAILED_PRECONDITION
    );
    rig.client.pause(deadline(30), &pause).await.unwrap();
    assert_eq!(rig.status("").await, "PAUSED");
    rig.client.resume(deadline(30), &resume).await.unwrap();
    assert_eq!(rig.status("").await, "RUNNING");
    let mut update = api::UpdateTaskRequest {
        id: rig.id.clone(),
        ..Default::default()
    };
    update.mut_resources().value = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 55}})
        .to_string()
        .into_bytes();
    rig.client.update(deadline(30), &update).await.unwrap();
    let stats = api::StatsRequest {
        id: rig.id.clone(),
        ..Default::default()
    };
    let stats = rig
        .client
        .stats(deadline(10), &stats)
        .await
        .unwrap()
        .stats
        .unwrap();
    assert_eq!(stats.type_url, "io.containerd.cgroups.v1.Metrics");
    let metrics = Metrics::parse_from_bytes(&stats.value).unwrap();
    assert_eq!((metrics.pids.current, metrics.pids.limit), (1, 55));
    assert_eq!(metrics.memory.usage.limit, 67_108_864);
    assert!(metrics.memory.usage.usage > 0 && metrics.cpu.usage.total > 0);
    // A frozen container can be killed.
    rig.client.pause(deadline(30), &pause).await.unwrap();
    rig.kill("", 9, false).await.unwrap();
    assert_eq!(rig.wait("").await, 137);
    rig.delete("").await.unwrap();
}

#[tokio::test]
async fn out_of_memory_is_told_apart() {
    let setup = Setup {
        linux: Some(json!({"resources": {
            "devices": [{"allow": true, "access": "rwm"}],
            "memory": {"limit": 16_777_216, "swap": 16_777_216},
        }})),
        ..Setup::default()
    };
    let rig = Rig::with(
        &["dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=64"],
        setup,
    )
    .await;
    let (exit, _) = rig.run().await;
    assert_eq!(exit, 137);
    let record: Value =
        serde_json::from_slice(&fs::read(rig.bundle.join("exits/init.json")).unwrap()).unwrap();
    assert_eq!(record["oom"], json!(true));
    rig.delete("").await.unwrap();
}

#[tokio::test]
async fn a_killed_shim_leaves_nothing_after_delete() {
    let mut rig = Rig::new(&["sleep", "1000"]).await;
    let pid = rig.create().await;
    rig.start().await;
    rig.kill_shim();
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    let output = rig.clean_up();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let response = api::DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!((response.pid, response.exit_status), (pid, 137));
    until("init is gone", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
    let left = Command::new("sh")
        .arg("-c")
        .arg(format!("ls -d /sys/fs/cgroup/*/davit-shim-{}", rig.id))
        .output()
        .unwrap();
    assert!(
        left.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&left.stdout)
    );
    // Again is success.
    assert!(rig.clean_up().status.success());
}

#[tokio::test]
async fn of_two_deletes_one_is_late() {
    let rig = Rig::new(&["true"]).await;
    rig.run().await;
    let (one, two) = tokio::join!(rig.delete(""), rig.delete(""));
    let late = if one.is_ok() { two } else { one };
    assert_eq!(code(&late.unwrap_err()), Code::NOT_FOUND);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_a_create() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    let request = rig.create_request();
    // A deadline far below what a create takes.
    let hurried = rig
        .client
        .create(ttrpc::context::with_timeout(1_000_000), &request)
        .await;
    if hurried.is_err() {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while rig.state("").await.is_err() {
            assert!(std::time::Instant::now() < end, "the container never came");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    assert_eq!(rig.status("").await, "CREATED");
}

#[tokio::test]
async fn both_versions_of_the_service_answer() {
    let rig = Rig::new(&["true"]).await;
    let address = format!("unix://{}", rig.directory.path().join("s.sock").display());
    let client = ttrpc::asynchronous::Client::connect(&address)
        .await
        .unwrap();
    for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let connect = api::ConnectRequest {
            id: rig.id.clone(),
            ..Default::default()
        };
        let mut request = ttrpc::Request::new();
        request.set_service(service.into());
        request.set_method("Connect".into());
        request.set_timeout_nano(10_000_000_000);
        request.set_payload(connect.write_to_bytes().unwrap());
        let response = client.request(request).await.unwrap();
        let connected = api::ConnectResponse::parse_from_bytes(&response.payload).unwrap();
        assert_eq!(connected.shim_pid, rig.shim_pid());
    }
}
