//! Operations on names: tags, removals by docker's rules, lists, prunes, new
//! images, and a lost store.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod support;

use davit_images::{
    Kind,
    image::{CreateFromTarOptions, Filter, Image, ImportOptions, NewImage, PruneRequest},
};
use davit_store::table::{
    ContainerRecord, Containers,
    container::{Details, Phase},
};
use support::{
    Home, NS, all,
    fixture::{Spec, layout, tar},
};
use tempfile::tempdir;

/// Loads an image with the text `text` under the names.
async fn load(home: &Home, text: &str, names: &[&str]) -> Image {
    let dir = tempdir().unwrap();
    layout(dir.path(), names[0], &[Spec::small(text)]);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", dir.path()).unwrap();
    let data = std::io::Cursor::new(builder.into_inner().unwrap());
    let options = ImportOptions {
        fallback_name: names[0].into(),
        ..Default::default()
    };
    all(home.images.import(NS, options, data)).await.unwrap();
    for name in &names[1..] {
        home.images.tag(NS, names[0], name).await.unwrap();
    }
    home.images.get(NS, names[0], None).await.unwrap()
}

fn container(home: &Home, id: &str, image: &Image, phase: Phase) {
    let mut details = Details {
        image_id: image.id.clone(),
        ..Default::default()
    };
    details.state.phase = phase;
    let record = ContainerRecord {
        id: id.into(),
        image: image.names.first().cloned().unwrap_or_default(),
        details: Some(Box::new(details)),
        ..Default::default()
    };
    home.store
        .transaction(|tx| tx.put::<Containers>((NS, id), &record))
        .unwrap();
}

fn uncontain(home: &Home, id: &str) {
    home.store
        .transaction(|tx| tx.delete::<Containers>((NS, id)))
        .unwrap();
}

fn filter(key: &str, value: &str) -> Filter {
    Filter {
        key: key.into(),
        value: value.into(),
    }
}

async fn names(home: &Home, filters: &[Filter]) -> Vec<String> {
    let images = home.images.list(NS, filters).await.unwrap();
    let mut names: Vec<_> = images.into_iter().flat_map(|image| image.names).collect();
    names.sort();
    names
}

const ID: &str = "cccccccccccccccccccccccccccccccc";

