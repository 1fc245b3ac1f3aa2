//! Archives in, archives out, and what hostile ones can't do.

use std::{fs, io::Read, os::unix::fs::symlink, path::Path};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tar::{Builder, EntryType, Header};

use super::*;
use crate::files::{copy_out, export, stat_path};

/// A container's root in a directory whose parent holds a secret.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for dir in ["root/etc", "root/data/sub", "root/real", "outside"] {
            fs::create_dir_all(tree.0.path().join(dir)).unwrap();
        }
        fs::write(tree.path("data/file"), "hello").unwrap();
        fs::write(tree.path("data/sub/deep"), "deep").unwrap();
        symlink("/real", tree.path("link")).unwrap();
        symlink("../../../../outside", tree.path("escape")).unwrap();
        fs::write(tree.0.path().join("outside/secret"), "secret").unwrap();
        tree
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join("root").join(path)
    }

    fn root(&self) -> Root {
        Root::of_tree("c", fs::File::open(self.path("")).unwrap().into(), false)
    }

    async fn put(&self, path: &str, tar: Vec<u8>) -> Result<()> {
        let options = CopyInOptions {
            path: path.to_owned(),
            ..Default::default()
        };
        copy_in(self.root(), options, stream(tar)).await
    }

    async fn refusal(&self, path: &str, tar: Vec<u8>) -> String {
        self.put(path, tar).await.unwrap_err().chain()
    }
}

fn stream(bytes: Vec<u8>) -> TarStream {
    // In odd pieces: chunks of a stream are no blocks of a tar.
    let pieces: Vec<_> = bytes
        .chunks(777)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    futures::stream::iter(pieces).boxed()
}

async fn all(stream: TarStream) -> Vec<u8> {
    stream.try_collect::<Vec<Bytes>>().await.unwrap().concat()
}

