//! Images: out of a real registry and back, archives, hostile layers.

use std::fs;

use davit_tests::{Daemon, ImageSpec, Registry, busybox_layout, run, run_ok};
use serde_json::{Value, json};

fn inspect(daemon: &Daemon, image: &str, template: &str) -> String {
    daemon
        .davit(&["image", "inspect", "-f", template, image])
        .ok()
}

#[test]
fn pull_tag_push_keeps_the_digest() {
    let (registry, other) = (Registry::start(), Registry::start_with_auth("me", "secret"));
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "a/busybox:1.0", &ImageSpec::default());
    let digest = inspect(&daemon, &image, "{{.Descriptor.digest}}");
    let target = other.reference("b/box:1");
    daemon.davit(&["tag", &image, &target]).ok();
    let refused = daemon.davit(&["push", &target]);
    assert_eq!(refused.code, 1, "a push without credentials went through");
    let wrong = daemon.davit(&["push", "-u", "me:wrong", &target]);
    assert_eq!(wrong.code, 1);
    daemon.davit(&["push", "-u", "me:secret", &target]).ok();
    let remote = run_ok(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--creds",
            "me:secret",
            "--format",
            "{{.Digest}}",
            &format!("docker://{target}"),
        ],
    );
    assert_eq!(remote, digest);
    daemon.davit(&["rmi", &target]).ok();
    daemon
        .davit(&["pull", "-q", "-u", "me:secret", &target])
        .ok();
    assert_eq!(inspect(&daemon, &target, "{{.Descriptor.digest}}"), digest);
}

#[test]
fn every_compression_unpacks_to_the_same_files() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let mut ids = Vec::new();
    for compression in ["gzip", "zstd", ""] {
        let spec = ImageSpec {
            compression,
            files: vec![("data/file".into(), b"content".to_vec())],
            ..Default::default()
        };
        let image = daemon.pull_busybox(&registry, &format!("box:c{}", compression.len()), &spec);
        assert_eq!(
            daemon
                .davit(&["run", "--rm", &image, "cat", "/data/file"])
                .ok(),
            "content"
        );
        ids.push(inspect(&daemon, &image, "{{.Id}}"));
    }
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
}

#[test]
fn what_is_not_there_is_told() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let missing = daemon.davit(&["pull", &registry.reference("nobody/nothing:1")]);
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.contains("nobody/nothing"),
        "{}",
        missing.stderr
    );
    let invalid = daemon.davit(&["pull", "name/Upper"]);
    assert!(
        invalid.stderr.contains("must be lowercase"),
        "{}",
        invalid.stderr
    );
    let unknown = daemon.davit(&["rmi", "not-here"]);
    assert!(
        unknown.stderr.contains("No such image"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn save_and_load_are_each_others_and_skopeos() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    let id = inspect(&daemon, &image, "{{.Id}}");
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("saved.tar");
    let tar = tar.to_str().unwrap();
    daemon.davit(&["save", "-o", tar, &image]).ok();
    run_ok("skopeo", &["inspect", &format!("docker-archive:{tar}")]);
    run_ok("skopeo", &["inspect", &format!("oci-archive:{tar}")]);
    daemon.davit(&["rmi", &image]).ok();
    assert_eq!(daemon.davit(&["images", "-q"]).ok(), "");
    let loaded = daemon.davit(&["load", "-i", tar]).ok();
    assert!(loaded.contains("Loaded image: "), "{loaded}");
    assert_eq!(inspect(&daemon, &image, "{{.Id}}"), id);
    assert_eq!(
        daemon.davit(&["run", "--rm", &image, "echo", "ok"]).ok(),
        "ok"
    );
    // An archive that skopeo wrote, gzipped on the way.
    busybox_layout(dir.path(), &ImageSpec::default());
    let layout = format!("oci:{}:latest", dir.path().join("layout").display());
    let archive = dir.path().join("archive.tar");
    run_ok(
        "skopeo",
        &[
            "copy",
            "-q",
            &layout,
            &format!(
                "docker-archive:{}:example.org/from/skopeo:7",
                archive.display()
            ),
        ],
    );
    run_ok("gzip", &[archive.to_str().unwrap()]);
    daemon
        .davit(&["load", "-i", &format!("{}.gz", archive.display())])
        .ok();
    assert_eq!(
        daemon
            .davit(&["run", "--rm", "example.org/from/skopeo:7", "echo", "ok"])
            .ok(),
        "ok"
    );
}

#[test]
fn removing_the_last_name_frees_the_disk() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let spec = ImageSpec {
        files: vec![("big".into(), vec![7; 5_000_000])],
        ..Default::default()
    };
    let image = daemon.pull_busybox(&registry, "big:1", &spec);
    let size = || -> u64 {
        let text = run_ok(
            "du",
            &["-s", "--block-size=1", daemon.root().to_str().unwrap()],
        );
        text.split_whitespace().next().unwrap().parse().unwrap()
    };
    let full = size();
    daemon.davit(&["rmi", &image]).ok();
    davit_tests::eventually("the disk to be free", || size() + 5_000_000 < full);
}

