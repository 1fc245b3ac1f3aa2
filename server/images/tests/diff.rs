//! What differs between a snapshot and its parent: the list, and the layer
//! that makes the same tree again, with both snapshotters.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use davit_images::{
    Images, Kind, Operation,
    content::Labels,
    diff::{self, ChangeKind, Compression, LayerOptions, NewLayer},
    image::{CreateFromTarOptions, NewImage},
};
use sha2::{Digest as _, Sha256};
use support::{Home, NS, run};
use tempfile::tempdir;

const SNAPSHOTTERS: [&str; 2] = ["overlayfs", "native"];

/// Makes an image of the directory, unpacked, and an active snapshot "c" on it.
async fn container(images: &Images, dir: &Path, op: &Operation) -> String {
    let tar = tempfile::NamedTempFile::new().unwrap();
    let (dir, to) = (dir.to_str().unwrap(), tar.path().to_str().unwrap());
    run("tar", &["--xattrs", "-C", dir, "-cf", to, "."]);
    let options = CreateFromTarOptions {
        name: "base:1".into(),
        ..Default::default()
    };
    let bytes = std::io::Cursor::new(fs::read(tar.path()).unwrap());
    let image = images.create_from_tar(NS, options, bytes).await.unwrap();
    let resolved = images.resolve(NS, &image.id, None).await.unwrap();
    let chain = images.unpack(op, &resolved).await.unwrap();
    images
        .snapshots("")
        .unwrap()
        .prepare(op, "c", &chain, Labels::new())
        .await
        .unwrap();
    image.id
}

async fn writable(images: &Images) -> (OwnedFd, PathBuf) {
    let tree = images
        .snapshots("")
        .unwrap()
        .open_tree_writable(NS, "c")
        .await
        .unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    (tree, path)
}

async fn changes(images: &Images) -> Vec<String> {
    let found = diff::changes(images.snapshots("").unwrap(), NS, "c")
        .await
        .unwrap();
    let letter = |kind| match kind {
        ChangeKind::Added => 'A',
        ChangeKind::Modified => 'C',
        ChangeKind::Deleted => 'D',
    };
    found
        .iter()
        .map(|change| format!("{} {}", letter(change.kind), change.path.display()))
        .collect()
}

async fn layer(images: &Images, op: &Operation, options: LayerOptions) -> NewLayer {
    diff::layer(
        images.content(),
        images.snapshots("").unwrap(),
        op,
        "c",
        options,
    )
    .await
    .unwrap()
}

/// The uncompressed bytes of a layer, by the program for its compression.
fn unpacked(images: &Images, layer: &NewLayer) -> Vec<u8> {
    let (mut file, _) = images.content().open(NS, &layer.blob.digest).unwrap();
    let mut bytes = Vec::new();
    match layer.media_type.rsplit('+').next().unwrap() {
        "gzip" => flate2::read::GzDecoder::new(file)
            .read_to_end(&mut bytes)
            .unwrap(),
        "zstd" => zstd::stream::read::Decoder::new(file)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap(),
        _ => file.read_to_end(&mut bytes).unwrap(),
    };
    bytes
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let name = |entry: std::io::Result<tar::Entry<'_, _>>| {
        entry
            .unwrap()
            .path()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    archive.entries().unwrap().map(name).collect()
}

