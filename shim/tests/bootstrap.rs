//! `start`, `delete`, `-info` and `-v` in the forms that containerd's versions use.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rig;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use containerd_shim_protos::api;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::shim_async::{Client, TaskClient};
use containerd_shim_protos::types::introspection::RuntimeInfo;
use protobuf::Message;
use rig::{Setup, config, deadline, shim, until};
use serde_json::json;
use tempfile::TempDir;

/// A bundle as containerd makes it, without a container.
struct Bundle {
    directory: TempDir,
}

impl Bundle {
    fn new(id: &str, group: Option<&str>) -> Bundle {
        let directory = tempfile::Builder::new().prefix("dboot").tempdir().unwrap();
        let mut config = config(id, &["true"], &Setup::default());
        if let Some(group) = group {
            config["annotations"] = json!({"io.kubernetes.cri.sandbox-id": group});
        }
        fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        Bundle { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs the shim as containerd does.
    fn call(
        &self,
        id: &str,
        address: &str,
        variables: &[(&str, &str)],
        stdin: &[u8],
        action: &str,
    ) -> Output {
        let mut child = Command::new(shim())
            .args([
                "-namespace",
                "test",
                "-address",
                address,
                "-publish-binary",
                "/usr/bin/containerd",
                "-id",
                id,
            ])
            .arg(action)
            .envs(variables.iter().copied())
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        child.wait_with_output().unwrap()
    }
}

async fn stop(address: &str) -> u32 {
    let client = TaskClient::new(Client::connect(address).await.unwrap());
    let connect = api::ConnectRequest {
        id: "x".into(),
        ..Default::default()
    };
    let pid = client
        .connect(deadline(10), &connect)
        .await
        .unwrap()
        .shim_pid;
    let shutdown = api::ShutdownRequest {
        id: "x".into(),
        ..Default::default()
    };
    client.shutdown(deadline(10), &shutdown).await.unwrap();
    let socket = PathBuf::from(address.strip_prefix("unix://").unwrap());
    until("the socket is gone", || !socket.exists()).await;
    pid
}

#[tokio::test]
async fn a_plain_address_for_old_daemons() {
    let bundle = Bundle::new("plain", None);
    let output = bundle.call("plain", "/run/x.sock", &[], b"", "start");
    let address = String::from_utf8(output.stdout).unwrap();
    assert!(
        address.starts_with("unix:///run/containerd/s/"),
        "{address} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        fs::read_to_string(bundle.path().join("address")).unwrap(),
        address
    );
    stop(&address).await;
}

#[tokio::test]
async fn json_for_those_that_ask() {
    let bundle = Bundle::new("json", None);
    let output = bundle.call(
        "json",
        "/run/x.sock",
        &[("MAX_SHIM_VERSION", "2")],
        b"",
        "start",
    );
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["version"], &answer["protocol"]),
        (&json!(2), &json!("ttrpc"))
    );
    stop(answer["address"].as_str().unwrap()).await;
}

#[tokio::test]
async fn bootstrap_parameters_and_a_place_for_the_socket() {
    let bundle = Bundle::new("params", None);
    let sockets = bundle.path().join("s");
    let params = BootstrapParams {
        instance_id: "params".into(),
        namespace: "test".into(),
        socket_dir: Some(sockets.to_str().unwrap().into()),
        ..Default::default()
    };
    let bytes = params.write_to_bytes().unwrap();
    let output = bundle.call(
        "params",
        "/run/x.sock",
        &[("MAX_SHIM_VERSION", "2")],
        &bytes,
        "start",
    );
    let answer = BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!((answer.version, answer.protocol.as_str()), (3, "ttrpc"));
    assert!(
        answer
            .address
            .starts_with(&format!("unix://{}/", sockets.display())),
        "{}",
        answer.address
    );
    // What runs is the same file, on a mount that cannot be written through.
    let client = TaskClient::new(Client::connect(&answer.address).await.unwrap());
    let connect = api::ConnectRequest {
        id: "x".into(),
        ..Default::default()
    };
    let pid = client
        .connect(deadline(10), &connect)
        .await
        .unwrap()
        .shim_pid;
    let program = fs::File::open(format!("/proc/{pid}/exe")).unwrap();
    let mount = rustix::fs::fstatvfs(&program).unwrap().f_flag;
    assert!(
        mount.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        "{mount:?}"
    );
    assert_eq!(
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(),
        "containerd-shim\n"
    );
    stop(&answer.address).await;
}

#[tokio::test]
async fn containers_of_a_pod_share_a_shim_and_a_dead_one_s_socket_is_replaced() {
    let (first, second) = (
        Bundle::new("pod", Some("pod")),
        Bundle::new("c1", Some("pod")),
    );
    let one = first.call("pod", "/run/y.sock", &[], b"", "start").stdout;
    let two = second.call("c1", "/run/y.sock", &[], b"", "start").stdout;
    assert_eq!(one, two);
    let address = String::from_utf8(one).unwrap();
    let client = TaskClient::new(Client::connect(&address).await.unwrap());
    let connect = api::ConnectRequest {
        id: "x".into(),
        ..Default::default()
    };
    let pid = client
        .connect(deadline(10), &connect)
        .await
        .unwrap()
        .shim_pid;
    davit_sys::process::kill(i32::try_from(pid).unwrap(), 9).unwrap();
    until("the shim is dead", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
    let three = first.call("pod", "/run/y.sock", &[], b"", "start").stdout;
    assert_eq!(String::from_utf8(three).unwrap(), address);
    assert_ne!(stop(&address).await, pid);
}

#[test]
fn what_it_says_of_itself() {
    let version = Command::new(shim()).arg("-v").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    let info = Command::new(shim())
        .arg("-info")
        .env("DAVIT_RUNTIME", "runc")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let info = RuntimeInfo::parse_from_bytes(&info.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.davit.v2");
    assert!(String::from_utf8_lossy(&info.features.value).contains("ociVersionMin"));
}

#[test]
fn mistakes_are_told() {
    let bundle = Bundle::new("x", None);
    let output = bundle.call("../x", "/run/x.sock", &[], b"", "start");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("container id"));
    let output = Command::new(shim()).arg("-what").arg("x").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown flag -what"));
    // Nothing was ever made here: nothing to delete.
    let output = bundle.call("x", "/run/x.sock", &[], b"", "delete");
    assert!(output.status.success());
    assert_eq!(
        api::DeleteResponse::parse_from_bytes(&output.stdout)
            .unwrap()
            .exit_status,
        137
    );
}
