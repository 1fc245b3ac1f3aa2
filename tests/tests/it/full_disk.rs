//! A disk without space: things fail with a clear error, nothing is lost, and
//! when there is space again everything goes on, without a restart.

use std::fs;

use davit_tests::{Daemon, ImageSpec, Registry, eventually};

/// Megabytes of the daemon's disk.
const DISK: u64 = 48;

fn full(output: &davit_tests::Output) {
    assert_ne!(output.code, 0, "{}", output.stdout);
    assert!(
        output.stderr.contains("No space left") || output.stderr.contains("no space left"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_container_that_fills_the_disk_can_be_stopped_and_removed() {
    let registry = Registry::start();
    let daemon = Daemon::builder().disk(DISK).start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon
        .davit(&["run", "-d", "--name", "other", &image, "sleep", "1000"])
        .ok();
    let script = "while cat /bin/busybox; do :; done > /big; exec sleep 1000";
    daemon
        .davit(&["run", "-d", "--name", "glutton", &image, "sh", "-c", script])
        .ok();
    eventually("the disk to be full", || {
        nix::sys::statvfs::statvfs(&daemon.root()).is_ok_and(|disk| disk.blocks_available() == 0)
    });
    full(&daemon.davit(&["run", "--rm", &image, "true"]));
    // What runs goes on, and can be looked at and stopped.
    assert_eq!(
        daemon.davit(&["exec", "other", "echo", "here"]).ok(),
        "here"
    );
    daemon.davit(&["stop", "-t", "0", "other"]).ok();
    assert_eq!(
        daemon
            .davit(&["inspect", "-f", "{{.State.Status}}", "other"])
            .ok(),
        "exited"
    );
    // Making room is possible, and then all is as before.
    daemon.davit(&["rm", "-f", "glutton"]).ok();
    assert_eq!(
        daemon.davit(&["run", "--rm", &image, "echo", "fine"]).ok(),
        "fine"
    );
    daemon.davit(&["start", "other"]).ok();
    assert_eq!(
        daemon.davit(&["exec", "other", "echo", "again"]).ok(),
        "again"
    );
}

#[test]
fn an_image_that_does_not_fit_leaves_nothing() {
    let registry = Registry::start();
    let daemon = Daemon::builder().disk(DISK).start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    let big = ImageSpec {
        files: vec![("big".into(), noise(64 << 20))],
        ..ImageSpec::default()
    };
    let dir = tempfile::tempdir().unwrap();
    davit_tests::busybox_layout(dir.path(), &big);
    let layout = format!("{}:latest", dir.path().join("layout").display());
    let reference = registry.push_layout(&layout, "big:1");
    full(&daemon.davit(&["pull", "-q", &reference]));
    assert_eq!(
        daemon.davit(&["run", "--rm", &image, "echo", "fine"]).ok(),
        "fine"
    );
    let left = || size(&daemon.root());
    daemon.davit(&["image", "prune", "-f"]).ok();
    eventually("the space to be free again", || left() < 20 << 20);
}

#[test]
fn a_daemon_starts_on_a_full_disk() {
    let registry = Registry::start();
    let mut daemon = Daemon::builder().disk(DISK).start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon
        .davit(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .ok();
    let pid = daemon.davit(&["inspect", "-f", "{{.State.Pid}}", "c"]).ok();
    let ballast = daemon.root().join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut file, &[7; 4096]).is_ok() {}
    daemon.crash_and_restart();
    assert_eq!(
        daemon.davit(&["inspect", "-f", "{{.State.Pid}}", "c"]).ok(),
        pid
    );
    fs::remove_file(&ballast).unwrap();
    daemon.davit(&["rm", "-f", "c"]).ok();
    assert_eq!(
        daemon.davit(&["run", "--rm", &image, "echo", "fine"]).ok(),
        "fine"
    );
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn size(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
