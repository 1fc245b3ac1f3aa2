//! `davitd check`, and the store that is rebuilt when it is damaged.

use std::fs;

use davit_tests::{Daemon, ImageSpec, Output, Registry, binary, command, eventually, run};

fn check(daemon: &Daemon, flags: &[&str]) -> Output {
    let mut command = command(binary("davitd"));
    command
        .arg("--config")
        .arg(daemon.dir().join("config.toml"))
        .arg("--root")
        .arg(daemon.root());
    command
        .arg("--state")
        .arg(daemon.state())
        .arg("check")
        .args(flags);
    run(&mut command, None)
}

#[test]
fn a_sound_root_has_no_problems() {
    let registry = Registry::start();
    let mut daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon.davit(&["run", "--name", "c", &image, "true"]).ok();
    daemon.stop();
    let output = check(&daemon, &[]);
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
    assert!(
        output.stdout.contains("no problems found"),
        "{}",
        output.stdout
    );
}

#[test]
fn a_running_daemon_is_left_alone() {
    let daemon = Daemon::start();
    let output = check(&daemon, &[]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains(&daemon.pid().to_string()),
        "{}",
        output.stderr
    );
}

#[test]
fn a_missing_blob_is_found_and_mended() {
    let registry = Registry::start();
    let mut daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon.stop();
    let blobs = daemon.root().join("content/blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .unwrap()
        .flatten()
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .expect("a blob");
    fs::remove_file(largest.path()).unwrap();
    let output = check(&daemon, &[]);
    assert_eq!(output.code, 1, "{}", output.stdout);
    let name = largest.file_name().to_string_lossy().into_owned();
    assert!(output.stdout.contains(&name), "{}", output.stdout);
    check(&daemon, &["--repair"]).ok();
    daemon.start_again();
    daemon.davit(&["pull", "-q", &image]).ok();
    assert_eq!(
        daemon.davit(&["run", "--rm", &image, "echo", "ok"]).ok(),
        "ok"
    );
}

#[test]
fn a_store_full_of_rubbish_is_rebuilt_from_the_disk() {
    let registry = Registry::start();
    let mut daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon
        .davit(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .ok();
    let pid = daemon.davit(&["inspect", "-f", "{{.State.Pid}}", "c"]).ok();
    // Names are copied beside the store a moment after a change.
    let names = daemon.root().join("images/names.json");
    eventually("the copy of the names", || {
        fs::read_to_string(&names).is_ok_and(|text| text.contains("busybox"))
    });
    daemon.kill9();
    daemon.damage_store();
    daemon.start_again();
    assert!(
        daemon.log().contains("STORE WAS DAMAGED"),
        "{}",
        daemon.log()
    );
    // The image is there without a pull, and so is what runs.
    assert_eq!(
        daemon
            .davit(&["run", "--rm", "--pull", "never", &image, "echo", "ok"])
            .ok(),
        "ok"
    );
    eventually("the container to be found", || {
        daemon
            .davit(&["inspect", "-f", "{{.State.Pid}}", "c"])
            .stdout
            .trim()
            == pid
    });
}
