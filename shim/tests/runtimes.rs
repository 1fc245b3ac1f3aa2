//! What differs between runtimes: crun's refusals, checkpoints, pods of several containers, shared mounts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rig;

use std::fs;
use std::process::Command;

use containerd_shim_protos::api;
use protobuf::MessageField;
use rig::{Rig, Setup, deadline, message};
use serde_json::{Value, json};

fn installed(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok()
}

#[tokio::test]
async fn crun_runs_or_says_why_not() {
    if !installed("crun") {
        return;
    }
    let setup = Setup {
        runtime: Some("crun"),
        ..Setup::default()
    };
    let rig = Rig::with(&["sh", "-c", "echo hello; exit 4"], setup).await;
    match rig.client.create(deadline(60), &rig.create_request()).await {
        Ok(_) => {
            rig.start().await;
            assert_eq!(rig.wait("").await, 4);
            assert_eq!(rig.log_text(), "hello\n");
            rig.delete("").await.unwrap();
        }
        // Old ones know no host that has v1 controllers beside a v2 hierarchy.
        Err(error) => {
            let text = message(&error);
            assert!(text.starts_with("OCI runtime create failed: "), "{text}");
            assert!(text.contains("cgroup"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_checkpoint_is_restored_or_refused() {
    let setup = Setup {
        runtime: Some("runc"),
        ..Setup::default()
    };
    let rig = Rig::with(&["sh", "-c", "while true; do sleep 0.1; done"], setup).await;
    rig.create().await;
    rig.start().await;
    let image = rig.directory.path().join("checkpoint");
    let request = api::CheckpointTaskRequest {
        id: rig.id.clone(),
        path: image.to_str().unwrap().into(),
        ..Default::default()
    };
    if let Err(error) = rig.client.checkpoint(deadline(60), &request).await {
        // criu needs a kernel with more debugging than some have.
        let text = message(&error);
        assert!(
            text.starts_with("OCI runtime checkpoint failed: "),
            "{text}"
        );
        eprintln!("no checkpoint here: {text}");
        assert_eq!(rig.status("").await, "RUNNING");
        return;
    }
    rig.kill("", 9, false).await.unwrap();
    rig.wait("").await;
    rig.delete("").await.unwrap();
    let request = api::CreateTaskRequest {
        checkpoint: image.to_str().unwrap().into(),
        ..rig.create_request()
    };
    let created = rig.client.create(deadline(60), &request).await.unwrap();
    assert_eq!(created.pid, 0);
    assert!(rig.start().await > 0);
    assert_eq!(rig.status("").await, "RUNNING");
    rig.kill("", 9, false).await.unwrap();
    assert_eq!(rig.wait("").await, 137);
    rig.delete("").await.unwrap();
}

/// A second bundle beside the rig's own, for a second container of the same shim.
fn second_bundle(rig: &Rig, id: &str, linux: &Value) -> api::CreateTaskRequest {
    let bundle = rig.directory.path().join(id);
    fs::create_dir(&bundle).unwrap();
    let setup = Setup {
        linux: Some(linux.clone()),
        ..Setup::default()
    };
    let config = rig::config(id, &["sh", "-c", "echo second; exit 6"], &setup);
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let mut request = rig.create_request();
    request.id = id.into();
    request.bundle = bundle.to_str().unwrap().into();
    request.stdout = format!("davit://{}", bundle.join("log").display());
    request.options = MessageField::some(rig.options());
    request
}

#[tokio::test]
async fn two_containers_in_one_shim() {
    let mut rig = Rig::new(&["sleep", "1000"]).await;
    let first = rig.create().await;
    rig.start().await;
    let id = format!("{}-two", rig.id);
    // In the pid namespace of the first, as in a pod: its processes do not die with its init by themselves.
    let linux = json!({"namespaces": [
        {"type": "pid", "path": format!("/proc/{first}/ns/pid")}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
    ]});
    let request = second_bundle(&rig, &id, &linux);
    rig.client.create(deadline(60), &request).await.unwrap();
    let start = api::StartRequest {
        id: id.clone(),
        ..Default::default()
    };
    rig.client.start(deadline(60), &start).await.unwrap();
    let wait = api::WaitRequest {
        id: id.clone(),
        ..Default::default()
    };
    assert_eq!(
        rig.client
            .wait(deadline(60), &wait)
            .await
            .unwrap()
            .exit_status,
        6
    );
    let log = fs::read_to_string(rig.directory.path().join(&id).join("log")).unwrap();
    assert!(log.contains("second"));
    let delete = api::DeleteRequest {
        id: id.clone(),
        ..Default::default()
    };
    rig.client.delete(deadline(60), &delete).await.unwrap();
    // The shim stays for the first.
    let shutdown = api::ShutdownRequest {
        id,
        ..Default::default()
    };
    rig.client.shutdown(deadline(10), &shutdown).await.unwrap();
    assert_eq!(rig.status("").await, "RUNNING");
    rig.kill("", 9, false).await.unwrap();
    rig.wait("").await;
    rig.delete("").await.unwrap();
    assert!(rig.shutdown().await);
}

#[tokio::test]
async fn a_container_that_shares_mounts_keeps_the_shim_in_the_host_s_namespace() {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    let own = namespace(std::process::id());
    let setup = Setup {
        linux: Some(json!({"rootfsPropagation": "rshared"})),
        ..Setup::default()
    };
    let mut rig = Rig::with(&["true"], setup).await;
    assert_eq!(rig.run().await.0, 0);
    assert_eq!(namespace(rig.shim_pid()), own);
    rig.delete("").await.unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(rig.bundle.to_str().unwrap()));
    assert!(rig.shutdown().await);
    let rig = Rig::new(&["true"]).await;
    assert_eq!(rig.run().await.0, 0);
    assert_ne!(namespace(rig.shim_pid()), own);
}

#[tokio::test]
async fn many_at_once() {
    let lives = (0..12).map(|number| {
        tokio::spawn(async move {
            let text = format!("echo {number}; exit {number}");
            let mut rig = Rig::new(&["sh", "-c", &text]).await;
            let (code, log) = rig.run().await;
            assert_eq!((code, log), (number, format!("{number}\n")));
            rig.delete("").await.unwrap();
            assert!(rig.shutdown().await);
        })
    });
    for life in lives.collect::<Vec<_>>() {
        life.await.unwrap();
    }
}

#[tokio::test]
async fn many_execs_at_once() {
    let rig = Rig::new(&["sleep", "1000"]).await;
    rig.create().await;
    rig.start().await;
    let rig = std::sync::Arc::new(rig);
    let execs = (1..=20_u32).map(|number| {
        let rig = rig.clone();
        tokio::spawn(async move {
            let id = format!("e{number}");
            let text = format!("echo {number}; exit {number}");
            rig.exec(&id, &["sh", "-c", &text], false).await.unwrap();
            let attached = rig.attach(json!({"exec": id, "stdout": true})).await;
            rig.start_exec(&id).await.unwrap();
            let heard = attached.rest().await;
            assert_eq!(heard.stdout, format!("{number}\n").into_bytes());
            assert_eq!(rig.wait(&id).await, number);
            assert_eq!(rig.delete(&id).await.unwrap().exit_status, number);
        })
    });
    for exec in execs.collect::<Vec<_>>() {
        exec.await.unwrap();
    }
    assert_eq!(rig.threads(), 1);
    let fds = fs::read_dir(format!("/proc/{}/fd", rig.shim_pid()))
        .unwrap()
        .count();
    assert!(fds < 40, "{fds} descriptors are open");
}
