//! Images made on the spot.

use std::{fs, io::Write, path::Path};

use davit_images::Digest;
use serde_json::{Value, json};

/// One image of a layout.
#[derive(Clone)]
pub struct Spec {
    pub architecture: &'static str,
    /// Layers, lowest first: files with their content.
    pub layers: Vec<Vec<(String, Vec<u8>)>>,
    pub config: Value,
    pub gzip: bool,
}

impl Spec {
    /// Two small layers.
    pub fn small(text: &str) -> Self {
        Self {
            architecture: host(),
            layers: vec![
                vec![("etc/base".to_owned(), b"base".to_vec())],
                vec![("etc/text".to_owned(), text.as_bytes().to_vec())],
            ],
            config: json!({"Cmd": ["/bin/sh"], "Env": ["A=b"], "Labels": {"text": text}}),
            gzip: true,
        }
    }

    /// Layers of these sizes, of bytes that do not compress.
    pub fn noise(sizes: &[usize]) -> Self {
        let layer =
            |(n, size): (usize, &usize)| vec![(format!("noise{n}"), noise(n as u64 + 1, *size))];
        Self {
            layers: sizes.iter().enumerate().map(layer).collect(),
            ..Self::small("noise")
        }
    }
}

pub fn host() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// Bytes that look random and are always the same.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
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

/// A tar of files.
pub fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        builder
            .append_data(&mut header, path, content.as_slice())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes an OCI layout with one image, or an index of several, under a tag.
/// Gives the digest that the tag points to.
pub fn layout(dir: &Path, tag: &str, specs: &[Spec]) -> String {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let put = |bytes: &[u8]| -> (String, usize) {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest.to_string(), bytes.len())
    };
    let mut manifests: Vec<Value> = specs.iter().map(|spec| image(spec, &put)).collect();
    let mut top = if manifests.len() == 1 {
        let mut only = manifests.remove(0);
        only.as_object_mut().unwrap().remove("platform");
        only
    } else {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        });
        let (digest, size) = put(&serde_json::to_vec(&index).unwrap());
        json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size})
    };
    let digest = top["digest"].as_str().unwrap().to_owned();
    top["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    let index = json!({"schemaVersion": 2, "manifests": [top]});
    fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    digest
}

fn image(spec: &Spec, put: &impl Fn(&[u8]) -> (String, usize)) -> Value {
    let mut diff_ids = Vec::new();
    let mut layers = Vec::new();
    for files in &spec.layers {
        let plain = tar(files);
        diff_ids.push(Digest::of(&plain).to_string());
        let (bytes, suffix) = if spec.gzip {
            (gzip(&plain), "+gzip")
        } else {
            (plain, "")
        };
        let (digest, size) = put(&bytes);
        layers.push(json!({
            "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            "digest": digest, "size": size,
        }));
    }
    let history: Vec<Value> = (0..layers.len())
        .map(|n| json!({"created": "2024-01-01T00:00:00Z", "created_by": format!("step {n}")}))
        .chain([
            json!({"created": "2024-01-02T00:00:00Z", "created_by": "CMD", "empty_layer": true}),
        ])
        .collect();
    let config = json!({
        "architecture": spec.architecture, "os": "linux", "created": "2024-01-02T00:00:00Z",
        "author": "tests", "config": spec.config, "history": history,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let (digest, size) = put(&serde_json::to_vec(&config).unwrap());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size},
        "layers": layers,
    });
    let (digest, size) = put(&serde_json::to_vec(&manifest).unwrap());
    json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
        "platform": {"architecture": spec.architecture, "os": "linux"},
    })
}
