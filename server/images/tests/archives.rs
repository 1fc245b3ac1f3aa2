//! Archives: what skopeo writes is read, what we write skopeo reads, and what
//! strangers write does no harm.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, path::Path};

use davit_images::{
    Kind, Result,
    image::{ExportRequest, Image, ImportOptions},
};
use serde_json::json;
use support::{
    Home, NS, all,
    fixture::{Spec, gzip, host, layout, tar},
    run,
};
use tempfile::tempdir;

async fn import(home: &Home, bytes: Vec<u8>) -> Result<Vec<(String, Image)>> {
    import_with(home, bytes, ImportOptions::default()).await
}

async fn import_with(
    home: &Home,
    bytes: Vec<u8>,
    options: ImportOptions,
) -> Result<Vec<(String, Image)>> {
    let data = std::io::Cursor::new(bytes);
    let messages = all(home.images.import(NS, options, data)).await?;
    Ok(messages
        .into_iter()
        .filter_map(|m| Some((m.name, m.image?)))
        .collect())
}

async fn export(home: &Home, images: &[&str]) -> Result<Vec<u8>> {
    let images = images.iter().map(|&image| image.to_owned()).collect();
    let blocks = all(home.images.export(
        NS,
        ExportRequest {
            images,
            platform: None,
        },
    ))
    .await?;
    Ok(blocks.concat())
}

/// Nothing stays of what was refused, once garbage has been collected.
async fn assert_empty(home: &Home) {
    home.images.collector().run().await.unwrap();
    assert!(home.images.list(NS, &[]).await.unwrap().is_empty());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !home.images.content().ingests(NS).unwrap().is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "partial downloads stay"
        );
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Copies a layout with skopeo into an archive of this kind.
fn archived(kind: &str, name: &str, specs: &[Spec]) -> (Vec<u8>, String) {
    let dir = tempdir().unwrap();
    let digest = layout(&dir.path().join("layout"), "x", specs);
    let file = dir.path().join("archive.tar");
    let from = format!("oci:{}:x", dir.path().join("layout").display());
    let to = format!("{kind}:{}{name}", file.display());
    let all = if kind == "oci-archive" {
        vec!["copy", "-q", "--all"]
    } else {
        vec!["copy", "-q"]
    };
    run("skopeo", &[all, vec![from.as_str(), to.as_str()]].concat());
    (fs::read(&file).unwrap(), digest)
}