/// Every file of a tree with what can be seen of it.
fn facts(tree: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, dir: &Path, facts: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path
                .symlink_metadata()
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let content = match (meta.is_symlink(), meta.is_file()) {
                (true, _) => fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes(),
                (_, true) => fs::read(&path).unwrap(),
                _ => Vec::new(),
            };
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            let fact = format!(
                "{:o} {}:{} {} {links} {:?}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.rdev(),
                content
            );
            facts.insert(path.strip_prefix(root).unwrap().to_owned(), fact);
            if meta.is_dir() {
                walk(root, &path, facts);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(tree, tree, &mut found);
    found
}

fn base(dir: &Path) {
    for sub in ["etc/sub", "gone/deep", "replaced", "opaque", "still"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    for file in [
        "etc/passwd",
        "etc/sub/x",
        "gone/deep/f",
        "replaced/f",
        "opaque/old",
        "opaque/kept",
        "still/f",
        "file",
        "mode",
    ] {
        fs::write(dir.join(file), format!("old {file}")).unwrap();
    }
    symlink("file", dir.join("link")).unwrap();
}

fn change(tree: &Path) {
    fs::write(tree.join("etc/passwd"), "new content").unwrap();
    fs::write(tree.join("etc/sub/added"), "added").unwrap();
    fs::remove_dir_all(tree.join("gone")).unwrap();
    fs::remove_dir_all(tree.join("replaced")).unwrap();
    fs::write(tree.join("replaced"), "a file now").unwrap();
    fs::remove_dir_all(tree.join("opaque")).unwrap();
    fs::create_dir(tree.join("opaque")).unwrap();
    fs::write(tree.join("opaque/kept"), "made anew").unwrap();
    fs::remove_file(tree.join("file")).unwrap();
    fs::create_dir(tree.join("file")).unwrap();
    fs::write(tree.join("file/inside"), "in").unwrap();
    fs::set_permissions(tree.join("mode"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::remove_file(tree.join("link")).unwrap();
    symlink("etc", tree.join("link")).unwrap();
    fs::write(tree.join("one"), "linked").unwrap();
    fs::hard_link(tree.join("one"), tree.join("two")).unwrap();
    let long = format!("long-{}", "n".repeat(150));
    fs::write(tree.join(&long), "").unwrap();
    rustix::fs::setxattr(
        tree.join("one"),
        "user.note",
        b"n",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
}

async fn home(snapshotter: &str) -> Home {
    let name = snapshotter.to_owned();
    Home::with(move |config| config.snapshotter = name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_makes_the_same_tree_again() {
    for snapshotter in SNAPSHOTTERS {
        let home = home(snapshotter).await;
        let images = &home.images;
        let op = images.leases().operation(NS);
        let dir = tempdir().unwrap();
        base(dir.path());
        let parent = container(images, dir.path(), &op).await;
        assert!(changes(images).await.is_empty(), "{snapshotter}");
        let (tree, path) = writable(images).await;
        change(&path);
        let expected = facts(&path);
        drop(tree);

        let long = format!("A /long-{}", "n".repeat(150));
        let list = [
            "C /etc/passwd",
            "C /etc/sub",
            "A /etc/sub/added",
            "C /file",
            "A /file/inside",
            "D /gone",
            "C /link",
            &long,
            "C /mode",
            "A /one",
            "C /opaque",
            "C /opaque/kept",
            "D /opaque/old",
            "C /replaced",
            "A /two",
        ];
        let mut found = changes(images).await;
        found.retain(|line| line != "C /etc");
        assert_eq!(found, list, "{snapshotter}");

        let layer = layer(images, &op, LayerOptions::default()).await;
        let tar = unpacked(images, &layer);
        assert_eq!(layer.diff_id.hex(), hex::encode(Sha256::digest(&tar)));
        let names = names(&tar);
        assert!(names.contains(&".wh.gone".to_owned()), "{names:?}");
        let new = NewImage {
            parent,
            layer: Some(layer),
            ..Default::default()
        };
        let image = images.create_image(&op, new).await.unwrap();
        let resolved = images.resolve(NS, &image.id, None).await.unwrap();
        let chain = images.unpack(&op, &resolved).await.unwrap();
        let again = images
            .snapshots("")
            .unwrap()
            .open_tree(NS, &chain)
            .await
            .unwrap();
        let again = facts(Path::new(&format!("/proc/self/fd/{}", again.as_raw_fd())));
        assert_eq!(again, expected, "{snapshotter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_differences_give_the_same_blob() {
    let home = home("overlayfs").await;
    let images = &home.images;
    let op = images.leases().operation(NS);
    let dir = tempdir().unwrap();
    base(dir.path());
    container(images, dir.path(), &op).await;
    let (tree, path) = writable(images).await;
    change(&path);
    drop(tree);
    let of = async |compression| {
        layer(
            images,
            &op,
            LayerOptions {
                compression,
                ..Default::default()
            },
        )
        .await
    };
    let gzip = of(Compression::Gzip).await;
    assert_eq!(of(Compression::Gzip).await.blob.digest, gzip.blob.digest);
    for compression in [Compression::None, Compression::Zstd] {
        let other = of(compression).await;
        assert_eq!(other.diff_id, gzip.diff_id);
        assert!(unpacked(images, &other) == unpacked(images, &gzip));
    }
    assert_eq!(
        gzip.media_type,
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    assert!(images.content().ingests(NS).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn mount_points_can_be_left_out() {
    let home = home("overlayfs").await;
    let images = &home.images;
    let op = images.leases().operation(NS);
    let dir = tempdir().unwrap();
    base(dir.path());
    container(images, dir.path(), &op).await;
    let (tree, path) = writable(images).await;
    for made in ["dev/pts", "proc", "sys"] {
        fs::create_dir_all(path.join(made)).unwrap();
    }
    fs::write(path.join("etc/hosts"), "").unwrap();
    fs::write(path.join("etc/hostname"), "not empty").unwrap();
    fs::write(path.join("proc/mine"), "").unwrap();
    drop(tree);
    let skip = [
        "/dev",
        "/dev/pts",
        "/proc",
        "/sys",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/passwd",
    ]
    .map(PathBuf::from)
    .to_vec();
    let layer = layer(
        images,
        &op,
        LayerOptions {
            skip,
            ..Default::default()
        },
    )
    .await;
    let names = names(&unpacked(images, &layer));
    assert_eq!(names, ["etc/", "etc/hostname", "proc/", "proc/mine"]);
}

/// A layer may say twice that something is gone: by name, and by an opaque
/// directory, in any order.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_not_listed() {
    for order in [["d/.wh.x", "d/.wh..wh..opq"], ["d/.wh..wh..opq", "d/.wh.x"]] {
        let home = home("overlayfs").await;
        let images = &home.images;
        let op = images.leases().operation(NS);
        let dir = tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        for name in ["d/x", "d/y"] {
            fs::write(dir.path().join(name), "old").unwrap();
        }
        let parent = container(images, dir.path(), &op).await;
        let files = order.map(|name| (name.to_owned(), Vec::new()));
        let tar =
            support::fixture::tar(&[&files[..], &[("d/new".to_owned(), b"new".to_vec())]].concat());
        let blob = images
            .content()
            .put(&op, tar.clone().into(), None, Labels::new())
            .await
            .unwrap();
        let layer = NewLayer {
            diff_id: blob.digest.clone(),
            blob,
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        };
        let new = NewImage {
            parent,
            layer: Some(layer),
            ..Default::default()
        };
        let image = images.create_image(&op, new).await.unwrap();
        let resolved = images.resolve(NS, &image.id, None).await.unwrap();
        let chain = images.unpack(&op, &resolved).await.unwrap();
        let tree = images
            .snapshots("")
            .unwrap()
            .open_tree(NS, &chain)
            .await
            .unwrap();
        let found = facts(Path::new(&format!("/proc/self/fd/{}", tree.as_raw_fd())));
        let found: Vec<_> = found
            .keys()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, ["d", "d/new"], "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_snapshots_are_not_found() {
    let home = home("overlayfs").await;
    let snapshots = home.images.snapshots("").unwrap();
    assert_eq!(
        diff::changes(snapshots, NS, "nope")
            .await
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
}
