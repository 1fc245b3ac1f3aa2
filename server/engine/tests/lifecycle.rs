//! Containers from create to remove, with the built-in runtime and with runc.

#![allow(clippy::unwrap_used)] // a test may

mod rig;

use std::time::{Duration, Instant};

use davit_engine::{Kind, model::*};
use davit_store::options::{ContainerOptions, RestartPolicy};
use rig::{NS, Rig, drain, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn runs_and_ends_built_in() {
    runs_and_ends("builtin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_and_ends_runc() {
    runs_and_ends("runc").await;
}

async fn runs_and_ends(runtime: &str) {
    let rig = Rig::new(runtime).await;
    let id = rig
        .create("echo out; echo err >&2; touch /kept; exit 3")
        .await;
    assert_eq!(rig.get(&id).state.status, ContainerStatus::Created);
    let begin = Instant::now();
    rig.start(&id).await;
    println!("{runtime}: start took {:?}", begin.elapsed());
    assert_eq!(rig.wait(&id).await.exit_code, 3);
    println!("{runtime}: start to exit took {:?}", begin.elapsed());
    let logs = rig.logs(&id).await;
    assert!(logs.contains("out\n") && logs.contains("err\n"), "{logs}");
    assert_eq!(rig.get(&id).state.status, ContainerStatus::Exited);
    rig.start(&id).await;
    rig.wait(&id).await;
    assert_eq!(
        rig.actions(&id).await,
        ["create", "start", "die", "start", "die"]
    );
    rig.remove(&id).await;
    assert_eq!(
        rig.engine.containers().get(NS, &id).unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(rig.actions(&id).await.last().unwrap(), "destroy");
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_restart_kill_and_pause() {
    let rig = Rig::new("builtin").await;
    let id = rig
        .create("trap 'exit 7' TERM; echo ready; while true; do sleep 0.05; done")
        .await;
    rig.start(&id).await;
    let tasks = rig.engine.tasks();
    assert!(tasks.start(NS, &id).await.unwrap().already_running);
    rig.logged(&id, "ready\n").await;
    tasks.pause(NS, &id).await.unwrap();
    assert_eq!(rig.get(&id).state.status, ContainerStatus::Paused);
    tasks.resume(NS, &id).await.unwrap();
    assert!(
        !tasks
            .stop(NS, &id, StopOptions::default())
            .await
            .unwrap()
            .already_stopped
    );
    assert_eq!(rig.get(&id).state.exit_code, 7);
    assert!(
        tasks
            .stop(NS, &id, StopOptions::default())
            .await
            .unwrap()
            .already_stopped
    );
    let pid = tasks
        .restart(NS, &id, StopOptions::default())
        .await
        .unwrap();
    rig.logged(&id, "ready\nready\n").await;
    assert_ne!(
        tasks
            .restart(NS, &id, StopOptions::default())
            .await
            .unwrap(),
        pid
    );
    tasks.kill(NS, &id, KillOptions::default()).await.unwrap();
    assert_eq!(rig.wait(&id).await.exit_code, 137);
    let expected = [
        "create", "start", "pause", "unpause", "kill", "die", "stop", // stop
        "start", "restart", // restart of a stopped one
        "kill", "die", "stop", "start", "restart", // restart
        "kill", "die",
    ];
    assert_eq!(rig.actions(&id).await, expected);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_container_is_killed() {
    let rig = Rig::new("builtin").await;
    let id = rig
        .create("trap '' TERM; echo ready; while true; do sleep 1; done")
        .await;
    rig.start(&id).await;
    rig.logged(&id, "ready\n").await;
    let options = StopOptions {
        timeout: Some(1),
        ..Default::default()
    };
    let begin = Instant::now();
    rig.engine.tasks().stop(NS, &id, options).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1) && begin.elapsed() < Duration::from_secs(5));
    assert_eq!(rig.get(&id).state.exit_code, 137);
    assert_eq!(rig.actions(&id).await[2..], ["kill", "kill", "die", "stop"]);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_says_why() {
    for runtime in ["builtin", "runc"] {
        let rig = Rig::new(runtime).await;
        for (program, code) in [
            ("/no/such", 127),
            ("nosuch", 127),
            ("/etc/passwd", 126),
            ("/etc", 126),
        ] {
            let options = ContainerOptions {
                args: Some(vec![program.to_owned()]),
                network_mode: "none".to_owned(),
                ..Default::default()
            };
            let request = CreateContainerRequest {
                image: "busybox".to_owned(),
                options,
                ..Default::default()
            };
            let id = rig
                .engine
                .containers()
                .create(NS, request)
                .await
                .unwrap()
                .id;
            let error = rig.engine.tasks().start(NS, &id).await.unwrap_err();
            println!("{runtime} {program}: {error}");
            assert_eq!(
                rig.get(&id).state.exit_code,
                code,
                "{runtime} {program}: {error}"
            );
            assert_eq!(rig.actions(&id).await, ["create", "die"]);
            rig.remove(&id).await;
        }
        rig.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_unique_and_free_again() {
    let rig = Rig::new("builtin").await;
    let request = || CreateContainerRequest {
        image: "busybox".to_owned(),
        name: "/web".to_owned(),
        ..Default::default()
    };
    let first = rig.engine.containers().create(NS, request()).await.unwrap();
    assert_eq!(first.name, "web");
    let error = rig
        .engine
        .containers()
        .create(NS, request())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(
        error
            .to_string()
            .contains(&format!("already in use by container \"{}\"", first.id)),
        "{error}"
    );
    rig.engine
        .containers()
        .create("other", request())
        .await
        .unwrap_err();
    rig.engine
        .containers()
        .rename(NS, "web", "web2")
        .await
        .unwrap();
    assert_eq!(rig.get("/web2").id, first.id);
    assert_eq!(rig.get(&first.id[..6]).id, first.id);
    let second = rig.engine.containers().create(NS, request()).await.unwrap();
    rig.remove(&second.id).await;
    rig.remove("web2").await;
    let missing = CreateContainerRequest {
        image: "nothere".to_owned(),
        ..Default::default()
    };
    let error = rig
        .engine
        .containers()
        .create(NS, missing)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(
        error.to_string().contains("No such image: nothere:latest"),
        "{error}"
    );
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_policies_back_off() {
    let rig = Rig::new("builtin").await;
    let policy = RestartPolicy {
        name: "on-failure".to_owned(),
        maximum_retry_count: 2,
    };
    let id = rig
        .create_with(
            "exit 1",
            ContainerOptions {
                restart_policy: policy,
                ..Default::default()
            },
        )
        .await;
    rig.start(&id).await;
    eventually("three runs", || {
        rig.get(&id).state.status == ContainerStatus::Exited
    })
    .await;
    assert_eq!(rig.get(&id).state.restart_count, 2);
    assert_eq!(
        rig.actions(&id).await,
        ["create", "start", "die", "start", "die", "start", "die"]
    );
    let policy = RestartPolicy {
        name: "always".to_owned(),
        maximum_retry_count: 0,
    };
    let always = rig
        .create_with(
            "exit 0",
            ContainerOptions {
                restart_policy: policy,
                ..Default::default()
            },
        )
        .await;
    rig.start(&always).await;
    eventually("two restarts", || rig.get(&always).state.restart_count >= 2).await;
    rig.engine
        .tasks()
        .stop(NS, &always, StopOptions::default())
        .await
        .unwrap();
    assert_eq!(rig.get(&always).state.status, ContainerStatus::Exited);
    assert!(rig.get(&always).state.manually_stopped);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_remove_waits_for_the_end() {
    let rig = Rig::new("builtin").await;
    let id = rig
        .create_with(
            "exit 4",
            ContainerOptions {
                auto_remove: true,
                ..Default::default()
            },
        )
        .await;
    let waiter = rig
        .engine
        .tasks()
        .wait(NS, &id, WaitCondition::Removed)
        .unwrap();
    rig.start(&id).await;
    let exit = tokio::time::timeout(Duration::from_secs(20), waiter.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(exit.exit_code, 4);
    assert_eq!(
        rig.engine.containers().get(NS, &id).unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(
        rig.actions(&id).await,
        ["create", "start", "die", "destroy"]
    );
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_gives_output_and_codes() {
    for runtime in ["builtin", "runc"] {
        let rig = Rig::new(runtime).await;
        let id = rig.create("sleep 1000").await;
        rig.start(&id).await;
        let begin = Instant::now();
        assert_eq!(
            rig.exec(&id, "echo hi; exit 5").await,
            (5, "hi\n".to_owned())
        );
        println!("{runtime}: exec took {:?}", begin.elapsed());
        let options = ExecOptions {
            args: vec!["nosuch".to_owned()],
            ..Default::default()
        };
        let exec = rig
            .engine
            .tasks()
            .create_exec(NS, &id, options)
            .await
            .unwrap();
        rig.engine.tasks().start_exec(NS, &exec).await.unwrap_err();
        assert_eq!(
            rig.engine
                .tasks()
                .inspect_exec(NS, &exec)
                .unwrap()
                .exit_code,
            Some(127)
        );
        assert_eq!(
            rig.engine
                .tasks()
                .start_exec(NS, &exec)
                .await
                .unwrap_err()
                .kind(),
            Kind::Conflict
        );
        let options = ExecOptions {
            args: ["cat"].map(str::to_owned).to_vec(),
            attach_stdin: true,
            attach_stdout: true,
            ..Default::default()
        };
        let target = ExecTarget::New {
            container: id.clone(),
            options,
        };
        let session = rig.engine.tasks().exec(NS, target, None).await.unwrap();
        session
            .input
            .send(Input::Stdin("typed".into()))
            .await
            .unwrap();
        session.input.send(Input::CloseStdin).await.unwrap();
        assert_eq!(drain(session).await, ("typed".to_owned(), Some(0)));
        let actions = rig.actions(&id).await;
        assert_eq!(
            actions[2..5],
            [
                "exec_create: sh -c echo hi; exit 5",
                "exec_start: sh -c echo hi; exit 5",
                "exec_die"
            ]
        );
        rig.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_before_the_start_misses_nothing() {
    let rig = Rig::new("builtin").await;
    let options = ContainerOptions {
        open_stdin: true,
        stdin_once: true,
        ..Default::default()
    };
    let id = rig.create_with("echo first; cat; echo last", options).await;
    let attach = AttachOptions {
        stdin: true,
        stdout: true,
        stderr: true,
        stream: true,
        ..Default::default()
    };
    let session = rig.engine.tasks().attach(NS, &id, attach).await.unwrap();
    session
        .input
        .send(Input::Stdin("middle\n".into()))
        .await
        .unwrap();
    session.input.send(Input::CloseStdin).await.unwrap();
    rig.start(&id).await;
    assert_eq!(
        drain(session).await,
        ("first\nmiddle\nlast\n".to_owned(), Some(0))
    );
    assert_eq!(rig.get(&id).state.status, ContainerStatus::Exited);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_detaches_by_its_keys() {
    let rig = Rig::new("builtin").await;
    let options = ContainerOptions {
        open_stdin: true,
        tty: true,
        ..Default::default()
    };
    let id = rig
        .create_with("while read line; do echo \"got $line\"; done", options)
        .await;
    rig.start(&id).await;
    let attach = AttachOptions {
        stdin: true,
        stdout: true,
        stderr: true,
        stream: true,
        detach_keys: "ctrl-p,ctrl-q".to_owned(),
        ..Default::default()
    };
    let mut session = rig.engine.tasks().attach(NS, &id, attach).await.unwrap();
    assert!(session.tty);
    rig.engine
        .tasks()
        .resize(
            NS,
            &id,
            "",
            TerminalSize {
                width: 100,
                height: 30,
            },
        )
        .await
        .unwrap();
    session
        .input
        .send(Input::Stdin("one\n".into()))
        .await
        .unwrap();
    let mut seen = String::new();
    while !seen.contains("got one") {
        match session.output.recv().await.unwrap().unwrap() {
            Output::Stdout(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?}"),
        }
    }
    session
        .input
        .send(Input::Stdin("\u{10}\u{11}".into()))
        .await
        .unwrap();
    let (_, code) = drain(session).await;
    assert_eq!(code, None);
    assert_eq!(rig.get(&id).state.status, ContainerStatus::Running);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_follow_to_the_end() {
    use futures::StreamExt;
    let rig = Rig::new("builtin").await;
    let options = ContainerOptions {
        log: davit_store::options::LogConfig {
            driver: String::new(),
            options: [
                ("max-size".to_owned(), "10k".to_owned()),
                ("max-file".to_owned(), "50".to_owned()),
            ]
            .into(),
        },
        ..Default::default()
    };
    let id = rig
        .create_with("for i in $(seq 1 2000); do echo line $i; done", options)
        .await;
    let request = LogsRequest {
        stdout: true,
        stderr: true,
        follow: true,
        ..Default::default()
    };
    rig.start(&id).await;
    let mut entries = rig.engine.tasks().logs(NS, &id, request).await.unwrap();
    let mut number = 0;
    let mut position = 0;
    let read = async {
        while let Some(entry) = entries.next().await {
            let entry = entry.unwrap();
            number += 1;
            assert_eq!(entry.line, format!("line {number}\n"));
            assert!(entry.position > position);
            position = entry.position;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), read)
        .await
        .expect("follow ends with the container");
    assert_eq!(number, 2000);
    let tail = LogsRequest {
        stdout: true,
        stderr: true,
        tail: Some(3),
        ..Default::default()
    };
    let entries = rig.engine.tasks().logs(NS, &id, tail).await.unwrap();
    let lines = entries
        .map(|entry| String::from_utf8(entry.unwrap().line.to_vec()).unwrap())
        .collect::<Vec<_>>()
        .await;
    assert_eq!(lines, ["line 1998\n", "line 1999\n", "line 2000\n"]);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_watched() {
    let rig = Rig::new("builtin").await;
    let check = davit_store::image_config::HealthCheck {
        test: vec![
            "CMD-SHELL".to_owned(),
            "echo checked; test ! -e /sick".to_owned(),
        ],
        interval_ns: 50_000_000,
        timeout_ns: 5_000_000_000,
        retries: 2,
        ..Default::default()
    };
    let id = rig
        .create_with(
            "sleep 1000",
            ContainerOptions {
                healthcheck: Some(check),
                ..Default::default()
            },
        )
        .await;
    rig.start(&id).await;
    let health = |id: &str| rig.get(id).state.health.unwrap();
    assert_eq!(health(&id).status, HealthStatus::Starting);
    eventually("healthy", || health(&id).status == HealthStatus::Healthy).await;
    assert_eq!(health(&id).log[0].output, "checked\n");
    rig.exec(&id, "touch /sick").await;
    eventually("unhealthy", || {
        health(&id).status == HealthStatus::Unhealthy
    })
    .await;
    let actions = rig.actions(&id).await;
    let changes = actions
        .iter()
        .filter(|action| action.starts_with("health"))
        .collect::<Vec<_>>();
    assert_eq!(
        changes,
        ["health_status: healthy", "health_status: unhealthy"]
    );
    rig.finish().await;
}