#[tokio::test(flavor = "multi_thread")]
async fn images_are_found_by_anything() {
    let home = Home::new().await;
    let image = load(&home, "one", &["repo/a:1", "b"]).await;
    let hex = &image.id[7..];
    for text in [
        "repo/a:1",
        "docker.io/repo/a:1",
        "b",
        "b:latest",
        &image.id,
        hex,
        &hex[..6],
        &image.target.digest,
    ] {
        let found = home.images.get(NS, text, None).await.unwrap();
        assert_eq!(found.id, image.id, "{text}");
        assert_eq!(
            found.names,
            ["docker.io/library/b:latest", "docker.io/repo/a:1"]
        );
    }
    for (text, said) in [
        ("nope", "No such image: nope:latest"),
        ("repo/a", "No such image: repo/a:latest"),
        ("fff", "No such image: fff:latest"),
        ("sha256:ffff", "No such image: sha256:ffff"),
    ] {
        let error = home.images.get(NS, text, None).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (Kind::NotFound, said)
        );
    }
    assert_eq!(
        home.images.get(NS, "A B", None).await.unwrap_err().kind(),
        Kind::InvalidArgument
    );
    assert_eq!(
        home.images
            .get("other", "b", None)
            .await
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
    assert_eq!(
        home.images.tag(NS, "b", "x@y").await.unwrap_err().kind(),
        Kind::InvalidArgument
    );
    let inspected = home.images.inspect(NS, "b", None).await.unwrap();
    assert_eq!(inspected.config.cmd, ["/bin/sh"]);
    assert_eq!(inspected.diff_ids.len(), 2);
    assert_eq!(inspected.layer_paths.len(), 2);
    assert_eq!(
        davit_images::Digest::of(&inspected.config_json).as_str(),
        image.id
    );
    let history = home.images.history(NS, "b", None).await.unwrap();
    let steps: Vec<_> = history
        .iter()
        .map(|step| (step.created_by.as_str(), step.empty_layer))
        .collect();
    assert_eq!(steps, [("CMD", true), ("step 1", false), ("step 0", false)]);
    assert_eq!(
        (history[0].id.as_str(), history[1].id.as_str()),
        (image.id.as_str(), "<missing>")
    );
    assert_eq!(history[0].names.len(), 2);
    assert!(history[1].size > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered() {
    let home = Home::new().await;
    load(&home, "one", &["repo/a:1", "repo/a:2"]).await;
    load(&home, "two", &["b:1"]).await;
    assert_eq!(names(&home, &[]).await.len(), 3);
    assert_eq!(
        names(&home, &[filter("reference", "repo/a")]).await.len(),
        2
    );
    assert_eq!(
        names(&home, &[filter("reference", "*/a:2")]).await,
        ["docker.io/repo/a:2"]
    );
    assert_eq!(
        names(&home, &[filter("label", "text=two")]).await,
        ["docker.io/library/b:1"]
    );
    assert!(
        names(&home, &[filter("label", "text=two"), filter("label", "x")])
            .await
            .is_empty()
    );
    assert!(names(&home, &[filter("dangling", "true")]).await.is_empty());
    assert!(
        names(&home, &[filter("until", "2020-01-01T00:00:00")])
            .await
            .is_empty()
    );
    assert!(names(&home, &[filter("before", "b:1")]).await.is_empty());
    assert!(home.images.list(NS, &[filter("nope", "")]).await.is_err());
    assert!(
        home.images
            .list(NS, &[filter("since", "nope")])
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_go_one_by_one_and_images_with_the_last() {
    let home = Home::new().await;
    let image = load(&home, "one", &["a:1", "a:2", "b:1"]).await;
    let removed = home.images.remove(NS, "a:1", false).await.unwrap();
    assert_eq!(
        (removed.untagged, removed.deleted),
        (vec!["a:1".to_owned()], vec![])
    );
    let error = home.images.remove(NS, &image.id, false).await.unwrap_err();
    let short = &image.id[7..19];
    let said = format!(
        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    );
    assert_eq!((error.kind(), error.to_string()), (Kind::Conflict, said));
    home.images.remove(NS, "b:1", false).await.unwrap();
    let removed = home.images.remove(NS, &image.id, false).await.unwrap();
    assert_eq!(removed.untagged, ["a:2"]);
    assert_eq!(removed.deleted[0], image.id);
    assert!(home.images.list(NS, &[]).await.unwrap().is_empty());
    assert_eq!(
        home.images
            .remove(NS, "a:2", true)
            .await
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
    let events = home.events().await;
    let tail: Vec<_> = events.iter().rev().take(2).rev().cloned().collect();
    assert_eq!(
        tail,
        [
            format!("untag {}", image.id),
            format!("delete {}", image.id)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_keep_their_images() {
    let home = Home::new().await;
    let image = load(&home, "one", &["a:1"]).await;
    let short = &image.id[7..19];
    container(&home, ID, &image, Phase::Exited);
    let error = home
        .images
        .remove(NS, "a:1", false)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container cccccccccccc is using its referenced image {short}"
        )
    );
    let error = home
        .images
        .remove(NS, short, false)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container cccccccccccc"
        )
    );
    container(&home, ID, &image, Phase::Running);
    let error = home
        .images
        .remove(NS, short, true)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container cccccccccccc"
        )
    );
    assert_eq!(
        home.images.get(NS, short, None).await.unwrap().containers,
        1
    );
    // By force the name goes, but what runs keeps its image.
    let removed = home.images.remove(NS, "a:1", true).await.unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted.len()), (1, 0));
    assert!(
        home.images
            .get(NS, short, None)
            .await
            .unwrap()
            .names
            .is_empty()
    );
    let pruned = home
        .images
        .prune(
            NS,
            PruneRequest {
                all: true,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    assert!(pruned.removed.is_empty());
    uncontain(&home, ID);
    let removed = home.images.remove(NS, short, false).await.unwrap();
    assert_eq!(removed.deleted[0], image.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_names_leave_dangling_images_to_prune() {
    let home = Home::new().await;
    let old = load(&home, "old", &["a:1"]).await;
    let new = load(&home, "new", &["b:1"]).await;
    home.images.tag(NS, "b:1", "a:1").await.unwrap();
    let dangling = home
        .images
        .list(NS, &[filter("dangling", "true")])
        .await
        .unwrap();
    assert_eq!(
        (dangling.len(), dangling[0].id.as_str()),
        (1, old.id.as_str())
    );
    let dry = PruneRequest {
        dry_run: true,
        ..Default::default()
    };
    let planned = home.images.prune(NS, dry).await.unwrap();
    assert_eq!(planned.detail.deleted, std::slice::from_ref(&old.id));
    assert!(planned.space_reclaimed > 0);
    // A name brings it back.
    home.images.tag(NS, &old.id, "old:1").await.unwrap();
    assert!(
        home.images
            .list(NS, &[filter("dangling", "true")])
            .await
            .unwrap()
            .is_empty()
    );
    home.images.tag(NS, "b:1", "old:1").await.unwrap();
    let labelled = PruneRequest {
        filters: vec![filter("label", "text=new")],
        ..Default::default()
    };
    assert!(
        home.images
            .prune(NS, labelled)
            .await
            .unwrap()
            .removed
            .is_empty()
    );
    let pruned = home
        .images
        .prune(NS, PruneRequest::default())
        .await
        .unwrap();
    assert_eq!(pruned.detail.deleted[0], old.id);
    assert_eq!(names(&home, &[]).await.len(), 3);
    container(&home, ID, &new, Phase::Created);
    let all = PruneRequest {
        all: true,
        ..Default::default()
    };
    assert!(
        home.images
            .prune(NS, all.clone())
            .await
            .unwrap()
            .removed
            .is_empty()
    );
    uncontain(&home, ID);
    let pruned = home.images.prune(NS, all).await.unwrap();
    assert_eq!(pruned.detail.untagged, ["a:1", "b:1", "old:1"]);
    assert_eq!(pruned.detail.deleted[0], new.id);
    let usage = home.images.disk_usage(NS).await.unwrap();
    assert_eq!((usage.images.len(), usage.reclaimable), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_layers_are_counted_apart() {
    let home = Home::new().await;
    load(&home, "one", &["a:1"]).await;
    load(&home, "two", &["b:1"]).await;
    let usage = home.images.disk_usage(NS).await.unwrap();
    assert_eq!(usage.images.len(), 2);
    assert!(
        usage
            .images
            .iter()
            .all(|image| image.unique > 0 && image.shared > 0),
        "{usage:?}"
    );
    assert!(usage.reclaimable >= usage.blobs, "{usage:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_made_from_tars_and_from_each_other() {
    let home = Home::new().await;
    let root = tar(&[("etc/passwd".to_owned(), b"root:x:0:0::/:/bin/sh\n".to_vec())]);
    let options = CreateFromTarOptions {
        name: "imported:1".into(),
        changes: vec!["CMD [\"sh\"]".into(), "ENV A=b".into()],
        message: "from a test".into(),
        platform: None,
    };
    let image = home
        .images
        .create_from_tar(
            NS,
            options.clone(),
            std::io::Cursor::new(support::fixture::gzip(&root)),
        )
        .await
        .unwrap();
    assert_eq!(image.names, ["docker.io/library/imported:1"]);
    let inspected = home.images.inspect(NS, "imported:1", None).await.unwrap();
    assert_eq!(
        (inspected.config.cmd, inspected.config.env),
        (vec!["sh".to_owned()], vec!["A=b".to_owned()])
    );
    assert_eq!(inspected.comment, "from a test");
    assert!(
        std::fs::read_dir(&inspected.layer_paths[0])
            .unwrap()
            .count()
            > 0
    );
    let bad = CreateFromTarOptions {
        changes: vec!["RUN x".into()],
        ..options.clone()
    };
    let error = home
        .images
        .create_from_tar(NS, bad, std::io::Cursor::new(root.clone()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    let rubbish = std::io::Cursor::new(b"rubbish".repeat(1000));
    assert!(
        home.images
            .create_from_tar(NS, options, rubbish)
            .await
            .is_err()
    );
    let op = home.images.leases().operation(NS);
    let new = NewImage {
        name: "next:1".into(),
        parent: "imported:1".into(),
        changes: vec!["ENTRYPOINT [\"/x\"]".into()],
        comment: "next".into(),
        author: "me".into(),
        ..Default::default()
    };
    let next = home.images.create_image(&op, new).await.unwrap();
    assert_eq!(next.parent, image.id);
    let inspected = home.images.inspect(NS, "next:1", None).await.unwrap();
    assert_eq!(inspected.config.entrypoint, ["/x"]);
    assert_eq!(inspected.config.env, ["A=b"]);
    assert_eq!(inspected.layers.len(), 1);
    let history = home.images.history(NS, "next:1", None).await.unwrap();
    assert_eq!(
        (history[0].comment.as_str(), history[0].empty_layer),
        ("next", true)
    );
}
