//! The gateway, as the real docker CLI uses it.

use davit_tests::{Daemon, ImageSpec, Registry, eventually, run};

fn prepared() -> (Daemon, Registry, String) {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:latest", &ImageSpec::default());
    (daemon, registry, image)
}

#[test]
fn version_and_info() {
    let (daemon, _registry, _image) = prepared();
    let version = daemon
        .docker(&["version", "--format", "{{.Server.APIVersion}}"])
        .ok();
    assert_eq!(version, "1.51");
    let info = daemon
        .docker(&["info", "--format", "{{.Images}} {{.OSType}}"])
        .ok();
    assert_eq!(info, "1 linux");
}

#[test]
fn pull_images_inspect_history_tag_rmi() {
    let (daemon, _registry, image) = prepared();
    let id = daemon.docker(&["images", "-q", "--no-trunc", &image]).ok();
    daemon.docker(&["tag", &image, "mine:1"]).ok();
    assert_eq!(
        daemon
            .docker(&["image", "inspect", "-f", "{{.Id}}", "mine:1"])
            .ok(),
        id
    );
    assert!(
        !daemon
            .docker(&["history", "--format", "{{json .}}", "mine:1"])
            .ok()
            .is_empty()
    );
    daemon.docker(&["rmi", "mine:1"]).ok();
    let output = daemon.docker(&["rmi", &image]).ok();
    assert!(
        output.contains("Untagged: ") && output.contains("Deleted: sha256:"),
        "{output}"
    );
    let output = daemon.docker(&["pull", &image]).ok();
    assert!(
        output.contains("Pull complete") && output.contains("Status: Downloaded newer image"),
        "{output}"
    );
    let again = daemon.docker(&["pull", &image]).ok();
    assert!(again.contains("Image is up to date"), "{again}");
    daemon.docker(&["image", "prune", "-f"]).ok();
    let missing = daemon.docker(&["pull", &format!("{image}-missing")]);
    assert_eq!(missing.code, 1);
}

#[test]
fn run_in_its_forms() {
    let (daemon, _registry, image) = prepared();
    assert_eq!(
        daemon.docker(&["run", "--rm", &image, "echo", "hi"]).ok(),
        "hi"
    );
    let output = daemon.docker(&[
        "run",
        "--rm",
        &image,
        "sh",
        "-c",
        "echo out; echo err >&2; exit 9",
    ]);
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (9, "out\n", "err\n")
    );
    let piped = run(
        daemon
            .docker_command()
            .args(["run", "-i", "--rm", &image, "cat"]),
        Some(b"through"),
    );
    assert_eq!(piped.ok(), "through");
    let terminal = daemon.docker(&[
        "run",
        "-t",
        "--rm",
        &image,
        "sh",
        "-c",
        "test -t 1 && echo tty",
    ]);
    assert_eq!(terminal.stdout, "tty\r\n");
    assert_eq!(
        daemon
            .docker(&[
                "run",
                "--rm",
                "--entrypoint",
                "echo",
                "-e",
                "A=b",
                &image,
                "x"
            ])
            .ok(),
        "x"
    );
    assert_eq!(
        daemon
            .docker(&[
                "run",
                "--rm",
                "--network",
                "none",
                &image,
                "ls",
                "/sys/class/net"
            ])
            .ok(),
        "lo"
    );
    assert_eq!(
        daemon
            .docker(&["run", "--rm", &image, "no-such-program"])
            .code,
        127
    );
    assert_eq!(daemon.docker(&["run", "--rm", &image, "/etc"]).code, 126);
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "--pull", "never", "no-such-image"])
            .code,
        125
    );
    eventually("everything to be removed", || {
        daemon.docker(&["ps", "-aq"]).ok().is_empty()
    });
}

