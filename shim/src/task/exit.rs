//! How a process's end is found out, written down, and told: always in that order.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;

use super::container::Container;
use super::process::{Process, State};
use crate::diag;
use crate::events::exit_event;
use crate::exits::{self, Exit};
use crate::io::scratch;
use crate::reaper::Ended;
use crate::runtime::Created;

/// For the execs of a container whose init has ended.
const EXECS_DEADLINE: Duration = Duration::from_secs(5);

/// Takes charge of a process that the runtime has just made: copies its stdio and waits for its end.
pub(super) fn adopt(
    container: &Arc<Container>,
    process: &Arc<Process>,
    created: Created,
    state: impl FnOnce(i32) -> State,
) {
    let pid = created.pid;
    let ended = container.shim.reaper.wait(pid);
    process.advance(state(pid));
    if let Err(error) = process.stdio.start(created.console) {
        diag::warn(format_args!(
            "container {}: stdio of process {pid} is not copied: {error}",
            container.id
        ));
    }
    let kills_before = if process.exec_id.is_empty() {
        container.find_cgroup(pid);
        0
    } else {
        container.oom_kills()
    };
    tokio::spawn(watch(
        container.clone(),
        process.clone(),
        pid,
        kills_before,
        ended,
    ));
}

async fn watch(
    container: Arc<Container>,
    process: Arc<Process>,
    pid: i32,
    kills_before: u64,
    ended: impl Future<Output = Ended>,
) {
    let ended = ended.await;
    fail_point!("shim.exit.before-record");
    let killed = container.oom_kills() > kills_before;
    let exit = Exit {
        id: process.record().to_owned(),
        pid,
        code: ended.code,
        at: ended.at,
        // Any kill is init's affair; an exec is told apart by how it ended itself.
        oom: killed && (process.exec_id.is_empty() || ended.signal == Some(9)),
        signal: ended.signal,
    };
    if let Err(error) = exits::write(&container.bundle, &exit) {
        diag::warn(format_args!(
            "container {}: the exit of {} is not on disk: {error}",
            container.id, exit.id
        ));
    }
    fail_point!("shim.exit.after-record");
    process.stop(exit.clone());
    // Not before its start has been told.
    let started = process.starting.lock().await;
    drop(started);
    if process.exec_id.is_empty() {
        end_others(&container).await;
    }
    process.stdio.settle().await;
    let (topic, event) = exit_event(&container.id, name(&container, &process), &exit);
    container.shim.publisher.publish(topic, &event);
    process.stdio.finish(&exit);
    process.tell();
    fail_point!("shim.exit.after-tell");
    scratch::touch();
}

/// The id that containerd knows the process by.
fn name<'a>(container: &'a Container, process: &'a Process) -> &'a str {
    if process.exec_id.is_empty() {
        &container.id
    } else {
        &process.exec_id
    }
}

/// Init has ended: so have the others, or they are made to; their ends are told before init's.
async fn end_others(container: &Container) {
    if !container.own_pids {
        // Nobody left is as good.
        let _ = container.runtime.kill(&container.id, 9, true).await;
    }
    let running: Vec<_> = container
        .execs()
        .values()
        .filter(|exec| exec.pid() > 0)
        .cloned()
        .collect();
    let all = async {
        for exec in running {
            // An exec that was started is told, whatever became of it.
            let _ = exec.wait().await;
        }
    };
    if tokio::time::timeout(EXECS_DEADLINE, all).await.is_err() {
        diag::warn(format_args!(
            "container {}: init has ended, but an exec has not",
            container.id
        ));
    }
}
