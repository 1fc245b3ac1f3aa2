//! kill -9 of daemon and shim at every step: each failpoint in the sources, in
//! turn, while a container goes through its whole life. Afterwards a new daemon
//! must be able to do everything, and nothing may be left behind.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use davit_tests::{Daemon, ImageSpec, Registry, busybox_layout, eventually, workspace_root};

use crate::volumes::Plugin;

/// Scenarios that run at a time; each starts a daemon and several processes.
const PARALLEL: usize = 3;

/// Every `fail_point!("…")` in the sources.
fn failpoints() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for dir in ["server", "shim"] {
        collect(&workspace_root().join(dir), &mut names);
    }
    assert!(
        names.len() > 20,
        "only {} failpoints were found",
        names.len()
    );
    names
}

fn collect(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).expect("sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            for part in text.split("fail_point!(").skip(1) {
                if let Some(name) = part
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|rest| rest.split('"').next())
                {
                    names.insert(name.to_owned());
                }
            }
        }
    }
}

/// A life, with every failure allowed: the daemon or the shim dies on the way.
fn live(daemon: &Daemon, registry: &Registry, image: &str) {
    let copy = registry.reference("copy:1");
    let archive = daemon.dir().join("image.tar");
    let archive = archive.to_str().expect("UTF-8");
    let script = "trap 'exit 0' TERM; echo up; while :; do usleep 20000; done";
    let steps: &[&[&str]] = &[
        &["pull", "-q", image],
        &["create", "--name", "c", image, "sh", "-c", script],
        &["start", "c"],
        &["exec", "c", "true"],
        &["pause", "c"],
        &["unpause", "c"],
        &["stop", "-t", "1", "c"],
        &["start", "c"],
        &["commit", "c", "made:1"],
        &["rm", "-f", "c"],
        &["run", "--rm", image, "true"],
        &["network", "create", "n"],
        &["run", "--rm", "--network", "n", "-p", "9", image, "true"],
        &["network", "rm", "n"],
        &[
            "volume",
            "create",
            "-o",
            "type=tmpfs",
            "-o",
            "device=tmpfs",
            "memory",
        ],
        &["volume", "create", "-d", "remote", daemon.marker()],
        &[
            "run",
            "--name",
            "v",
            "-v",
            "filled:/bin",
            "-v",
            "memory:/memory",
            image,
            "true",
        ],
        &["rm", "-f", "v"],
        &["volume", "rm", "filled", "memory", daemon.marker()],
        &["rmi", "-f", image],
        &["tag", "made:1", &copy],
        &["push", "-q", &copy],
        &["save", "-o", archive, "made:1"],
        &["rmi", "-f", "made:1", &copy],
        &["load", "-q", "-i", archive],
        &["rmi", "-f", "made:1"],
    ];
    for step in steps {
        daemon.davit(step);
    }
}

/// What must work afterwards, whatever died where.
fn all_is_well(daemon: &Daemon, image: &str, failpoint: &str) {
    let context = |output: davit_tests::Output| {
        assert_eq!(
            output.code,
            0,
            "after {failpoint}: {}{}\n{}",
            output.stdout,
            output.stderr,
            daemon.log()
        );
        output.stdout.trim_end().to_owned()
    };
    for id in context(daemon.davit(&["ps", "-aq", "--no-trunc"])).lines() {
        context(daemon.davit(&["rm", "-f", id]));
    }
    context(daemon.davit(&["pull", "-q", image]));
    assert_eq!(
        context(daemon.davit(&["run", "--rm", image, "echo", "fine"])),
        "fine",
        "after {failpoint}"
    );
    context(daemon.davit(&["rmi", "-f", image]));
    context(daemon.davit(&["volume", "prune", "-f", "--all"]));
    eventually(&format!("no intent to be open after {failpoint}"), || {
        daemon.davit(&["debug"]).stdout.contains("intents.open: 0")
    });
}

fn scenario(registry: &Registry, plugin: &Plugin, image: &str, failpoint: &str) -> bool {
    let setting = format!("{failpoint}=panic");
    let mut daemon = if failpoint.starts_with("store.rebuild.") {
        // Only a damaged store is rebuilt.
        let mut daemon = Daemon::start();
        daemon.davit(&["pull", "-q", image]).ok();
        daemon.kill9();
        daemon.damage_store();
        daemon.try_start_again_with_failpoints(&setting);
        daemon
    } else {
        plugin.builder().failpoints(&setting).try_start()
    };
    if daemon.alive() {
        live(&daemon, registry, image);
    }
    // Clients hear of a death before the kernel has taken the process apart.
    let fired = if daemon.davit(&["version"]).code == 0 {
        // A shim died, or nobody: the daemon goes too, with the failpoint that its next shim would meet.
        daemon.kill9();
        failpoint.starts_with("shim.")
    } else {
        daemon.wait_ended();
        true
    };
    daemon.start_again();
    all_is_well(&daemon, image, failpoint);
    fired
}

#[test]
fn a_kill_at_any_step_leaves_nothing_behind() {
    let registry = Registry::start();
    let plugin = Plugin::start();
    let dir = tempfile::tempdir().unwrap();
    busybox_layout(dir.path(), &ImageSpec::default());
    let image = registry.push_layout(
        &format!("{}:latest", dir.path().join("layout").display()),
        "busybox:1",
    );
    // DAVIT_FAILPOINT=store.rebuild.after-move runs with one only.
    let only = std::env::var("DAVIT_FAILPOINT").unwrap_or_default();
    let names: Vec<String> = failpoints()
        .into_iter()
        .filter(|name| only.is_empty() || *name == only)
        .collect();
    let next = AtomicUsize::new(0);
    let silent = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !scenario(&registry, &plugin, &image, name) {
                        silent.lock().unwrap().push(name.clone());
                    }
                }
            });
        }
    });
    let silent = silent.into_inner().unwrap();
    assert!(silent.is_empty(), "never reached: {silent:?}");
}