#[test]
fn an_image_in_use_is_not_removed_without_force() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon
        .davit(&["create", "--name", "c", &image, "true"])
        .ok();
    let refused = daemon.davit(&["rmi", &image]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("must force") || refused.stderr.contains("must be forced"),
        "{}",
        refused.stderr
    );
    assert_eq!(daemon.davit(&["image", "prune", "-a", "-f"]).code, 0);
    daemon.davit(&["start", "c"]).ok();
    assert_eq!(daemon.davit(&["wait", "c"]).ok(), "0");
}

/// An OCI layout whose only layer is `tar`.
fn hostile(dir: &std::path::Path, tar: &[u8]) -> String {
    busybox_layout(
        dir,
        &ImageSpec {
            compression: "",
            ..Default::default()
        },
    );
    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    let put = |bytes: &[u8]| -> (String, usize) {
        let file = blobs.join("new");
        fs::write(&file, bytes).unwrap();
        let line = run_ok("sha256sum", &[file.to_str().unwrap()]);
        let hex = line.split_whitespace().next().unwrap().to_owned();
        fs::rename(file, blobs.join(&hex)).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    };
    let layer = put(tar);
    let config = put(&serde_json::to_vec(&json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.0]},
    }))
    .unwrap());
    let manifest = put(&serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.0, "size": layer.1}],
    })).unwrap());
    let mut index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"] = manifest.0.into();
    index["manifests"][0]["size"] = manifest.1.into();
    fs::write(
        layout.join("index.json"),
        serde_json::to_vec(&index).unwrap(),
    )
    .unwrap();
    format!("{}:latest", layout.display())
}

fn entry(name: &str, kind: tar::EntryType, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    // The name is written as it is: the crate's own setter refuses "..".
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn layers_that_leave_their_root_are_refused_and_leave_nothing() {
    use tar::EntryType::{Link, Regular, Symlink};
    let registry = Registry::start();
    let daemon = Daemon::start();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("dots", vec![entry("../../../../escape", Regular, "", b"x")]),
        (
            "hardlink",
            vec![entry("link", Link, "../../../../etc/passwd", b"")],
        ),
        (
            "symlink",
            vec![
                entry("out", Symlink, target, b""),
                entry("out/escape", Regular, "", b"x"),
            ],
        ),
    ];
    for (name, entries) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut tar: Vec<u8> = entries.concat();
        tar.extend([0; 1024]);
        let layout = hostile(dir.path(), &tar);
        let reference = registry.push_layout(&layout, &format!("hostile/{name}:1"));
        let output = daemon.davit(&["pull", &reference]);
        // A symbolic link is resolved inside the root, which is fine, too.
        if name != "symlink" {
            assert_eq!(output.code, 1, "{name} was unpacked");
            assert!(
                output.stderr.contains("sha256:"),
                "{name}: {}",
                output.stderr
            );
        }
        assert_eq!(
            fs::read_dir(outside.path()).unwrap().count(),
            0,
            "{name} wrote outside"
        );
        assert!(!fs::exists("/escape").unwrap());
    }
}

