//! The daemon as a program: configuration, sockets, refusals, stopping.

use std::{fs, os::unix::fs::PermissionsExt};

use davit_client::v1;
use davit_tests::{Daemon, binary, command, run};

#[test]
fn the_default_configuration_is_documented_and_loads() {
    let default = run(command(binary("davitd")).args(["config", "default"]), None).ok();
    assert!(default.contains("cache_bytes"), "{default}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, default).unwrap();
    let dump = run(
        command(binary("davitd"))
            .arg("--config")
            .arg(&file)
            .args(["config", "dump"]),
        None,
    )
    .ok();
    assert!(dump.contains("/var/lib/davit"), "{dump}");
}

#[test]
fn unknown_keys_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, "[containers]\ndefault_runtme = \"runc\"\n").unwrap();
    let output = run(command(binary("davitd")).arg("--config").arg(&file), None);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("containers.default_runtme"),
        "{}",
        output.stderr
    );
}

#[test]
fn the_socket_is_for_its_group_only() {
    let daemon = Daemon::start();
    for socket in [daemon.address(), daemon.docker_address()] {
        let mode = fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660, "{}", socket.display());
    }
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused() {
    let daemon = Daemon::start();
    let output = daemon.second();
    assert_ne!(output.code, 0);
    assert!(
        output.stderr.contains(&daemon.pid().to_string()),
        "{}",
        output.stderr
    );
    // The first one is none the worse.
    daemon.davit(&["version"]).ok();
}

#[test]
fn several_daemons_run_side_by_side_and_see_nothing_of_each_other() {
    let (one, two) = (Daemon::start(), Daemon::start());
    one.davit(&["info"]).ok();
    two.davit(&["info"]).ok();
    assert_ne!(
        one.davit(&["info", "-f", "{{.ID}}"]).ok(),
        two.davit(&["info", "-f", "{{.ID}}"]).ok()
    );
}

#[test]
fn sigterm_is_a_clean_stop_and_the_id_stays() {
    let mut daemon = Daemon::start();
    let id = daemon.davit(&["info", "-f", "{{.ID}}"]).ok();
    assert_eq!(daemon.stop(), Some(0));
    assert!(!daemon.address().exists());
    daemon.start_again();
    assert_eq!(daemon.davit(&["info", "-f", "{{.ID}}"]).ok(), id);
}

#[test]
fn a_daemon_that_is_not_there_is_told_clearly() {
    let output = run(
        command(binary("davit")).args(["--address", "/nonexistent/davit.sock", "ps"]),
        None,
    );
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("/nonexistent/davit.sock"),
        "{}",
        output.stderr
    );
    assert!(
        output.stderr.contains("is the daemon running"),
        "{}",
        output.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers() {
    let daemon = tokio::task::spawn_blocking(Daemon::start).await.unwrap();
    let reply = daemon
        .client()
        .system()
        .version(v1::VersionRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reply.os, "linux");
    let info = daemon
        .client()
        .system()
        .info(v1::InfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(info.cpus > 0 && info.memory > 0);
    assert_eq!(info.root_dir, daemon.root().display().to_string());
    tokio::task::spawn_blocking(move || drop(daemon))
        .await
        .unwrap();
}

#[test]
fn invalid_namespaces_are_refused() {
    let daemon = Daemon::start();
    let output = daemon.davit(&["--namespace", "a/b", "ps"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("namespace"), "{}", output.stderr);
}
