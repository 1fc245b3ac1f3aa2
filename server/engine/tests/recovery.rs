//! What the next daemon finds: containers that run on, exits that nobody saw,
//! dead shims, reboots, and things that were half done.

#![allow(clippy::unwrap_used)] // a test may

mod rig;

use std::time::{Duration, Instant};

use davit_engine::model::*;
use davit_store::options::{ContainerOptions, RestartPolicy};
use rig::{NS, Rig, drain, eventually, shims};

fn policy(name: &str) -> RestartPolicy {
    RestartPolicy {
        name: name.to_owned(),
        maximum_retry_count: 0,
    }
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_runs_on() {
    for runtime in ["builtin", "runc"] {
        let rig = Rig::new(runtime).await;
        let id = rig
            .create("i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.05; done")
            .await;
        rig.start(&id).await;
        let before = rig.get(&id).state;
        let exec = ExecOptions {
            args: vec!["sleep".to_owned(), "1000".to_owned()],
            ..Default::default()
        };
        let exec = rig.engine.tasks().create_exec(NS, &id, exec).await.unwrap();
        rig.engine.tasks().start_exec(NS, &exec).await.unwrap();
        let rig = rig.reopen().await;
        let after = rig.get(&id).state;
        assert_eq!(
            (after.status, after.pid, after.started_at),
            (ContainerStatus::Running, before.pid, before.started_at)
        );
        assert!(rig.engine.tasks().inspect_exec(NS, &exec).unwrap().running);
        let kill = KillOptions {
            exec_id: exec.clone(),
            ..Default::default()
        };
        rig.engine.tasks().kill(NS, &exec[..0], kill).await.unwrap();
        eventually("the exec has ended", || {
            rig.engine
                .tasks()
                .inspect_exec(NS, &exec)
                .unwrap()
                .exit_code
                == Some(137)
        })
        .await;
        assert_eq!(
            rig.exec(&id, "echo still here").await,
            (0, "still here\n".to_owned())
        );
        let session = rig
            .engine
            .tasks()
            .attach(
                NS,
                &id,
                AttachOptions {
                    stdout: true,
                    stream: true,
                    logs: true,
                    ..Default::default()
                },
            )
            .await
            .unwrap();
        rig.engine
            .tasks()
            .kill(NS, &id, KillOptions::default())
            .await
            .unwrap();
        let (output, code) = drain(session).await;
        assert_eq!(code, Some(137));
        for (number, line) in output.lines().enumerate() {
            assert_eq!(line, format!("tick {}", number + 1));
        }
        rig.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_that_nobody_saw_is_told_with_its_time() {
    let rig = Rig::new("builtin").await;
    let id = rig.create("sleep 0.2; exit 9").await;
    let oneshot = rig
        .create_with(
            "sleep 0.2; exit 8",
            ContainerOptions {
                auto_remove: true,
                ..Default::default()
            },
        )
        .await;
    let always = rig
        .create_with(
            "sleep 0.2; exit 7",
            ContainerOptions {
                restart_policy: policy("always"),
                ..Default::default()
            },
        )
        .await;
    let mut pids = Vec::new();
    for id in [&id, &oneshot, &always] {
        rig.start(id).await;
        pids.push(rig.get(id).state.pid.unwrap());
    }
    let state = rig.config.state.clone();
    rig.close().await;
    eventually("the exits are on disk", || {
        [&id, &oneshot, &always].iter().all(|id| {
            state
                .join(format!("shims/{NS}/{id}/exits/init.json"))
                .exists()
        })
    })
    .await;
    let rig = rig.reopen_closed().await;
    eventually("it has ended", || {
        rig.get(&id).state.status == ContainerStatus::Exited
    })
    .await;
    let facts = rig.get(&id).state;
    assert_eq!(facts.exit_code, 9);
    let ran = facts
        .finished_at
        .unwrap()
        .duration_since(facts.started_at.unwrap());
    assert!(ran.as_millis() >= 150 && ran.as_millis() < 2000, "{ran}");
    assert_eq!(rig.actions(&id).await, ["create", "start", "die"]);
    eventually("auto_remove", || {
        rig.engine.containers().get(NS, &oneshot).is_err()
    })
    .await;
    eventually("always", || rig.get(&always).state.restart_count >= 1).await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_container_with_it() {
    for runtime in ["builtin", "runc"] {
        let rig = Rig::new(runtime).await;
        let id = rig.create("sleep 1000").await;
        rig.start(&id).await;
        let pid = rig.get(&id).state.pid.unwrap();
        shims(&rig.config.state).into_iter().for_each(kill);
        let exit = rig.wait(&id).await;
        assert_eq!(exit.exit_code, 255);
        assert!(exit.error.contains("shim"), "{}", exit.error);
        eventually("the process is gone", || {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
        })
        .await;
        rig.start(&id).await;
        rig.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_died_with_the_daemon() {
    let rig = Rig::new("builtin").await;
    let id = rig.create("sleep 1000").await;
    let always = rig
        .create_with(
            "sleep 1000",
            ContainerOptions {
                restart_policy: policy("always"),
                ..Default::default()
            },
        )
        .await;
    rig.start(&id).await;
    rig.start(&always).await;
    let pid = rig.get(&id).state.pid.unwrap();
    rig.close().await;
    shims(&rig.config.state).into_iter().for_each(kill);
    let rig = rig.reopen_closed().await;
    let facts = rig.get(&id).state;
    assert_eq!(
        (facts.status, facts.exit_code),
        (ContainerStatus::Exited, 255)
    );
    assert!(facts.error.contains("shim"), "{}", facts.error);
    eventually("the process is gone", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    })
    .await;
    eventually("always", || {
        rig.get(&always).state.status == ContainerStatus::Running
    })
    .await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_stops_all_and_starts_what_should_run() {
    let rig = Rig::new("builtin").await;
    let with = |name: &str| ContainerOptions {
        restart_policy: policy(name),
        ..Default::default()
    };
    let plain = rig.create("touch /kept; sleep 1000").await;
    let always = rig.create_with("sleep 1000", with("always")).await;
    let unless = rig.create_with("sleep 1000", with("unless-stopped")).await;
    let stopped = rig.create_with("sleep 1000", with("unless-stopped")).await;
    let never = rig.create_with("sleep 1000", with("always")).await;
    for id in [&plain, &always, &unless, &stopped] {
        rig.start(id).await;
    }
    let options = StopOptions {
        timeout: Some(0),
        ..Default::default()
    };
    rig.engine
        .tasks()
        .stop(NS, &stopped, options)
        .await
        .unwrap();
    rig.close().await;
    for id in [&plain, &always, &unless] {
        let pid = rig.bundle_pid(id);
        kill(pid);
    }
    eventually("exits", || {
        [&plain, &always, &unless]
            .iter()
            .all(|id| rig.bundle(id).join("exits/init.json").exists())
    })
    .await;
    shims(&rig.config.state).into_iter().for_each(kill);
    eventually("no shim", || shims(&rig.config.state).is_empty()).await;
    for id in [&plain, &always, &unless] {
        // A reboot takes mounts with it.
        let _ = nix::mount::umount2(
            &rig.bundle(id).join("rootfs"),
            nix::mount::MntFlags::MNT_DETACH,
        );
    }
    std::fs::remove_dir_all(&rig.config.state).unwrap();
    let rig = rig.reopen_closed().await;
    let facts = rig.get(&plain).state;
    assert_eq!(
        (facts.status, facts.exit_code),
        (ContainerStatus::Exited, 255)
    );
    assert!(facts.error.contains("restarted"), "{}", facts.error);
    for id in [&always, &unless] {
        eventually("running again", || {
            rig.get(id).state.status == ContainerStatus::Running
        })
        .await;
    }
    assert_eq!(rig.get(&stopped).state.status, ContainerStatus::Exited);
    assert_eq!(rig.get(&never).state.status, ContainerStatus::Created);
    rig.start(&plain).await;
    assert_eq!(rig.exec(&plain, "ls /kept").await.0, 0);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_nothing_are_removed() {
    let rig = Rig::new("builtin").await;
    let id = rig.create("sleep 1000").await;
    rig.start(&id).await;
    let pid = rig.get(&id).state.pid.unwrap();
    rig.close().await;
    let rig = rig.forget_record(&id).await;
    eventually("the process is gone", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    })
    .await;
    eventually("its directory is gone", || {
        !rig.config
            .root
            .join("containers")
            .join(NS)
            .join(&id)
            .exists()
    })
    .await;
    eventually("its bundle is gone", || !rig.bundle(&id).exists()).await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_lost_is_made_again() {
    let rig = Rig::new("builtin").await;
    let id = rig.create("sleep 1000").await;
    rig.start(&id).await;
    let pid = rig.get(&id).state.pid;
    let rig = rig.lose_store().await;
    let facts = rig.get(&id).state;
    assert_eq!((facts.status, facts.pid), (ContainerStatus::Running, pid));
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_shim_blocks_nobody_else() {
    let rig = Rig::new("builtin").await;
    let hung = rig.create("sleep 1000").await;
    rig.start(&hung).await;
    let stop = |pid: u32| {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    };
    shims(&rig.config.state).into_iter().for_each(stop);
    let other = rig.create("exit 0").await;
    let begin = Instant::now();
    rig.start(&other).await;
    rig.wait(&other).await;
    rig.engine
        .containers()
        .inspect(NS, &hung, false)
        .await
        .unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3));
    let begin = Instant::now();
    let rig = rig.reopen().await;
    assert!(begin.elapsed() < Duration::from_secs(8));
    assert_eq!(rig.get(&hung).state.status, ContainerStatus::Running);
    rig.remove(&hung).await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_found_fast() {
    let rig = Rig::new("builtin").await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let id = rig.create("sleep 1000").await;
        rig.start(&id).await;
        ids.push(id);
    }
    rig.close().await;
    let (rig, took) = rig.reopen_timed().await;
    println!("20 containers were found in {took:?}");
    for id in &ids {
        assert_eq!(rig.get(id).state.status, ContainerStatus::Running);
    }
    rig.finish().await;
}
