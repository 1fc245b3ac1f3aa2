//! Images that tests make: busybox-static in an OCI layout, with any config
//! and any further layers.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Stdio,
};

use serde_json::{Value, json};

use crate::binary::{command, run_ok};

/// What goes into a test image beside busybox.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// The image config's "config" object.
    pub config: Value,
    /// Files of a second layer: path below the root, and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Compression of the layers: "gzip", "zstd" or "".
    pub compression: &'static str,
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            config: json!({"Cmd": ["sh"]}),
            files: Vec::new(),
            compression: "gzip",
        }
    }
}

/// Applets that get a link; enough for shell scripts in containers.
const APPLETS: &[&str] = &[
    "sh",
    "ls",
    "cat",
    "echo",
    "sleep",
    "true",
    "false",
    "id",
    "env",
    "hostname",
    "mount",
    "ps",
    "kill",
    "touch",
    "rm",
    "mkdir",
    "head",
    "tail",
    "wc",
    "seq",
    "yes",
    "dd",
    "stat",
    "grep",
    "sed",
    "awk",
    "tr",
    "cut",
    "sort",
    "date",
    "ln",
    "cp",
    "mv",
    "chmod",
    "chown",
    "test",
    "printf",
    "trap",
    "pwd",
    "uname",
    "nproc",
    "md5sum",
    "sha256sum",
    "od",
    "tty",
    "stty",
    "ip",
    "nc",
    "top",
    "httpd",
    "wget",
    "vi",
    "find",
    "xargs",
    "which",
    "whoami",
    "readlink",
    "df",
    "du",
    "tee",
    "mknod",
    "mkfifo",
    "timeout",
    "usleep",
    "sync",
    "tar",
    "gzip",
    "ping",
    "ifconfig",
    "nslookup",
];

/// Writes an OCI layout with one image tagged "latest" into `dir`.
#[track_caller]
pub fn busybox_layout(dir: &Path, spec: &ImageSpec) {
    let tree = dir.join("tree");
    base_tree(&tree);
    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("the layout directory can be made");
    let mut layers = vec![layer(&tree, &blobs, spec.compression)];
    if !spec.files.is_empty() {
        let extra = dir.join("extra");
        for (path, content) in &spec.files {
            let path = extra.join(path);
            fs::create_dir_all(path.parent().expect("files lie below the root"))
                .expect("directories can be made");
            fs::write(path, content).expect("files can be written");
        }
        layers.push(layer(&extra, &blobs, spec.compression));
    }
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": spec.config,
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>()},
        "history": layers.iter().map(|_| json!({"created": "2026-01-01T00:00:00Z", "created_by": "davit-tests"})).collect::<Vec<_>>(),
    });
    let config = blob(&blobs, &serde_json::to_vec(&config).expect("JSON"));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
        "layers": layers.iter().map(|l| json!({"mediaType": l.media_type, "digest": l.digest, "size": l.size})).collect::<Vec<_>>(),
    });
    let manifest = blob(&blobs, &serde_json::to_vec(&manifest).expect("JSON"));
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.0, "size": manifest.1,
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
        }],
    });
    fs::write(
        layout.join("index.json"),
        serde_json::to_vec(&index).expect("JSON"),
    )
    .expect("index.json can be written");
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("oci-layout can be written");
}

struct Layer {
    media_type: &'static str,
    digest: String,
    diff_id: String,
    size: u64,
}

fn base_tree(tree: &Path) {
    let bin = tree.join("bin");
    for dir in [
        "bin", "etc", "proc", "sys", "dev", "tmp", "root", "var/log", "usr/bin",
    ] {
        fs::create_dir_all(tree.join(dir)).expect("directories can be made");
    }
    fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed (make deps)");
    for applet in APPLETS {
        let _ = std::os::unix::fs::symlink("busybox", bin.join(applet));
    }
    fs::write(
        tree.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\n",
    )
    .expect("passwd can be written");
    fs::write(
        tree.join("etc/group"),
        "root:x:0:\nnogroup:x:65534:\napp:x:1000:\nextra:x:2000:app\n",
    )
    .expect("group can be written");
    run_ok(
        "chmod",
        &["1777", tree.join("tmp").to_str().expect("UTF-8")],
    );
}

fn layer(tree: &Path, blobs: &Path, compression: &str) -> Layer {
    let plain = blobs.join("plain.tar");
    run_ok(
        "tar",
        &[
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mtime=@1767225600",
            "-C",
            tree.to_str().expect("UTF-8"),
            "-cf",
            plain.to_str().expect("UTF-8"),
            ".",
        ],
    );
    let diff_id = sha256(&plain);
    let (file, media_type) = match compression {
        "" => (plain.clone(), "application/vnd.oci.image.layer.v1.tar"),
        "zstd" => (
            compress(&plain, "zstd"),
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ),
        _ => (
            compress(&plain, "gzip"),
            "application/vnd.oci.image.layer.v1.tar+gzip",
        ),
    };
    let digest = sha256(&file);
    let size = fs::metadata(&file).expect("the layer exists").len();
    fs::rename(&file, blobs.join(&digest["sha256:".len()..])).expect("a blob can be renamed");
    let _ = fs::remove_file(&plain);
    Layer {
        media_type,
        digest,
        diff_id,
        size,
    }
}

fn compress(plain: &Path, program: &str) -> std::path::PathBuf {
    let target = plain.with_extension("compressed");
    let output = File::create(&target).expect("a blob can be written");
    let flags: &[&str] = if program == "gzip" {
        &["-n", "-c"]
    } else {
        &["-q", "-c"]
    };
    let status = command(program)
        .args(flags)
        .arg(plain)
        .stdout(Stdio::from(output))
        .status()
        .expect("the compressor is installed (make deps)");
    assert!(status.success(), "{program} failed");
    target
}

fn sha256(file: &Path) -> String {
    let line = run_ok("sha256sum", &[file.to_str().expect("UTF-8")]);
    format!(
        "sha256:{}",
        line.split_whitespace().next().expect("a digest")
    )
}

fn blob(blobs: &Path, bytes: &[u8]) -> (String, usize) {
    let path = blobs.join("new");
    File::create(&path)
        .and_then(|mut file| file.write_all(bytes))
        .expect("a blob can be written");
    let digest = sha256(&path);
    fs::rename(&path, blobs.join(&digest["sha256:".len()..])).expect("a blob can be renamed");
    (digest, bytes.len())
}
