//! Many callers at once: on their own containers, and all on one.

#![allow(clippy::unwrap_used)] // a test may

mod rig;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use davit_engine::{Kind, model::*};
use rig::{NS, Rig};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_clients_leave_nothing() {
    let rig = Arc::new(Rig::new("builtin").await);
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = fds();
    let until = Instant::now() + Duration::from_secs(5);
    let clients = (0..20).map(|number| {
        let rig = Arc::clone(&rig);
        tokio::spawn(async move {
            let mut rounds = 0;
            while Instant::now() < until {
                let id = rig
                    .create(&format!("echo {number}; exit {}", number % 7))
                    .await;
                rig.start(&id).await;
                if number % 3 == 0 {
                    rig.engine
                        .tasks()
                        .stop(
                            NS,
                            &id,
                            StopOptions {
                                timeout: Some(1),
                                ..Default::default()
                            },
                        )
                        .await
                        .unwrap();
                } else {
                    assert_eq!(rig.wait(&id).await.exit_code, number % 7);
                    assert_eq!(rig.logs(&id).await, format!("{number}\n"));
                }
                rig.remove(&id).await;
                rounds += 1;
            }
            rounds
        })
    });
    let mut rounds = 0;
    for client in clients.collect::<Vec<_>>() {
        rounds += client.await.unwrap();
    }
    println!("{rounds} lifecycles in 5 s");
    rig::eventually("descriptors are closed", || fds() <= before + 5).await;
    Arc::into_inner(rig).unwrap().finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_on_one() {
    let rig = Arc::new(Rig::new("builtin").await);
    let id = rig.create("sleep 1000").await;
    let until = Instant::now() + Duration::from_secs(3);
    let callers = (0..12).map(|number| {
        let (rig, id) = (Arc::clone(&rig), id.clone());
        tokio::spawn(async move {
            let tasks = rig.engine.tasks();
            while Instant::now() < until {
                let quick = StopOptions {
                    timeout: Some(0),
                    ..Default::default()
                };
                let outcome = match number % 6 {
                    0 => tasks.start(NS, &id).await.map(|_| ()),
                    1 => tasks.stop(NS, &id, quick).await.map(|_| ()),
                    2 => tasks.restart(NS, &id, quick).await.map(|_| ()),
                    3 => tasks.kill(NS, &id, KillOptions::default()).await,
                    4 => match tasks.pause(NS, &id).await {
                        Ok(()) => tasks.resume(NS, &id).await,
                        Err(error) => Err(error),
                    },
                    _ => rig
                        .engine
                        .containers()
                        .inspect(NS, &id, false)
                        .await
                        .map(|_| ()),
                };
                match outcome {
                    Ok(()) => {}
                    Err(error) => assert!(
                        matches!(
                            error.kind(),
                            Kind::Conflict | Kind::FailedPrecondition | Kind::NotFound
                        ),
                        "{number}: {error:?}"
                    ),
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let removes = (0..8).map(|_| {
        let (rig, id) = (Arc::clone(&rig), id.clone());
        tokio::spawn(async move {
            rig.engine
                .containers()
                .remove(
                    NS,
                    &id,
                    RemoveOptions {
                        force: true,
                        volumes: false,
                    },
                )
                .await
        })
    });
    let mut removed = 0;
    for remove in removes.collect::<Vec<_>>() {
        match remove.await.unwrap() {
            Ok(()) => removed += 1,
            Err(error) => assert!(
                matches!(error.kind(), Kind::NotFound | Kind::Conflict),
                "{error:?}"
            ),
        }
    }
    assert!(removed >= 1);
    Arc::into_inner(rig).unwrap().finish().await;
}
