//! Running health checks: one task a container that has one.

use std::{sync::Arc, time::Duration};

use davit_store::options::ExecOptions;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc::WeakSender;

use super::status::{OUTPUT, Plan, Probe, Tracker};
use crate::{
    Result,
    actor::Command,
    names,
    shared::Shared,
    shim::{Connect, ExecTask, Frame, Run, connect_streams},
};

/// Longest wait for a probe that was killed.
const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// Probes until the run's watchers are ended. The tracker is what an earlier
/// daemon left; the next probe is due when it would have been.
pub(crate) async fn watch_health(
    shared: Arc<Shared>,
    run: Arc<Run>,
    plan: Plan,
    mut tracker: Tracker,
    mailbox: WeakSender<Command>,
) {
    loop {
        let now = Timestamp::now();
        let since = |at: Timestamp| {
            Duration::try_from(now.duration_since(at).max(SignedDuration::ZERO))
                .unwrap_or(Duration::ZERO)
        };
        let pause = plan.pause(since(run.started_at), tracker.status());
        let waited = since(tracker.last_end().unwrap_or(run.started_at));
        tokio::time::sleep(pause.saturating_sub(waited)).await;
        let Some(mailbox) = mailbox.upgrade() else {
            return;
        };
        let probe = probe(&shared, &run, &plan).await;
        let changed = tracker.record(&plan, run.started_at, probe);
        if let Err(error) = run.bundle.write("health.json", &tracker) {
            tracing::warn!(container = run.id, error = %error.chain(), "the health is not kept over a restart");
        }
        if mailbox
            .send(Command::Health(run.number, tracker.health(), changed))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Runs one check. No events: docker's exec events for each probe would push
/// everything else out of the log.
async fn probe(shared: &Arc<Shared>, run: &Run, plan: &Plan) -> Probe {
    let start = Timestamp::now();
    let id = format!("health-{}", &names::new_id()[..16]);
    let mut output = Vec::new();
    let outcome =
        tokio::time::timeout(plan.timeout, attempt(shared, run, plan, &id, &mut output)).await;
    let (exit_code, complaint) = match outcome {
        Ok(Ok(code)) => (code, None),
        Ok(Err(error)) => (-1, Some(error.chain())),
        Err(_) => {
            let _ = run.client().kill(&id, 9, true).await;
            let _ = tokio::time::timeout(KILLED_WITHIN, run.wait(&id)).await;
            (
                -1,
                Some(format!(
                    "Health check exceeded timeout ({:?})",
                    plan.timeout
                )),
            )
        }
    };
    let _ = run.client().delete(&id).await;
    let mut output = String::from_utf8_lossy(&output).into_owned();
    if let Some(complaint) = complaint {
        if !output.is_empty() {
            output = format!(": {output}");
        }
        output = format!("{complaint}{output}");
    }
    truncate(&mut output);
    Probe {
        start,
        end: Timestamp::now(),
        exit_code,
        output,
    }
}

async fn attempt(
    shared: &Arc<Shared>,
    run: &Run,
    plan: &Plan,
    id: &str,
    output: &mut Vec<u8>,
) -> Result<i32> {
    let handle = shared.index.find(&run.ns, &run.id)?;
    let options = ExecOptions {
        args: plan.args.clone(),
        ..Default::default()
    };
    let process = shared.exec_process(&handle, run, &options).await?;
    let client = run.client();
    let task = ExecTask {
        exec_id: id.to_owned(),
        terminal: false,
        stdin: String::new(),
        stdout: "davit://".to_owned(),
        process,
    };
    client.exec(task).await?;
    let connect = Connect {
        exec: id.to_owned(),
        stdin: false,
        stdout: true,
        stderr: true,
        from: "live",
    };
    let (mut reader, _writer) = connect_streams(&run.bundle.streams(), &connect).await?;
    client.start(id).await?;
    loop {
        match reader.next().await? {
            Some(Frame::Stdout(bytes) | Frame::Stderr(bytes)) => {
                let room = OUTPUT.saturating_sub(output.len()).min(bytes.len());
                output.extend_from_slice(&bytes[..room]);
            }
            Some(Frame::Exit { code, .. }) => return Ok(code),
            Some(Frame::Lagged { .. }) | None => return Ok(run.wait(id).await?.0.code),
        }
    }
}

fn truncate(text: &mut String) {
    if text.len() > OUTPUT {
        let mut end = OUTPUT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}