#[test]
fn a_broken_blob_is_refused() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    busybox_layout(dir.path(), &ImageSpec::default());
    let layout = format!("{}:latest", dir.path().join("layout").display());
    let reference = registry.push_layout(&layout, "broken:1");
    // The registry's largest blob is the layer; flip a byte in its middle.
    let find = run_ok(
        "find",
        &[
            registry.data().to_str().unwrap(),
            "-name",
            "data",
            "-size",
            "+100k",
        ],
    );
    let blob = find.lines().next().expect("a layer");
    let mut bytes = fs::read(blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(blob, bytes).unwrap();
    let output = daemon.davit(&["pull", &reference]);
    assert_eq!(output.code, 1);
    assert_eq!(daemon.davit(&["images", "-q"]).ok(), "");
}

#[test]
fn mirrors_of_hosts_toml_serve_docker_hub_names() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    busybox_layout(dir.path(), &ImageSpec::default());
    registry.push_layout(
        &format!("{}:latest", dir.path().join("layout").display()),
        "library/busybox:latest",
    );
    let certs = dir.path().join("certs.d/docker.io");
    fs::create_dir_all(&certs).unwrap();
    fs::write(
        certs.join("hosts.toml"),
        format!("server = \"https://registry-1.docker.io\"\n[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", registry.host()),
    )
    .unwrap();
    let config = format!(
        "[images]\ncerts_d = [\"{}\"]\n",
        dir.path().join("certs.d").display()
    );
    let daemon = Daemon::builder().config(&config).start();
    assert_eq!(
        daemon
            .davit(&["run", "--rm", "busybox", "echo", "mirrored"])
            .ok(),
        "mirrored"
    );
    assert_eq!(
        daemon
            .davit(&["images", "--format", "{{.Repository}}:{{.Tag}}"])
            .ok(),
        "busybox:latest"
    );
}

#[test]
fn many_clients_pull_one_image_at_once() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let dir = tempfile::tempdir().unwrap();
    let spec = ImageSpec {
        files: vec![("big".into(), vec![1; 20_000_000])],
        ..Default::default()
    };
    busybox_layout(dir.path(), &spec);
    let reference = registry.push_layout(
        &format!("{}:latest", dir.path().join("layout").display()),
        "one:1",
    );
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| daemon.davit(&["pull", "-q", &reference]).ok());
        }
    });
    assert_eq!(
        daemon
            .davit(&["run", "--rm", &reference, "echo", "ok"])
            .ok(),
        "ok"
    );
}

#[test]
fn import_makes_an_image_and_commit_another() {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:1", &ImageSpec::default());
    daemon
        .davit(&[
            "run",
            "--name",
            "c",
            &image,
            "sh",
            "-c",
            "echo new > /added; rm /etc/group",
        ])
        .ok();
    let diff = daemon.davit(&["diff", "c"]).ok();
    let mut lines: Vec<&str> = diff.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A /added", "C /etc", "D /etc/group"]);
    daemon
        .davit(&["commit", "-m", "why", "-c", "ENV X=y", "c", "made:1"])
        .ok();
    assert_eq!(
        daemon
            .davit(&[
                "run",
                "--rm",
                "made:1",
                "sh",
                "-c",
                "cat /added; ls /etc; echo $X"
            ])
            .ok(),
        "new\nhostname\nhosts\npasswd\nresolv.conf\ny"
    );
    let export = run(daemon.davit_command().args(["export", "c"]), None);
    assert_eq!(export.code, 0);
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("c.tar");
    daemon
        .davit(&["export", "-o", tar.to_str().unwrap(), "c"])
        .ok();
    daemon
        .davit(&[
            "import",
            "-c",
            "CMD [\"cat\", \"/added\"]",
            tar.to_str().unwrap(),
            "imported:1",
        ])
        .ok();
    assert_eq!(daemon.davit(&["run", "--rm", "imported:1"]).ok(), "new");
    let history = daemon
        .davit(&["history", "--format", "{{.Comment}}", "made:1"])
        .ok();
    assert_eq!(history.lines().next(), Some("why"));
}