#[test]
fn a_missing_image_is_pulled() {
    let (daemon, _registry, image) = prepared();
    daemon.docker(&["rmi", &image]).ok();
    let output = daemon.docker(&["run", "--rm", &image, "echo", "pulled"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, "pulled\n"));
    assert!(
        output.stderr.contains("Unable to find image"),
        "{}",
        output.stderr
    );
}

#[test]
fn the_life_of_a_container() {
    let (daemon, _registry, image) = prepared();
    let id = daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "echo started; exec sleep 1000",
        ])
        .ok();
    assert_eq!(id.len(), 64);
    assert_eq!(
        daemon
            .docker(&["ps", "--format", "{{.Names}} {{.State}}"])
            .ok(),
        "c running"
    );
    eventually("the log", || {
        daemon.docker(&["logs", "c"]).ok() == "started"
    });
    assert_eq!(daemon.docker(&["exec", "c", "echo", "in"]).ok(), "in");
    assert_eq!(daemon.docker(&["exec", "c", "sh", "-c", "exit 4"]).code, 4);
    daemon.docker(&["exec", "c", "touch", "/kept"]).ok();
    daemon.docker(&["stop", "-t", "0", "c"]).ok();
    assert_eq!(
        daemon
            .docker(&[
                "inspect",
                "-f",
                "{{.State.Status}} {{.State.ExitCode}}",
                "c"
            ])
            .ok(),
        "exited 137"
    );
    daemon.docker(&["start", "c"]).ok();
    daemon.docker(&["exec", "c", "ls", "/kept"]).ok();
    daemon.docker(&["restart", "-t", "0", "c"]).ok();
    daemon.docker(&["kill", "c"]).ok();
    assert_eq!(daemon.docker(&["wait", "c"]).ok(), "137");
    daemon.docker(&["rm", "c"]).ok();
    let conflict = daemon.docker(&["rm", "c"]);
    assert!(
        conflict.stderr.contains("No such container"),
        "{}",
        conflict.stderr
    );
    // The CLI gives --until in whole seconds, so the last events come into
    // sight when their second is over.
    let args = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
    ];
    eventually("the whole life to be in the events", || {
        let events = daemon.docker(&args).ok();
        events.starts_with("create\n") && events.ends_with("destroy")
    });
}

#[test]
fn the_same_objects_through_both_doors() {
    let (daemon, _registry, image) = prepared();
    daemon
        .docker(&["create", "--name", "d", &image, "true"])
        .ok();
    assert_eq!(
        daemon.davit(&["ps", "-a", "--format", "{{.Names}}"]).ok(),
        "d"
    );
    daemon.davit(&["rm", "d"]).ok();
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn rm_and_rmi_of_everything() {
    let (daemon, _registry, image) = prepared();
    for name in ["a", "b", "c"] {
        daemon
            .docker(&["run", "-d", "--name", name, &image, "sleep", "1000"])
            .ok();
    }
    let ids = daemon.docker(&["ps", "-aq"]).ok();
    let mut args = vec!["rm", "-f"];
    args.extend(ids.lines());
    daemon.docker(&args).ok();
    let ids = daemon.docker(&["images", "-aq"]).ok();
    let mut args = vec!["rmi", "-f"];
    args.extend(ids.lines());
    daemon.docker(&args).ok();
    assert_eq!(daemon.docker(&["images", "-aq"]).ok(), "");
}

#[test]
fn a_gateway_that_is_refused_says_why() {
    let (daemon, _registry, image) = prepared();
    daemon
        .docker(&["create", "--name", "c", &image, "true"])
        .ok();
    let conflict = daemon.docker(&["create", "--name", "c", &image, "true"]);
    assert_eq!(conflict.code, 1);
    assert!(
        conflict
            .stderr
            .contains("Conflict. The container name \"/c\" is already in use"),
        "{}",
        conflict.stderr
    );
    let later = daemon.docker(&["volume", "create", "../v"]);
    assert_ne!(later.code, 0);
    assert!(
        !later.stderr.contains('{'),
        "raw JSON was shown: {}",
        later.stderr
    );
}
