//! Pull and push against a real registry, with skopeo as the other client.

// What fails here fails the test.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use davit_images::{
    Kind,
    image::{PullRequest, PullStage, PushRequest, PushStage},
};
use support::{
    Home, NS, all, auth,
    fixture::{Spec, host, layout},
    proxy::Proxy,
    registry::Registry,
    token::{self, TokenServer},
};
use tempfile::tempdir;

fn made(specs: &[Spec]) -> (tempfile::TempDir, String) {
    let dir = tempdir().unwrap();
    let digest = layout(dir.path(), "latest", specs);
    (dir, digest)
}

fn source(dir: &tempfile::TempDir) -> String {
    format!("{}:latest", dir.path().display())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_is_pushed_byte_for_byte() {
    let registry = Registry::start();
    let (dir, digest) = made(&[Spec::small("one")]);
    let name = registry.push(&source(&dir), "a/one:1");
    let home = Home::new().await;
    let image = home.pull(&name).await.unwrap();
    assert_eq!(image.target.digest, digest);
    assert_eq!(image.names, std::slice::from_ref(&name));
    assert_eq!(image.labels["text"], "one");
    assert_eq!(
        image.repo_digests,
        [format!("{}@{digest}", registry.reference("a/one"))]
    );
    let other = registry.reference("b/two:2");
    home.images.tag(NS, &name, &other).await.unwrap();
    let request = PushRequest {
        reference: other.clone(),
        ..Default::default()
    };
    let messages = home.push_with(request).await.unwrap();
    assert_eq!(messages.last().unwrap().stage, PushStage::Done);
    assert_eq!(messages.last().unwrap().digest, digest);
    // Nothing was sent: the registry took the blobs over.
    assert!(
        messages
            .iter()
            .any(|message| message.stage == PushStage::Mounted)
    );
    assert!(
        messages
            .iter()
            .all(|message| message.stage != PushStage::Pushed),
        "{messages:?}"
    );
    assert_eq!(registry.digest("b/two:2"), digest);
    let events = home.events().await;
    let expected = [
        format!("pull {name}"),
        format!("tag {}", image.id),
        format!("push {other}"),
    ];
    assert_eq!(events, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pull_finds_it_up_to_date_and_asks_little() {
    let registry = Registry::start();
    let (dir, _) = made(&[Spec::small("one")]);
    registry.push(&source(&dir), "a:1");
    let proxy = Proxy::start(registry.port).await;
    let name = format!("{}/a:1", proxy.host());
    let home = Home::new().await;
    let request = PullRequest {
        reference: name.clone(),
        ..Default::default()
    };
    let first = all(home.images.pull(NS, request.clone())).await.unwrap();
    let stages: BTreeSet<_> = first
        .iter()
        .map(|message| format!("{:?}", message.stage))
        .collect();
    for stage in [
        "Resolved",
        "Queued",
        "Downloading",
        "Downloaded",
        "Complete",
        "Done",
    ] {
        assert!(stages.contains(stage), "{stage} in {stages:?}");
    }
    assert!(!first.last().unwrap().up_to_date);
    let asked = proxy.requests("GET ").len();
    let second = all(home.images.pull(NS, request)).await.unwrap();
    assert!(second.last().unwrap().up_to_date);
    assert!(
        second
            .iter()
            .any(|message| message.stage == PullStage::Exists)
    );
    assert_eq!(
        proxy.requests("GET ").len(),
        asked,
        "{:#?}",
        proxy.requests("")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_goes_on_where_it_broke() {
    let registry = Registry::start();
    let (dir, digest) = made(&[Spec::noise(&[4 << 20, 3 << 20])]);
    registry.push(&source(&dir), "big:1");
    let proxy = Proxy::start(registry.port).await;
    proxy.cut_after(700 << 10);
    let home = Home::new().await;
    let image = home.pull(&format!("{}/big:1", proxy.host())).await.unwrap();
    assert_eq!(image.target.digest, digest);
    let resumed = proxy.requests("range: bytes=");
    assert!(resumed.len() >= 6, "{resumed:#?}");
    assert!(image.size > 7 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_is_taken_up_by_the_next() {
    use futures::StreamExt;
    let registry = Registry::start();
    let (dir, digest) = made(&[Spec::noise(&[24 << 20])]);
    registry.push(&source(&dir), "big:1");
    let proxy = Proxy::start(registry.port).await;
    let name = format!("{}/big:1", proxy.host());
    let home = Home::new().await;
    let request = PullRequest {
        reference: name.clone(),
        ..Default::default()
    };
    let mut stream = home.images.pull(NS, request);
    loop {
        let message = stream.next().await.unwrap().unwrap();
        if message.stage == PullStage::Downloading && message.current > 0 {
            break;
        }
    }
    drop(stream);
    let image = home.pull(&name).await.unwrap();
    assert_eq!(image.target.digest, digest);
    assert!(!proxy.requests("range: bytes=").is_empty());
    assert!(home.images.content().ingests(NS).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_download_a_blob_once() {
    let registry = Registry::start();
    let (dir, _) = made(&[Spec::noise(&[2 << 20, 1 << 20])]);
    registry.push(&source(&dir), "a:1");
    let proxy = Proxy::start(registry.port).await;
    let name = format!("{}/a:1", proxy.host());
    let home = Home::new().await;
    let pulls = (0..12).map(|_| home.pull(&name));
    let images = futures::future::try_join_all(pulls).await.unwrap();
    assert!(images.iter().all(|image| image.id == images[0].id));
    let facts = home.images.resolve(NS, &name, None).await.unwrap();
    for layer in &facts.layers {
        let asked = proxy.requests(&format!("GET /v2/a/blobs/{}", layer.digest));
        assert_eq!(asked.len(), 1, "{asked:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_chooses_from_an_index() {
    let registry = Registry::start();
    let foreign = if host() == "amd64" { "arm64" } else { "amd64" };
    let other = Spec {
        architecture: foreign,
        ..Spec::small("other")
    };
    let (dir, digest) = made(&[other, Spec::small("own")]);
    let name = registry.push(&source(&dir), "multi:1");
    let home = Home::new().await;
    let own = home.pull(&name).await.unwrap();
    assert_eq!(
        (own.labels["text"].as_str(), own.target.digest.as_str()),
        ("own", digest.as_str())
    );
    // Only one platform is here: it is pushed alone to another repository.
    let copy = registry.reference("copy:1");
    home.images.tag(NS, &name, &copy).await.unwrap();
    let resolved = home.images.resolve(NS, &name, None).await.unwrap();
    assert_eq!(home.push(&copy).await.unwrap(), resolved.manifest.digest);
    // To its own repository the index goes whole: the rest is there.
    let again = registry.reference("multi:2");
    home.images.tag(NS, &name, &again).await.unwrap();
    assert_eq!(home.push(&again).await.unwrap(), digest);
    let platform = davit_store::descriptor::Platform {
        os: "linux".into(),
        architecture: foreign.into(),
        ..Default::default()
    };
    let request = PullRequest {
        reference: name.clone(),
        platform: Some(platform.clone()),
        ..Default::default()
    };
    let image = home.pull_with(request).await.unwrap();
    assert_eq!(image.labels["text"], "other");
    assert_eq!(
        home.images
            .get(NS, &name, Some(&platform))
            .await
            .unwrap()
            .labels["text"],
        "other"
    );
    assert_eq!(
        home.images.get(NS, &name, None).await.unwrap().labels["text"],
        "own"
    );
    // Now the index is whole, and goes anywhere.
    let whole = registry.reference("whole:1");
    home.images.tag(NS, &name, &whole).await.unwrap();
    assert_eq!(home.push(&whole).await.unwrap(), digest);
    assert_eq!(registry.digest("whole:1"), digest);
    let riscv = davit_store::descriptor::Platform {
        architecture: "riscv64".into(),
        ..platform.clone()
    };
    let request = PullRequest {
        reference: name,
        platform: Some(riscv),
        ..Default::default()
    };
    let error = home.pull_with(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(
        error
            .to_string()
            .contains("no matching manifest for linux/riscv64"),
        "{error}"
    );
    // An image without an index is held to the platform too.
    let (dir, _) = made(&[Spec::small("single")]);
    let request = PullRequest {
        reference: registry.push(&source(&dir), "single:1"),
        platform: Some(platform),
        ..Default::default()
    };
    let error = home.pull_with(request).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not match the specified platform"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_open_a_registry_and_only_right_ones() {
    let registry = Registry::with_login("bob", "pass");
    let (dir, digest) = made(&[Spec::small("one")]);
    let to = format!("docker://{}", registry.reference("a:1"));
    let from = format!("oci:{}", source(&dir));
    support::run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--dest-tls-verify=false",
            "--dest-creds=bob:pass",
            &from,
            &to,
        ],
    );
    let name = registry.reference("a:1");
    let config = dir.path().join("config.json");
    let home = Home::with(|images| images.docker_config = Some(config.clone())).await;
    let error = home.pull(&name).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated, "{error}");
    let with = |password: &str| PullRequest {
        reference: name.clone(),
        auth: Some(auth("bob", password)),
        ..Default::default()
    };
    assert_eq!(
        home.pull_with(with("wrong")).await.unwrap_err().kind(),
        Kind::Unauthenticated
    );
    assert!(
        home.images
            .login(&registry.host(), auth("bob", "wrong"))
            .await
            .is_err()
    );
    home.images
        .login(&registry.host(), auth("bob", "pass"))
        .await
        .unwrap();
    assert_eq!(
        home.pull_with(with("pass")).await.unwrap().target.digest,
        digest
    );
    // The configuration file counts for what has no credentials of its own.
    let text = format!(
        r#"{{"auths":{{"{}":{{"auth":"Ym9iOnBhc3M="}}}}}}"#,
        registry.host()
    );
    std::fs::write(&config, text).unwrap();
    assert_eq!(home.pull(&name).await.unwrap().target.digest, digest);
    let other = registry.reference("b/c:2");
    home.images.tag(NS, &name, &other).await.unwrap();
    assert_eq!(home.push(&other).await.unwrap(), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_once_for_what_is_asked() {
    let tokens = TokenServer::start().await;
    let registry = Registry::with(|_| tokens.registry_config());
    let (dir, digest) = made(&[Spec::noise(&[300_000, 200_000, 100_000])]);
    let home = Home::new().await;
    let from = format!("oci:{}", source(&dir));
    let to = format!("docker://{}", registry.reference("public/a:1"));
    let creds = format!("--dest-creds={}:{}", token::USER, token::PASSWORD);
    support::run(
        "skopeo",
        &["copy", "-q", "--dest-tls-verify=false", &creds, &from, &to],
    );
    let before = tokens.requests().len();
    // Without credentials what is public can be read, with one token.
    let name = registry.reference("public/a:1");
    assert_eq!(home.pull(&name).await.unwrap().target.digest, digest);
    assert_eq!(
        tokens.requests().len() - before,
        1,
        "{:#?}",
        &tokens.requests()[before..]
    );
    let private = registry.reference("private/b:1");
    home.images.tag(NS, &name, &private).await.unwrap();
    let push = |auth| PushRequest {
        reference: private.clone(),
        auth,
        ..Default::default()
    };
    let error = home.push_with(push(None)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated, "{error}");
    let wrong = Some(auth(token::USER, "wrong"));
    assert_eq!(
        home.push_with(push(wrong)).await.unwrap_err().kind(),
        Kind::Unauthenticated
    );
    let right = Some(auth(token::USER, token::PASSWORD));
    assert_eq!(
        home.push_with(push(right))
            .await
            .unwrap()
            .last()
            .unwrap()
            .digest,
        digest
    );
    // An identity token goes by POST.
    let identity = davit_images::image::RegistryAuth {
        identity_token: token::IDENTITY.into(),
        ..Default::default()
    };
    let request = PullRequest {
        reference: private,
        auth: Some(identity),
        ..Default::default()
    };
    assert_eq!(home.pull_with(request).await.unwrap().target.digest, digest);
    assert!(
        tokens
            .requests()
            .iter()
            .any(|request| request.starts_with("POST "))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_come_first_and_see_no_credentials() {
    let upstream = Registry::start();
    let mirror = Registry::start();
    let (dir, digest) = made(&[Spec::small("one")]);
    mirror.push(&source(&dir), "a/one:1");
    let watched = Proxy::start(mirror.port).await;
    let front = Proxy::start(upstream.port).await;
    let certs = tempdir().unwrap();
    let folder = certs.path().join(front.host());
    std::fs::create_dir(&folder).unwrap();
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n[host.\"http://{}\".header]\nx-test = \"yes\"\n",
        front.host(),
        watched.host(),
        watched.host()
    );
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
    let home = Home::with(|config| config.certs_d = vec![certs.path().to_owned()]).await;
    let request = PullRequest {
        reference: format!("{}/a/one:1", front.host()),
        auth: Some(auth("bob", "pass")),
        ..Default::default()
    };
    assert_eq!(home.pull_with(request).await.unwrap().target.digest, digest);
    assert!(front.requests("").is_empty(), "{:#?}", front.requests(""));
    let seen = watched.requests("GET ");
    assert!(
        seen.iter().all(|request| request.contains("x-test: yes")),
        "{seen:#?}"
    );
    assert!(
        seen.iter()
            .all(|request| request.contains(&format!("ns=127.0.0.1%3A{}", front.port))),
        "{seen:#?}"
    );
    assert!(
        seen.iter()
            .all(|request| !request.to_lowercase().contains("authorization"))
    );
    // What the mirror does not have comes from the registry itself.
    let (dir, digest) = made(&[Spec::small("two")]);
    upstream.push(&source(&dir), "a/two:1");
    let image = home
        .pull(&format!("{}/a/two:1", front.host()))
        .await
        .unwrap();
    assert_eq!(image.target.digest, digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_digests_are_pulled() {
    let registry = Registry::start();
    let (dir, digest) = made(&[Spec::small("one")]);
    for tag in ["1", "2", "latest"] {
        registry.push(&source(&dir), &format!("a/b:{tag}"));
    }
    let home = Home::new().await;
    let repository = registry.reference("a/b");
    let request = PullRequest {
        reference: repository.clone(),
        all_tags: true,
        ..Default::default()
    };
    all(home.images.pull(NS, request)).await.unwrap();
    let image = home.images.get(NS, &repository, None).await.unwrap();
    let names: Vec<_> = ["1", "2", "latest"]
        .iter()
        .map(|tag| format!("{repository}:{tag}"))
        .collect();
    assert_eq!(image.names, names);
    let by_digest = format!("{repository}:1@{digest}");
    let image = home.pull(&by_digest).await.unwrap();
    assert!(image.names.contains(&format!("{repository}@{digest}")));
    let pushed = PushRequest {
        reference: repository.clone(),
        all_tags: true,
        ..Default::default()
    };
    let messages = home.push_with(pushed).await.unwrap();
    assert_eq!(
        messages
            .iter()
            .filter(|message| message.stage == PushStage::Done)
            .count(),
        3
    );
    let missing = home.pull(&format!("{repository}:nope")).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    let expected =
        format!("manifest for {repository}:nope not found: manifest unknown: manifest unknown");
    assert_eq!(missing.to_string(), expected);
    let remote = home
        .images
        .remote_manifest(&repository, None)
        .await
        .unwrap();
    assert_eq!(remote.descriptor.digest, digest);
    assert_eq!(remote.platforms.len(), 1);
    let absent = home.push(&registry.reference("none:1")).await.unwrap_err();
    assert!(
        absent
            .to_string()
            .contains("does not exist locally with the tag"),
        "{absent}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_there_is_named() {
    let port = support::registry::free_port();
    let home = Home::new().await;
    let error = home
        .pull(&format!("127.0.0.1:{port}/a:1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(
        home.pull("A").await.unwrap_err().kind(),
        Kind::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_begins_again() {
    let registry = Registry::start();
    let (dir, digest) = made(&[Spec::noise(&[3 << 20])]);
    let from = registry.push(&source(&dir), "a:1");
    let home = Home::new().await;
    home.pull(&from).await.unwrap();
    let proxy = Proxy::start(registry.port).await;
    proxy.cut_uploads(2);
    let to = format!("{}/b:1", proxy.host());
    home.images.tag(NS, &from, &to).await.unwrap();
    let request = PushRequest {
        reference: to,
        ..Default::default()
    };
    let messages = home.push_with(request).await.unwrap();
    assert_eq!(messages.last().unwrap().digest, digest);
    assert!(
        messages
            .iter()
            .any(|message| message.stage == PushStage::Pushed)
    );
    assert_eq!(registry.digest("b:1"), digest);
    assert!(proxy.requests("POST /v2/b/blobs/uploads/").len() >= 3);
}

/// Makes an authority, and certificates that it signed: "server" for
/// 127.0.0.1 and "client".
fn certificates(dir: &std::path::Path) {
    let path = |name: &str| dir.join(name).display().to_string();
    std::fs::write(
        dir.join("ext"),
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    support::run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=ca",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-keyout",
            &path("ca.key"),
            "-out",
            &path("ca.crt"),
        ],
    );
    for name in ["server", "client"] {
        let (key, csr, pem) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.pem"),
        );
        support::run(
            "openssl",
            &[
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=x",
                "-keyout",
                &path(&key),
                "-out",
                &path(&csr),
            ],
        );
        support::run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &path(&csr),
                "-CA",
                &path("ca.crt"),
                "-CAkey",
                &path("ca.key"),
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                &path("ext"),
                "-out",
                &path(&pem),
            ],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_trusted_as_configured() {
    let dir = tempdir().unwrap();
    certificates(dir.path());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (server, key, ca) = (path("server.pem"), path("server.key"), path("ca.crt"));
    let registry =
        Registry::with(|_| format!("  tls:\n    certificate: {server}\n    key: {key}\n"));
    let strict = Registry::with(|_| {
        format!("  tls:\n    certificate: {server}\n    key: {key}\n    clientcas: [{ca}]\n")
    });
    let (image, digest) = made(&[Spec::small("one")]);
    let name = registry.push(&source(&image), "a:1");
    // On loopback any certificate will do.
    let home = Home::new().await;
    assert_eq!(home.pull(&name).await.unwrap().target.digest, digest);
    // What is configured is kept to.
    let certs = tempdir().unwrap();
    let configure = |host: &str, text: &str| {
        let folder = certs.path().join(host);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("hosts.toml"), text).unwrap();
    };
    let home = Home::with(|config| config.certs_d = vec![certs.path().to_owned()]).await;
    let url = format!("server = \"https://{}\"\n", registry.host());
    configure(&registry.host(), &url);
    let started = std::time::Instant::now();
    let error = home.pull(&name).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(started.elapsed().as_secs() < 2, "it was tried again");
    configure(&registry.host(), &format!("{url}ca = \"{ca}\"\n"));
    assert_eq!(home.pull(&name).await.unwrap().target.digest, digest);
    // With a certificate of our own, where that is asked for.
    let url = format!("server = \"https://{}\"\nca = \"{ca}\"\n", strict.host());
    configure(&strict.host(), &url);
    let other = strict.reference("b:1");
    home.images.tag(NS, &name, &other).await.unwrap();
    assert!(home.push(&other).await.is_err());
    let client = format!(
        "client = [[\"{}\", \"{}\"]]\n",
        path("client.pem"),
        path("client.key")
    );
    configure(&strict.host(), &format!("{url}{client}"));
    assert_eq!(home.push(&other).await.unwrap(), digest);
}