/// A tar of entries (kind, name, link or content).
fn tar(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for &(kind, name, text) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o640);
        header.set_mtime(1_000_000_000);
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        let content = if is_link { "" } else { text };
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        if is_link {
            old.linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    archive
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stat_by_dockers_rules() {
    let tree = Tree::new();
    let root = tree.root();
    let file = stat_path(&root, "/data/file").unwrap();
    assert_eq!((file.name.as_str(), file.size), ("file", 5));
    assert_eq!(file.mode & 0o170_000, 0o100_000);
    let link = stat_path(&root, "link").unwrap();
    assert_eq!(
        (link.name.as_str(), link.link_target.as_str()),
        ("link", "/real")
    );
    assert_eq!(link.mode & 0o170_000, 0o120_000);
    for (path, name) in [
        ("/link/", "link"),
        ("/link/.", "."),
        ("/", "/"),
        ("/data/../data/", "data"),
    ] {
        let stat = stat_path(&root, path).unwrap();
        assert_eq!(
            (stat.name.as_str(), stat.mode & 0o170_000),
            (name, 0o040_000),
            "{path}"
        );
    }
    assert_eq!(stat_path(&root, "escape").unwrap().link_target, "/outside");
    let missing = stat_path(&root, "/nope/x").unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    assert_eq!(
        missing.to_string(),
        "Could not find the file /nope/x in container c"
    );
    assert_eq!(
        stat_path(&root, "/escape/secret").unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(
        stat_path(&root, "/data/file/").unwrap_err().kind(),
        Kind::InvalidArgument
    );
    assert_eq!(
        stat_path(&root, "").unwrap_err().kind(),
        Kind::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_out() {
    let tree = Tree::new();
    fs::hard_link(tree.path("data/file"), tree.path("data/other")).unwrap();
    let long = format!("data/{}", "n".repeat(120));
    fs::write(tree.path(&long), "long").unwrap();
    let (stat, out) = copy_out(tree.root(), "/data").await.unwrap();
    assert_eq!(stat.name, "data");
    let bytes = all(out).await;
    let mut expected = vec![
        "data/".to_owned(),
        "data/file".into(),
        long.clone(),
        "data/other".into(),
        "data/sub/".into(),
        "data/sub/deep".into(),
    ];
    expected.sort();
    let mut found = names(&bytes);
    found.sort();
    assert_eq!(found, expected);
    let mut archive = tar::Archive::new(bytes.as_slice());
    let other = archive
        .entries()
        .unwrap()
        .map(std::result::Result::unwrap)
        .find(|entry| entry.path().unwrap() == Path::new("data/other"));
    let other = other.unwrap();
    assert_eq!(other.header().entry_type(), EntryType::Link);
    assert_eq!(other.link_name().unwrap().unwrap(), Path::new("data/file"));

    let out = async |path: &str| names(&all(copy_out(tree.root(), path).await.unwrap().1).await);
    assert_eq!(out("/data/sub/.").await, ["./", "./deep"]);
    assert_eq!(out("/data/sub/deep").await, ["deep"]);
    assert_eq!(out("/link").await, ["link"]);
    assert_eq!(out("/link/").await, ["link/"]);
    let whole = out("/").await;
    assert_eq!(whole[..2], ["/".to_owned(), "/data/".into()]);
    assert!(copy_out(tree.root(), "/nope").await.is_err());
    let exported = names(&all(export(tree.root())).await);
    assert_eq!(exported[..2], ["data/".to_owned(), "data/file".into()]);
    assert!(exported.contains(&"escape".to_owned()) && !exported.contains(&"secret".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_comes_out() {
    let tree = Tree::new();
    fs::create_dir(tree.path("target")).unwrap();
    nix::unistd::chown(&tree.path("data/file"), Some(12.into()), Some(34.into())).unwrap();
    rustix::fs::setxattr(
        tree.path("data/file"),
        "user.note",
        b"n",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let fifo = nix::sys::stat::Mode::from_bits_truncate(0o604);
    nix::unistd::mkfifo(&tree.path("data/fifo"), fifo).unwrap();
    let (_, out) = copy_out(tree.root(), "/data").await.unwrap();
    let bytes = all(out).await;
    tree.put("/target", bytes.clone()).await.unwrap();
    let again = all(copy_out(tree.root(), "/target/data").await.unwrap().1).await;
    assert!(again == bytes, "the same tree gave another archive");

    // Compressed, and over what is there.
    let mut gzip = std::process::Command::new("gzip");
    let mut child = gzip
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
    let mut packed = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut packed)
        .unwrap();
    child.wait().unwrap();
    fs::write(tree.path("target/data/file"), "changed").unwrap();
    tree.put("/target/", packed).await.unwrap();
    assert_eq!(
        fs::read_to_string(tree.path("target/data/file")).unwrap(),
        "hello"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_replace_what_is_there() {
    let tree = Tree::new();
    let file = tar(&[(EntryType::Regular, "data", "a file now")]);
    let dir = tar(&[(EntryType::Directory, "data/file/", "")]);
    let options = CopyInOptions {
        path: "/".to_owned(),
        no_overwrite_dir_non_dir: true,
        ..Default::default()
    };
    let kept = async |tar: &[u8]| {
        copy_in(tree.root(), options.clone(), stream(tar.to_vec()))
            .await
            .unwrap_err()
            .chain()
    };
    assert!(
        kept(&file)
            .await
            .contains("cannot overwrite directory \"data\" with non-directory")
    );
    assert!(
        kept(&dir)
            .await
            .contains("cannot overwrite non-directory \"file\" with directory")
    );
    tree.put("/", dir).await.unwrap();
    assert!(tree.path("data/file").is_dir());
    tree.put("/", file).await.unwrap();
    assert_eq!(fs::read_to_string(tree.path("data")).unwrap(), "a file now");
    // A link in the place of a file is replaced, not written through.
    symlink("/real/target", tree.path("f")).unwrap();
    tree.put("/", tar(&[(EntryType::Regular, "f", "new")]))
        .await
        .unwrap();
    assert!(tree.path("f").symlink_metadata().unwrap().is_file());
    assert!(!tree.path("real/target").exists());
    // Missing directories are made; links to directories are followed.
    tree.put("/link", tar(&[(EntryType::Regular, "./x/y/z", "z")]))
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(tree.path("real/x/y/z")).unwrap(), "z");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_stay_inside() {
    let tree = Tree::new();
    let secret = tree.0.path().join("outside/secret");
    assert!(
        tree.refusal("/", tar(&[(EntryType::Regular, "../outside/x", "x")]))
            .await
            .contains("leads out of")
    );
    assert!(
        tree.refusal("/data", tar(&[(EntryType::Regular, "a/../../x", "x")]))
            .await
            .contains("leads out of")
    );
    // Through links, there before or made by the archive, only to places
    // within the root.
    let _ = tree
        .put(
            "/",
            tar(&[(EntryType::Regular, "escape/secret", "overwritten")]),
        )
        .await;
    let deep = [
        (EntryType::Symlink, "l", "../../../../../../outside"),
        (EntryType::Regular, "l/secret", "overwritten"),
    ];
    let _ = tree.put("/data", tar(&deep)).await;
    let linked = [(EntryType::Link, "h", "../outside/secret")];
    assert!(tree.put("/", tar(&linked)).await.is_err());
    let linked = [
        (EntryType::Symlink, "s", "/../../outside/secret"),
        (EntryType::Link, "h", "s"),
        (EntryType::Regular, "h", "overwritten"),
    ];
    tree.put("/", tar(&linked)).await.unwrap();
    assert_eq!(fs::read_to_string(secret).unwrap(), "secret");
    assert_eq!(
        fs::read_dir(tree.0.path().join("outside")).unwrap().count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_what_is_wrong() {
    let tree = Tree::new();
    let good = tar(&[(EntryType::Regular, "f", "x")]);
    assert_eq!(
        tree.refusal("/data/file", good.clone()).await,
        "extraction point is not a directory"
    );
    assert_eq!(
        tree.refusal("/nope", good.clone()).await,
        "Could not find the file /nope in container c: No such file or directory (os error 2)"
            .split(": No such")
            .next()
            .unwrap()
    );
    let rubbish = tree
        .put("/", b"this is no archive".repeat(100))
        .await
        .unwrap_err();
    assert_eq!(rubbish.kind(), Kind::InvalidArgument, "{rubbish:?}");
    let mut cut = tar(&[(EntryType::Regular, "big", &"x".repeat(5000))]);
    cut.truncate(2000);
    assert_eq!(
        tree.put("/", cut).await.unwrap_err().kind(),
        Kind::InvalidArgument
    );
    let read_only = Root::of_tree("c", fs::File::open(tree.path("")).unwrap().into(), true);
    let options = CopyInOptions {
        path: "/".to_owned(),
        ..Default::default()
    };
    let error = copy_in(read_only, options, stream(good)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(
        error
            .to_string()
            .starts_with("container rootfs is marked read-only")
    );
    tree.put("/", Vec::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_process_is_seen_with_its_mounts() {
    use std::process::{Command, Stdio};
    let tree = Tree::new();
    let script =
        "mount -t tmpfs none /tmp && echo in-memory > /tmp/mine && echo ready && read line";
    let mut child = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    let root = Root::of_process("c", child.id()).unwrap();
    let bytes = all(copy_out(root, "/tmp/mine").await.unwrap().1).await;
    assert_eq!(names(&bytes), ["mine"]);
    let options = CopyInOptions {
        path: "/tmp".to_owned(),
        ..Default::default()
    };
    let root = Root::of_process("c", child.id()).unwrap();
    copy_in(
        root,
        options,
        stream(tar(&[(EntryType::Regular, "yours", "y")])),
    )
    .await
    .unwrap();
    assert_eq!(
        fs::read_to_string(format!("/proc/{}/root/tmp/yours", child.id())).unwrap(),
        "y"
    );
    assert!(!Path::new("/tmp/yours").exists());
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(Root::of_process("c", child.id()).is_err());
    drop(tree);
}
