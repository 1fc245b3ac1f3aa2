//! What happens when a run has ended: record, event, who waits, clean-up,
//! and what the policy wants next.

use std::{sync::Arc, time::Duration};

use davit_store::table::container::Phase;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{Actor, Running, State, Then};
use crate::{
    events::Draft,
    model::StopResponse,
    policy::{self, Ended, Next},
    shim::{Ending, Exit, Run},
    volumes,
};

/// The end of a run in a container's terms.
struct End {
    code: i32,
    at: Timestamp,
    oom: bool,
    error: String,
}

impl Actor {
    pub(super) async fn ended(&mut self, number: u64, ending: Ending) {
        if !matches!(&self.state, State::Running(running) if running.run.number == number) {
            return;
        }
        let State::Running(running) = std::mem::replace(&mut self.state, State::Exited) else {
            return;
        };
        let Running {
            run,
            backoff,
            stopping,
            by_hand,
            then,
            watchers,
            paused: _,
        } = running;
        drop(watchers);
        // Before anybody hears of the end: its ports and addresses are free
        // for whoever starts next.
        self.shared.net.detach(&self.id).await;
        let lost = matches!(ending, Ending::Lost { .. });
        let end = match ending {
            Ending::Exited {
                exit: Exit { code, at },
                oom,
            } => End {
                code,
                at,
                oom,
                error: String::new(),
            },
            Ending::Lost { reason } => End {
                code: 255,
                at: Timestamp::now(),
                oom: false,
                error: reason,
            },
        };
        let ran = Duration::try_from(
            end.at
                .duration_since(run.started_at)
                .max(SignedDuration::ZERO),
        )
        .unwrap_or(Duration::ZERO);
        let mut next = self.next(end.code, ran, by_hand, backoff);
        if then.iter().any(|then| matches!(then, Then::Restart(_))) && matches!(next, Next::Remove)
        {
            // docker restarts such a container and removes it at its next end.
            next = Next::Stay;
        }
        self.record_end(&end, ran, stopping.is_some(), &next);
        self.ends += 1;
        self.health = None;
        if let Next::Restart { after } = next {
            self.state = State::Backoff {
                until: Instant::now() + after,
                pause: after,
            };
        }
        self.publish();
        run.set_recorded(self.view.borrow().exit());
        let rest = stopped(then);
        self.clean_up(&run, lost).await;
        self.run = None;
        self.publish();
        self.and_then(rest, next).await;
    }

    fn record_end(&mut self, end: &End, ran: Duration, stopped: bool, next: &Next) {
        let mut drafts = Vec::new();
        if end.oom {
            drafts.push(Draft::new("oom"));
        }
        let mut die = Draft::new("die")
            .with("exitCode", end.code)
            .with("execDuration", ran.as_secs());
        if !end.error.is_empty() {
            die = die.with("error", &end.error);
        }
        drafts.push(die);
        drafts.extend(volumes::unmounted(&self.record));
        if stopped {
            drafts.push(Draft::new("stop"));
        }
        let phase = match next {
            Next::Restart { .. } => Phase::Restarting,
            Next::Stay | Next::Remove => Phase::Exited,
        };
        self.note(
            |details| {
                let state = &mut details.state;
                state.phase = phase;
                state.finished_at = Some(end.at);
                state.exit_code = end.code;
                state.oom_killed = end.oom;
                state.error.clone_from(&end.error);
            },
            drafts,
        );
    }

    /// What the policy wants after an end.
    pub(super) fn next(
        &self,
        exit_code: i32,
        ran: Duration,
        by_hand: bool,
        last_backoff: Option<Duration>,
    ) -> Next {
        let details = self.details();
        policy::after_end(
            self.restart_policy(),
            Ended {
                exit_code,
                ran,
                by_hand,
                restarts: u32::try_from(details.state.restart_count).unwrap_or(0),
                last_backoff,
                auto_remove: details.options.auto_remove,
            },
        )
    }

    /// Does what the policy wants.
    pub(super) async fn follow(&mut self, next: Next) {
        match next {
            Next::Stay => self.publish(),
            Next::Restart { after } => {
                self.state = State::Backoff {
                    until: Instant::now() + after,
                    pause: after,
                };
                self.note(
                    |details| details.state.phase = Phase::Restarting,
                    Vec::new(),
                );
                self.publish();
            }
            Next::Remove => self.remove_by_itself().await,
        }
    }

    async fn and_then(&mut self, rest: Vec<Then>, next: Next) {
        let (restarts, removes): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|then| matches!(then, Then::Restart(_)));
        if !removes.is_empty() {
            for then in restarts {
                if let Then::Restart(reply) = then {
                    let _ = reply.send(Err(self.gone()));
                }
            }
            self.remove_for(removes).await;
        } else if !restarts.is_empty() {
            self.restart_for(restarts).await;
        } else if matches!(next, Next::Remove) {
            self.remove_by_itself().await;
        }
    }

    async fn restart_for(&mut self, restarts: Vec<Then>) {
        let started = self.start(None).await;
        if started.is_ok() {
            self.tell(Draft::new("restart"));
            self.publish();
        }
        let started = started.map_err(Arc::new);
        for then in restarts {
            if let Then::Restart(reply) = then {
                let answer = match &started {
                    Ok(pid) => Ok(*pid),
                    Err(error) => Err(crate::Error::new(error.kind(), error.chain())),
                };
                let _ = reply.send(answer);
            }
        }
    }

    /// Acknowledges the exit and removes shim and bundle.
    async fn clean_up(&mut self, run: &Arc<Run>, lost: bool) {
        // The shim forgets the exit when it is told to: then we must know it.
        if let Err(error) = self.shared.store.written().await {
            tracing::error!(container = %self.id, error = %error.chain(), "an exit may not be recorded; the shim keeps it");
            return;
        }
        fail::fail_point!("engine.exit.after-record");
        self.shared.retire(run, lost).await;
        volumes::release(&self.shared, &self.ns, &self.id).await;
        fail::fail_point!("engine.exit.after-cleanup");
    }
}

/// Answers those who wait for the end only, and gives the others.
fn stopped(then: Vec<Then>) -> Vec<Then> {
    let mut rest = Vec::new();
    for then in then {
        match then {
            Then::Stopped(reply) => {
                let _ = reply.send(Ok(StopResponse {
                    already_stopped: false,
                }));
            }
            Then::Restart(_) | Then::Remove(..) => rest.push(then),
        }
    }
    rest
}
