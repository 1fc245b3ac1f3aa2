//! Registries that lie, break, or try to learn what is not theirs.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use davit_images::{Kind, image::PullRequest};
use support::{
    Home, NS, auth,
    fake::{Asked, Fake, Parts, Reply},
    fixture,
};

fn small() -> Parts {
    Parts::new(&[("f".to_owned(), fixture::noise(1, 100_000))])
}

/// Pulls from a registry that answers like this; gives the error.
async fn refused(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> davit_images::Error {
    let fake = Fake::start(answer).await;
    let home = Home::new().await;
    let error = home.pull(&fake.reference("a/b:1")).await.unwrap_err();
    assert!(home.images.list(NS, &[]).await.unwrap().is_empty());
    // Downloads that were cut off let go of what they hold a moment later.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        home.images.collector().run().await.unwrap();
        if home.images.content().list(NS).unwrap().is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < end, "blobs are left behind");
        tokio::task::yield_now().await;
    }
    assert!(
        home.images
            .snapshots("")
            .unwrap()
            .walk(NS)
            .unwrap()
            .is_empty()
    );
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_manifests_are_refused() {
    let parts = small();
    let other = parts.clone();
    let error = refused(move |asked| {
        other.answer(asked).header(
            "docker-content-digest",
            &format!("sha256:{}", "0".repeat(64)),
        )
    })
    .await;
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    let schema1 = br#"{"schemaVersion":1,"name":"a/b","fsLayers":[],"history":[]}"#;
    let error = refused(|_| Reply::ok(schema1.to_vec())).await;
    assert_eq!(error.kind(), Kind::Unimplemented, "{error}");
    let error = refused(|_| Reply::ok("<html>")).await;
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    let both = br#"{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}"#;
    assert_eq!(
        refused(|_| Reply::ok(both.to_vec())).await.kind(),
        Kind::DataLoss
    );
    let error = refused(|_| Reply {
        endless: true,
        ..Reply::status(200)
    })
    .await;
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    let chart = br#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}"#;
    let error = refused(|_| Reply::ok(chart.to_vec())).await;
    assert!(error.to_string().contains("no container image"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_blobs_are_refused() {
    let parts = small();
    let digest = parts.layer_digest();
    let swapped = move |change: fn(&mut Vec<u8>)| {
        let (parts, digest) = (parts.clone(), digest.clone());
        move |asked: &Asked| {
            let mut reply = parts.answer(asked);
            if asked.path.contains(&digest) {
                change(&mut reply.body);
            }
            reply
        }
    };
    let error = refused(swapped(|body| body[50_000] ^= 1)).await;
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    let error = refused(swapped(|body| body.push(0))).await;
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    let error = refused(swapped(|body| body.truncate(1000))).await;
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    // The manifest lies about the size.
    let layer = small().layer;
    let size = layer.len() + 1;
    let lying = Parts::with(small().config, layer, size);
    let error = refused(move |asked| lying.answer(asked)).await;
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    // The config speaks of other layers.
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":[]}}"#.to_vec();
    let layer = small().layer;
    let size = layer.len();
    let lying = Parts::with(config, layer, size);
    let error = refused(move |asked| lying.answer(asked)).await;
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_ranges_do_no_harm() {
    let parts = Parts::new(&[("f".to_owned(), fixture::noise(1, 400_000))]);
    let digest = parts.layer_digest();
    for lie in ["ignored", "wrong start", "unsatisfiable"] {
        let (parts, digest) = (parts.clone(), digest.clone());
        let count = AtomicUsize::new(0);
        let fake = Fake::start(move |asked| {
            let reply = parts.answer(asked);
            if !asked.path.contains(&digest) {
                return reply;
            }
            let whole = reply.body.len().to_string();
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                // Breaks off in the middle.
                let half = Reply::ok(reply.body[..200_000].to_vec());
                return half.header("content-length", &whole);
            }
            let ranged = asked.head.contains("range: bytes=");
            match lie {
                "wrong start" if ranged => Reply {
                    status: 206,
                    ..reply
                }
                .header("content-range", &format!("bytes 0-{whole}/{whole}")),
                "unsatisfiable" if ranged => Reply::status(416),
                _ => reply,
            }
        })
        .await;
        let home = Home::new().await;
        home.pull(&fake.reference("a/b:1"))
            .await
            .unwrap_or_else(|error| panic!("{lie}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_registries_are_asked_again_and_dead_ones_given_up() {
    let parts = small();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let served = parts.clone();
    let fake = Fake::start(move |asked| {
        if asked.path == "/v2/" {
            return Reply::ok("");
        }
        match counted.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => Reply::status(429).header("retry-after", "1"),
            1 => Reply::status(503),
            _ => served.answer(asked),
        }
    })
    .await;
    let home = Home::new().await;
    let started = Instant::now();
    home.pull(&fake.reference("a/b:1")).await.unwrap();
    assert!(
        started.elapsed() > Duration::from_secs(2),
        "Retry-After was not kept"
    );
    let fake = Fake::start(|asked| {
        if asked.path == "/v2/" {
            Reply::ok("")
        } else {
            Reply::status(500)
        }
    })
    .await;
    let error = home.pull(&fake.reference("a/c:1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    // Waiting for an hour is not asked of anybody.
    let fake = Fake::start(|asked| {
        if asked.path == "/v2/" {
            Reply::ok("")
        } else {
            Reply::status(429).header("retry-after", "3600")
        }
    })
    .await;
    let started = Instant::now();
    assert_eq!(
        home.pull(&fake.reference("a/d:1"))
            .await
            .unwrap_err()
            .kind(),
        Kind::Unavailable
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_do_not_follow_redirects() {
    let parts = small();
    let store = parts.clone();
    let storage = Fake::start(move |asked| store.answer(asked)).await;
    let elsewhere = storage.port;
    let front = parts.clone();
    let fake = Fake::start(move |asked| {
        if !asked.head.contains("authorization: basic") {
            return Reply::status(401).header("www-authenticate", "Basic realm=\"x\"");
        }
        if asked.path.contains("/blobs/") {
            let to = format!("http://127.0.0.1:{elsewhere}{}", asked.path);
            return Reply::status(307).header("location", &to);
        }
        front.answer(asked)
    })
    .await;
    let home = Home::new().await;
    let request = |name: &str| PullRequest {
        reference: fake.reference(name),
        auth: Some(auth("bob", "pass")),
        ..Default::default()
    };
    home.pull_with(request("a/b:1")).await.unwrap();
    assert!(!storage.asked("/blobs/").is_empty());
    assert!(
        storage
            .asked("")
            .iter()
            .all(|asked| !asked.head.contains("authorization"))
    );
    let circle = Fake::start(|asked| match asked.path.as_str() {
        "/v2/" => Reply::ok(""),
        path => Reply::status(302).header("location", path),
    })
    .await;
    let error = home.pull(&circle.reference("a/b:1")).await.unwrap_err();
    assert!(error.to_string().contains("circles"), "{error}");
    let odd = Fake::start(|asked| match asked.path.as_str() {
        "/v2/" => Reply::ok(""),
        _ => Reply::status(302).header("location", "file:///etc/passwd"),
    })
    .await;
    assert!(home.pull(&odd.reference("a/b:1")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_layers_leave_nothing() {
    let mut escape = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.as_gnu_mut().unwrap().name[..12].copy_from_slice(b"../../escape");
    header.set_cksum();
    escape.append(&header, &b"x"[..]).unwrap();
    let plain = escape.into_inner().unwrap();
    let layer = fixture::gzip(&plain);
    let config = serde_json::json!({
        "architecture": fixture::host(), "os": "linux",
        "rootfs": {"diff_ids": [davit_images::Digest::of(&plain)]},
    })
    .to_string()
    .into_bytes();
    let size = layer.len();
    let parts = Parts::with(config, layer, size);
    let digest = parts.layer_digest();
    let error = refused(move |asked| parts.answer(asked)).await;
    let said = error.chain();
    assert!(
        said.contains(&digest[..20]) && said.contains("escape"),
        "{said}"
    );
}