fn config_of(file: &Path, kind: &str) -> serde_json::Value {
    let from = format!("{kind}:{}", file.display());
    serde_json::from_str(&run("skopeo", &["inspect", "--config", &from])).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_archives_are_read() {
    let (bytes, _) = archived("docker-archive", ":repo/a:1", &[Spec::small("one")]);
    let home = Home::new().await;
    let loaded = import(&home, bytes.clone()).await.unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].0, "docker.io/repo/a:1");
    assert_eq!(loaded[0].1.labels["text"], "one");
    // The same archive, compressed, is the same image.
    for compressed in [gzip(&bytes), zstd::encode_all(bytes.as_slice(), 1).unwrap()] {
        let again = import(&home, compressed).await.unwrap();
        assert_eq!(again[0].1.target, loaded[0].1.target);
    }
    let events = home.events().await;
    assert_eq!(events[0], format!("load {}", loaded[0].1.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn layouts_keep_their_digests() {
    let foreign = if host() == "amd64" { "arm64" } else { "amd64" };
    let other = Spec {
        architecture: foreign,
        ..Spec::small("other")
    };
    let (bytes, digest) = archived("oci-archive", ":repo/a:1", &[Spec::small("own"), other]);
    let home = Home::new().await;
    let loaded = import(&home, bytes).await.unwrap();
    assert_eq!(loaded[0].0, "docker.io/repo/a:1");
    assert_eq!(loaded[0].1.target.digest, digest);
    assert_eq!(loaded[0].1.labels["text"], "own");
    // A tag alone takes its repository from the caller, or is none.
    let (bytes, _) = archived("oci-archive", ":v1", &[Spec::small("bare")]);
    let loaded = import(&home, bytes.clone()).await.unwrap();
    assert_eq!(loaded[0].0, "");
    assert!(loaded[0].1.names.is_empty());
    let options = ImportOptions {
        fallback_name: "x.example/y".into(),
        ..Default::default()
    };
    let loaded = import_with(&home, bytes, options).await.unwrap();
    assert_eq!(loaded[0].0, "x.example/y:v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_by_others_and_by_us() {
    let home = Home::new().await;
    let (one, digest) = archived("oci-archive", ":repo/one:1", &[Spec::small("one")]);
    let (two, _) = archived("docker-archive", ":repo/two:1", &[Spec::small("two")]);
    let one = import(&home, one).await.unwrap().remove(0).1;
    let two = import(&home, two).await.unwrap().remove(0).1;
    home.images
        .tag(NS, "repo/one:1", "repo/one:2")
        .await
        .unwrap();
    let bytes = export(&home, &["repo/one", "repo/two:1"]).await.unwrap();
    assert_eq!(
        bytes,
        export(&home, &["repo/one", "repo/two:1"]).await.unwrap(),
        "not the same again"
    );
    let dir = tempdir().unwrap();
    let single = dir.path().join("one.tar");
    fs::write(&single, export(&home, &["repo/one:1"]).await.unwrap()).unwrap();
    for kind in ["docker-archive", "oci-archive"] {
        let config = config_of(&single, kind);
        assert_eq!(config["config"]["Labels"]["text"], "one", "{kind}");
    }
    let fresh = Home::new().await;
    let mut names: Vec<_> = import(&fresh, bytes)
        .await
        .unwrap()
        .into_iter()
        .map(|(name, image)| (name, image.id))
        .collect();
    names.sort();
    let expected = [
        ("docker.io/repo/one:1".to_owned(), one.id.clone()),
        ("docker.io/repo/one:2".to_owned(), one.id.clone()),
        ("docker.io/repo/two:1".to_owned(), two.id.clone()),
    ];
    assert_eq!(names, expected);
    assert_eq!(
        fresh
            .images
            .get(NS, "repo/one:1", None)
            .await
            .unwrap()
            .target
            .digest,
        digest
    );
    // By its id an image goes without names.
    let nameless = export(&home, &[&two.id]).await.unwrap();
    let fresh = Home::new().await;
    let loaded = import(&fresh, nameless).await.unwrap();
    assert_eq!((loaded[0].0.as_str(), &loaded[0].1.id), ("", &two.id));
    assert_eq!(
        export(&home, &["nope"]).await.unwrap_err().kind(),
        Kind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn old_archives_with_linked_layers_are_read() {
    let layer = tar(&[("f".to_owned(), b"x".to_vec())]);
    let diff_id = davit_images::Digest::of(&layer);
    let config = json!({
        "architecture": host(), "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id, diff_id]},
    })
    .to_string();
    let manifest = json!([{
        "Config": "config.json", "RepoTags": ["old:1"], "Layers": ["a/layer.tar", "b/layer.tar"],
    }])
    .to_string();
    let mut builder = tar::Builder::new(Vec::new());
    let mut file = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    };
    file("a/VERSION", b"1.0");
    file("a/json", b"{}");
    file("a/layer.tar", &layer);
    file("config.json", config.as_bytes());
    file("manifest.json", manifest.as_bytes());
    file("repositories", b"{}");
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder
        .append_link(&mut link, "b/layer.tar", "../a/layer.tar")
        .unwrap();
    let home = Home::new().await;
    let loaded = import(&home, builder.into_inner().unwrap()).await.unwrap();
    assert_eq!(loaded[0].0, "docker.io/library/old:1");
    let resolved = home.images.resolve(NS, "old:1", None).await.unwrap();
    assert_eq!(resolved.layers.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_are_refused() {
    let home = Home::new().await;
    let (good, _) = archived("docker-archive", ":repo/a:1", &[Spec::small("one")]);
    let files = |files: &[(&str, &str)]| {
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect();
        tar(&files)
    };
    let zeros = format!("blobs/sha256/{}", "0".repeat(64));
    let mut escape = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    escape
        .append_link(&mut header, "layer.tar", "../../etc/passwd")
        .unwrap();
    let mut device = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Char);
    header.set_size(0);
    header.set_path("dev").unwrap();
    header.set_cksum();
    device.append(&header, std::io::empty()).unwrap();
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("rubbish", b"not a tar at all".repeat(100)),
        ("cut off", good[..good.len() / 2].to_vec()),
        ("no manifest", files(&[("x", "y")])),
        ("wrong digest", files(&[(&zeros, "y"), ("index.json", "{}")])),
        ("bad digest", files(&[("blobs/sha256/xyz", "y")])),
        ("bad json", files(&[("manifest.json", "[{]")])),
        ("missing config", files(&[("manifest.json", r#"[{"Config":"c","Layers":[]}]"#)])),
        ("path out", files(&[("manifest.json", r#"[{"Config":"../../etc/passwd","Layers":[]}]"#)])),
        ("config is no config", files(&[("manifest.json", r#"[{"Config":"c","Layers":[]}]"#), ("c", "[]")])),
        (
            "layers that are not there",
            files(&[("manifest.json", r#"[{"Config":"c","Layers":["l"]}]"#), ("c", "{}")]),
        ),
        (
            "more layers than the config says",
            files(&[("manifest.json", r#"[{"Config":"c","Layers":["l"]}]"#), ("c", "{}"), ("l", "")]),
        ),
        (
            "bad name",
            files(&[("manifest.json", r#"[{"Config":"c","RepoTags":["A B"],"Layers":[]}]"#), ("c", "{}")]),
        ),
        ("index of nothing there", files(&[("index.json", &json!({"manifests":[{
            "mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":format!("sha256:{}","0".repeat(64))}]}).to_string())])),
        ("link out", escape.into_inner().unwrap()),
        ("device", device.into_inner().unwrap()),
    ];
    for (what, bytes) in bad {
        let error = import(&home, bytes).await.expect_err(what);
        assert_eq!(error.kind(), Kind::InvalidArgument, "{what}: {error}");
        assert_empty(&home).await;
    }
    // A layer that is not what the config says.
    let diff_id = format!("sha256:{}", "1".repeat(64));
    let config = json!({"architecture": host(), "os": "linux", "rootfs": {"diff_ids": [diff_id]}})
        .to_string();
    let layer = tar(&[("f".to_owned(), b"x".to_vec())]);
    let bytes = tar(&[
        (
            "manifest.json".to_owned(),
            br#"[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]"#.to_vec(),
        ),
        ("c".to_owned(), config.into_bytes()),
        ("l".to_owned(), layer),
    ]);
    let error = import(&home, bytes).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    assert_empty(&home).await;
    // After all of that, a good one is taken.
    assert_eq!(import(&home, good).await.unwrap().len(), 1);
}
