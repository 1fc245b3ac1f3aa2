//! Rules of the source tree, as tests: the dependency table of DESIGN.md, the
//! owner's top level, unsafe code in one crate only, and a README whose map
//! does not rot.

use std::{collections::BTreeMap, fs, path::Path};

use davit_tests::{run_ok, workspace_root};
use serde_json::Value;

/// What each crate may use of ours.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    [
        ("davit-sys", [].as_slice()),
        ("davit-proto", &[]),
        ("davit-store", &["davit-proto"]),
        ("davit-images", &["davit-store", "davit-sys"]),
        (
            "davit-engine",
            &["davit-store", "davit-images", "davit-sys", "davit-proto"],
        ),
        ("davit-build", &["davit-engine", "davit-images"]),
        ("davit-gateway", &["davit-proto", "davit-client"]),
        ("davit-client", &["davit-proto"]),
        ("davit-shim", &["davit-proto", "davit-sys"]),
        ("davit-tests", &["davit-client", "davit-proto"]),
    ]
    .into()
}

fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let manifest = workspace_root().join("Cargo.toml");
    let manifest = manifest.to_str().expect("UTF-8");
    let args = [
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--offline",
        "--manifest-path",
        manifest,
    ];
    let metadata: Value = serde_json::from_str(&run_ok(cargo, &args)).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn dependencies(package: &Value) -> Vec<String> {
    package["dependencies"]
        .as_array()
        .expect("dependencies")
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let allowed = allowed();
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        if name == "davitd" {
            continue;
        }
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        for dependency in dependencies(&package) {
            if dependency.starts_with("davit") {
                assert!(
                    may.contains(&dependency.as_str()),
                    "{name} may not use {dependency}"
                );
            }
        }
    }
}

#[test]
fn the_inside_knows_no_wire_format() {
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        if ["davit-store", "davit-images", "davit-engine", "davit-build"].contains(&name) {
            for dependency in dependencies(&package) {
                assert!(
                    !["tonic", "axum", "prost"].contains(&dependency.as_str()),
                    "{name} uses {dependency}"
                );
            }
        }
    }
}

#[test]
fn the_owners_crates_are_used() {
    let used: Vec<String> = packages().iter().flat_map(dependencies).collect();
    for name in [
        "tonic",
        "prost",
        "tokio",
        "sled",
        "nix",
        "oci-spec",
        "tower",
        "tracing-subscriber",
        "uuid",
        "async-stream",
    ] {
        assert!(
            used.iter().any(|dependency| dependency == name),
            "{name} is not used"
        );
    }
}

#[test]
fn only_the_store_knows_sled() {
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        if name != "davit-store" {
            assert!(
                !dependencies(&package).contains(&"sled".to_owned()),
                "{name} uses sled"
            );
        }
    }
}

fn sources(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn unsafe_code_is_in_sys_only_and_no_file_is_a_drawer() {
    let root = workspace_root();
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 100, "the sources were not found");
    for file in files {
        let shown = file
            .strip_prefix(&root)
            .expect("below the root")
            .display()
            .to_string();
        let stem = file
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(
            !["utils", "util", "helpers", "helper", "common", "misc"].contains(&stem.as_str()),
            "{shown}: name the noun"
        );
        if shown.starts_with("shim/sys/") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("UTF-8");
        let allows = ["allow(", "unsafe_code"].concat();
        assert!(!text.contains(&allows), "{shown} allows unsafe code");
    }
}

#[test]
fn the_top_level_is_the_owners() {
    let root = workspace_root();
    let known = [
        "Cargo.toml",
        "Cargo.lock",
        "proto",
        "server",
        "client",
        "shim",
        "tests",
        "README.md",
        "Makefile",
        "docs",
        "target",
        "LICENSE",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ];
    for entry in fs::read_dir(root).expect("the root").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(
            name.starts_with('.') || known.contains(&name.as_str()),
            "{name} does not belong there"
        );
    }
}

#[test]
fn paths_in_the_readme_exist() {
    let root = workspace_root();
    let readme = fs::read_to_string(root.join("README.md")).expect("the README");
    let mut map = readme
        .split("## The map")
        .nth(1)
        .expect("a section \"The map\"")
        .split("```");
    let map = map.nth(1).expect("a block");
    let mut checked = 0;
    for line in map.lines().filter(|line| !line.trim().is_empty()) {
        let path = line.split_whitespace().next().expect("a path");
        assert!(root.join(path).exists(), "README: {path} does not exist");
        checked += 1;
    }
    assert!(checked >= 8, "the map is empty");
}
