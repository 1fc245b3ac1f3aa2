//! Events: in order, exactly once, across restarts.

use davit_client::v1::{self, subscribe_response::Message};
use davit_tests::{Daemon, ImageSpec, Registry};

fn prepared() -> (Daemon, String) {
    let registry = Registry::start();
    let daemon = Daemon::start();
    let image = daemon.pull_busybox(&registry, "busybox:latest", &ImageSpec::default());
    (daemon, image)
}

fn actions(daemon: &Daemon, filters: &[&str]) -> Vec<String> {
    let mut args = vec![
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--format",
        "{{.Action}}",
    ];
    for filter in filters {
        args.extend(["-f", filter]);
    }
    daemon
        .davit(&args)
        .ok()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_run_has_dockers_events_in_order() {
    let (daemon, image) = prepared();
    daemon.davit(&["run", "--rm", "--name", "c", &image, "sh", "-c", "exit 3"]);
    let seen = davit_tests::until("the destroy event", || {
        let seen = actions(&daemon, &["type=container"]);
        (seen.last().map(String::as_str) == Some("destroy")).then_some(seen)
    });
    let seen: Vec<&str> = seen
        .iter()
        .map(String::as_str)
        .filter(|action| *action != "attach")
        .collect();
    assert_eq!(seen, ["create", "start", "die", "destroy"]);
    let code = daemon
        .davit(&[
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "-f",
            "event=die",
            "--format",
            "{{.Actor.Attributes.exitCode}} {{.Actor.Attributes.name}}",
        ])
        .ok();
    assert_eq!(code, "3 c");
    assert_eq!(actions(&daemon, &["type=image", "event=pull"]), ["pull"]);
}

#[test]
fn stop_and_restart_have_dockers_sequences() {
    let (daemon, image) = prepared();
    daemon
        .davit(&["run", "-d", "--name", "c", &image, "sleep", "1000"])
        .ok();
    daemon.davit(&["restart", "-t", "0", "c"]).ok();
    let seen = actions(&daemon, &["container=c"]);
    assert_eq!(seen.first().map(String::as_str), Some("create"));
    assert_eq!(seen.last().map(String::as_str), Some("restart"), "{seen:?}");
    let at = |action: &str| {
        seen.iter()
            .rposition(|seen| seen == action)
            .unwrap_or_else(|| panic!("{action} in {seen:?}"))
    };
    assert!(at("kill") < at("die"), "{seen:?}");
    assert!(
        at("die") < at("start") && at("stop") < at("start") && at("start") < at("restart"),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_resumes_by_number_misses_nothing_and_sees_nothing_twice() {
    let (mut daemon, image) = tokio::task::spawn_blocking(prepared).await.unwrap();
    let client = daemon.client();
    let follow = |after: u64| {
        let client = client.clone();
        async move {
            let request = v1::SubscribeRequest {
                after,
                from_start: after == 0,
                ..Default::default()
            };
            client
                .events()
                .subscribe(request)
                .await
                .unwrap()
                .into_inner()
        }
    };
    let mut numbers = Vec::new();
    let mut round = 0;
    while round < 3 {
        let mut stream = follow(numbers.last().copied().unwrap_or_default()).await;
        let name = format!("c{round}");
        let made =
            tokio::task::block_in_place(|| daemon.davit(&["run", "--name", &name, &image, "true"]));
        made.ok();
        loop {
            let message = stream
                .message()
                .await
                .unwrap()
                .expect("an event")
                .message
                .unwrap();
            let Message::Event(event) = message else {
                panic!("lagged: {message:?}")
            };
            numbers.push(event.number);
            if event.action == "die" && event.attributes.get("name") == Some(&name) {
                break;
            }
        }
        drop(stream);
        // Something happens while nobody listens, and then the daemon dies.
        tokio::task::block_in_place(|| {
            daemon.davit(&["rm", &name]).ok();
            daemon.crash_and_restart();
        });
        round += 1;
    }
    let expected: Vec<u64> = (numbers[0]..numbers[0] + numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "events are missing or doubled");
    tokio::task::spawn_blocking(move || drop(daemon))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_watches() {
    let (daemon, image) = tokio::task::spawn_blocking(prepared).await.unwrap();
    tokio::task::block_in_place(|| {
        daemon
            .davit(&["create", "--name", "c", &image, "sleep", "1000"])
            .ok()
    });
    let request = v1::InspectContainerRequest {
        container: "c".into(),
        watch: true,
        size: false,
    };
    let mut stream = daemon
        .client()
        .containers()
        .inspect(request)
        .await
        .unwrap()
        .into_inner();
    let mut seen: Vec<v1::ContainerStatus> = Vec::new();
    let mut next = async || -> Option<v1::ContainerStatus> {
        let details = stream.message().await.unwrap()?;
        Some(details.container.unwrap().state.unwrap().status())
    };
    seen.extend(next().await);
    tokio::task::block_in_place(|| daemon.davit(&["start", "c"]).ok());
    while seen.last() != Some(&v1::ContainerStatus::Running) {
        seen.push(next().await.expect("the container lives"));
    }
    tokio::task::block_in_place(|| daemon.davit(&["rm", "-f", "c"]).ok());
    while let Some(status) = next().await {
        seen.push(status);
    }
    assert_eq!(seen.first(), Some(&v1::ContainerStatus::Created));
    tokio::task::spawn_blocking(move || drop(daemon))
        .await
        .unwrap();
}

#[test]
fn namespaces_see_only_their_own() {
    let (daemon, image) = prepared();
    daemon.davit(&["run", "--rm", &image, "true"]).ok();
    let other = daemon
        .davit(&[
            "--namespace",
            "other",
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "-f",
            "type=container",
        ])
        .ok();
    assert_eq!(other, "");
    assert_eq!(
        daemon.davit(&["--namespace", "other", "images", "-q"]).ok(),
        ""
    );
    let refused = daemon.davit(&[
        "--namespace",
        "other",
        "run",
        "--pull",
        "never",
        &image,
        "true",
    ]);
    assert_eq!(refused.code, 125);
}
