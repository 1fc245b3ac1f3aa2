//! The SDK example of the README, generated from the .proto files and run.

use std::fs;

use davit_tests::{
    Daemon, ImageSpec, Registry, api_reference, command, run, run_ok, workspace_root,
};

#[test]
fn the_api_reference_is_up_to_date() {
    let written = fs::read_to_string(workspace_root().join("docs/api.md")).expect("docs/api.md");
    assert!(
        written == api_reference(),
        "docs/api.md is old: run `make doc`"
    );
}

#[test]
fn the_python_example_of_the_readme_runs() {
    let readme = fs::read_to_string(workspace_root().join("README.md")).unwrap();
    let example = readme
        .split("```python\n")
        .nth(1)
        .expect("the example")
        .split("```")
        .next()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    run_ok("python3", &["-m", "venv", &path("venv")]);
    run_ok(
        path("venv/bin/pip"),
        &["install", "-q", "grpcio", "grpcio-tools"],
    );
    let proto = workspace_root().join("proto");
    let mut generate = command(path("venv/bin/python"));
    generate.args(["-m", "grpc_tools.protoc", "-I"]).arg(&proto);
    generate
        .arg(format!("--python_out={}", path("")))
        .arg(format!("--grpc_python_out={}", path("")));
    for entry in fs::read_dir(proto.join("davit/v1")).unwrap().flatten() {
        generate.arg(entry.path());
    }
    run(&mut generate, None).ok();
    fs::write(path("example.py"), example).unwrap();
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon.davit(&["rmi", &image]).ok();
    let mut example = command(path("venv/bin/python"));
    example
        .arg(path("example.py"))
        .arg(daemon.address())
        .arg(&image)
        .env("PYTHONPATH", dir.path());
    assert_eq!(run(&mut example, None).ok(), "hello from Python");
    assert_eq!(daemon.davit(&["ps", "-aq"]).ok(), "");
}
