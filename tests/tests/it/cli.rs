//! The command line's own ways.

use davit_tests::{Daemon, ImageSpec, Registry, binary, command, run};

#[test]
fn completion_scripts_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(command(binary("davit")).args(["completion", shell]), None).ok();
        assert!(script.contains("davit"), "{shell}");
    }
}

#[test]
fn unknown_flags_and_commands_are_refused() {
    let output = run(
        command(binary("davit")).args(["run", "--no-such-flag", "x"]),
        None,
    );
    assert_eq!(output.code, 2);
    assert!(
        output.stderr.contains("--no-such-flag"),
        "{}",
        output.stderr
    );
}

#[test]
fn prune_tells_before_it_does() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon
        .davit(&["create", "--name", "c", &image, "true"])
        .ok();
    let told = daemon.davit(&["system", "prune", "-a", "--dry-run"]).ok();
    assert!(told.contains("Would delete Containers:"), "{told}");
    assert!(!daemon.davit(&["ps", "-aq"]).ok().is_empty());
    daemon.davit(&["system", "prune", "-a", "-f"]).ok();
    assert_eq!(daemon.davit(&["ps", "-aq"]).ok(), "");
    assert_eq!(daemon.davit(&["images", "-q"]).ok(), "");
    let usage = daemon.davit(&["system", "df"]).ok();
    assert!(
        usage.contains("Images") && usage.contains("Containers"),
        "{usage}"
    );
    daemon.davit(&["debug"]).ok();
}

#[test]
fn failures_of_one_do_not_stop_the_others() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon
        .davit(&["create", "--name", "c", &image, "true"])
        .ok();
    let output = daemon.davit(&["rm", "nobody", "c"]);
    assert_eq!(output.code, 1);
    assert_eq!(output.stdout, "c\n");
    assert!(output.stderr.contains("nobody"), "{}", output.stderr);
    let forced = daemon.davit(&["rm", "-f", "nobody"]);
    assert_eq!(forced.code, 0);
}

#[test]
fn a_run_with_rm_ends_when_the_container_is_gone() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    for code in 0..8 {
        let script = format!("exit {code}");
        let output = daemon.davit(&["run", "--rm", "--name", "once", &image, "sh", "-c", &script]);
        assert_eq!(output.code, code, "{}", output.stderr);
        assert_eq!(daemon.davit(&["ps", "-aq"]).ok(), "");
    }
}

#[test]
fn errors_say_what_failed_once() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon
        .davit(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .ok();
    let output = daemon.davit(&["exec", "c", "nosuch"]);
    assert_eq!(output.code, 127);
    assert_eq!(
        output.stderr.matches("OCI runtime exec failed").count(),
        1,
        "{}",
        output.stderr
    );
    // A registry that is away is no daemon that is away.
    drop(registry);
    let output = daemon.davit(&["pull", &image.replace("busybox:1", "other:1")]);
    assert_eq!(output.code, 1);
    assert!(!output.stderr.contains("daemon"), "{}", output.stderr);
    assert!(output.stderr.contains("registry"), "{}", output.stderr);
}

#[test]
fn ps_shows_the_command_as_docker_does() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon
        .davit(&[
            "create",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "echo a b; sleep 1",
        ])
        .ok();
    let format = ["ps", "-a", "--format", "{{.Command}}"];
    assert_eq!(daemon.davit(&format).ok(), "\"sh -c 'echo a b; sl…\"");
    assert_eq!(daemon.davit(&format).ok(), daemon.docker(&format).ok());
}
