//! Starting: by a caller, by the restart policy, and at the daemon's start.

use std::{sync::Arc, time::Duration};

use davit_store::table::container::Phase;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{Actor, Command, Running, State, Watchers};
use crate::{
    Error, Kind, Result,
    events::Draft,
    health::{Tracker, watch_health},
    launch::{Launch, Launched, launch},
    model::StartResponse,
    policy::{self, Call, Found, Restart, Verdict},
    shim::{Ending, Exit, Run},
    volumes,
};

/// What is known of a container when its actor starts.
#[derive(Debug)]
pub(crate) enum Revived {
    /// It does not run; the record says how it stands.
    Idle,
    /// It runs on.
    Running {
        run: Arc<Run>,
        paused: bool,
        backoff: Option<Duration>,
    },
    /// It ran, and ended while no daemon looked; the shim is still to be
    /// cleaned up.
    Ended {
        run: Arc<Run>,
        ending: Ending,
        backoff: Option<Duration>,
    },
    /// It ran and ended, and the shim's exit file alone told how.
    Over {
        exit: Exit,
        oom: bool,
        started_at: Timestamp,
        backoff: Option<Duration>,
    },
    /// It ran, and nothing of it is left but the record.
    Gone { reason: String },
}

/// Longest wait for those who change the files of a container that does not
/// run.
const FILES_WITHIN: Duration = Duration::from_secs(10);

impl Actor {
    /// Takes up what was found.
    pub(super) fn revive(&mut self, found: Revived) {
        match found {
            Revived::Idle => {
                self.state = match self.details().state.phase {
                    Phase::Created => State::Created,
                    Phase::Removing | Phase::Dead => State::Dead {
                        retry: Instant::now(),
                        pause: policy::FIRST_BACKOFF,
                    },
                    Phase::Running | Phase::Paused | Phase::Restarting | Phase::Exited => {
                        State::Exited
                    }
                };
            }
            Revived::Running {
                run,
                paused,
                backoff,
            } => {
                self.note_start(run.started_at, backoff);
                self.take_up(run, paused, backoff, true);
            }
            Revived::Ended {
                run,
                ending,
                backoff,
            } => {
                let number = run.number;
                self.note_start(run.started_at, backoff);
                self.take_up(run, false, backoff, false);
                if let Some(mailbox) = self.myself.upgrade() {
                    // The mailbox is new and empty.
                    let _ = mailbox.try_send(Command::Ended(number, ending));
                }
            }
            Revived::Over {
                exit,
                oom,
                started_at,
                backoff,
            } => {
                self.note_start(started_at, backoff);
                self.note_end(exit.code, exit.at, oom, String::new());
            }
            Revived::Gone { reason } => self.note_end(255, Timestamp::now(), false, reason),
        }
    }

    /// Records a start that the last daemon had no time to record.
    fn note_start(&mut self, started_at: Timestamp, backoff: Option<Duration>) {
        if self.details().state.started_at != Some(started_at) {
            self.record_start(started_at, backoff);
        }
    }

    /// Records an end that happened while no daemon looked.
    fn note_end(&mut self, code: i32, at: Timestamp, oom: bool, reason: String) {
        self.state = State::Exited;
        let mut drafts = if oom {
            vec![Draft::new("oom")]
        } else {
            Vec::new()
        };
        drafts.push(Draft::new("die").with("exitCode", code));
        drafts.extend(volumes::unmounted(&self.record));
        self.note(
            |details| {
                let state = &mut details.state;
                state.phase = Phase::Exited;
                state.exit_code = code;
                state.finished_at = Some(at);
                state.oom_killed = oom;
                state.error = reason;
            },
            drafts,
        );
    }

    fn record_start(&mut self, started_at: Timestamp, backoff: Option<Duration>) {
        let mut drafts = volumes::mounted(&self.record);
        drafts.push(Draft::new("start"));
        self.note(
            |details| {
                let state = &mut details.state;
                state.phase = Phase::Running;
                state.has_been_started = true;
                state.started_at = Some(started_at);
                state.finished_at = None;
                state.exit_code = 0;
                state.error.clear();
                state.oom_killed = false;
                state.manually_stopped = false;
                state.restart_count = if backoff.is_some() {
                    state.restart_count + 1
                } else {
                    0
                };
            },
            drafts,
        );
    }

    /// Starts it since the daemon has started and the policy says so.
    pub(super) async fn boot(&mut self) {
        let facts = self.details().state;
        let found = Found {
            has_been_started: facts.has_been_started,
            manually_stopped: facts.manually_stopped,
            exit_code: facts.exit_code,
            restarts: u32::try_from(facts.restart_count).unwrap_or(0),
        };
        if !matches!(self.state, State::Exited) {
            return;
        }
        if policy::start_on_boot(self.restart_policy(), found) {
            self.start_again(policy::FIRST_BACKOFF).await;
        } else if self.details().options.auto_remove {
            self.remove_by_itself().await;
        }
    }

    pub(super) async fn start_by_hand(&mut self) -> Result<StartResponse> {
        if policy::admit(Call::Start, self.status(), &self.id)? == Verdict::Already {
            let pid = match &self.state {
                State::Running(running) => running.run.pid(),
                State::Created
                | State::Backoff { .. }
                | State::Exited
                | State::Removing
                | State::Dead { .. } => 0,
            };
            return Ok(StartResponse {
                pid,
                already_running: true,
            });
        }
        let pid = self.start(None).await?;
        Ok(StartResponse {
            pid,
            already_running: false,
        })
    }

    /// Starts it by the restart policy, after `pause`. A failure counts as an
    /// end and is retried in turn.
    pub(super) async fn start_again(&mut self, pause: Duration) {
        if let Err(error) = self.start(Some(pause)).await {
            tracing::warn!(container = %self.id, error = %error.chain(), "a restart by the policy failed");
        }
    }

    pub(super) async fn start(&mut self, backoff: Option<Duration>) -> Result<u32> {
        self.waiting.retain(|waiting| !waiting.is_gone());
        let files = Arc::clone(&self.files);
        let Ok(_hold) = tokio::time::timeout(FILES_WITHIN, files.lock()).await else {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "files are being copied into container {}; start it when that is done",
                    self.id
                ),
            ));
        };
        let launched = launch(
            &self.shared,
            Launch {
                ns: Arc::clone(&self.ns),
                record: Arc::clone(&self.record),
                waiting: std::mem::take(&mut self.waiting),
                backoff,
            },
        )
        .await;
        match launched {
            Ok(launched) => Ok(self.started(launched, backoff)),
            Err(error) => Err(self.failed_to_start(error, backoff).await),
        }
    }

    fn started(&mut self, launched: Launched, backoff: Option<Duration>) -> u32 {
        for warning in &launched.warnings {
            tracing::warn!(container = %self.id, warning, "at a start");
        }
        let run = launched.run;
        self.record_start(run.started_at, backoff);
        let pid = run.pid();
        self.take_up(run, false, backoff, true);
        self.publish();
        pid
    }

    /// Makes `run` the state and watches it.
    fn take_up(&mut self, run: Arc<Run>, paused: bool, backoff: Option<Duration>, alive: bool) {
        let mut watchers = Watchers::default();
        if alive {
            watchers.add(
                self.shared
                    .spawn(watch_end(Arc::clone(&run), self.myself.clone())),
            );
            if let Some(plan) = self.plan() {
                let tracker: Tracker = run.bundle.read("health.json").unwrap_or_default();
                self.health = Some(tracker.health());
                let task = watch_health(
                    Arc::clone(&self.shared),
                    Arc::clone(&run),
                    plan,
                    tracker,
                    self.myself.clone(),
                );
                watchers.add(self.shared.spawn(task));
            }
        }
        self.run = Some(Arc::clone(&run));
        self.state = State::Running(Running {
            run,
            paused,
            backoff,
            stopping: None,
            by_hand: false,
            then: Vec::new(),
            watchers,
        });
    }

    /// Records a start that failed, and follows the policy when the policy
    /// had started it.
    async fn failed_to_start(&mut self, error: Error, backoff: Option<Duration>) -> Error {
        let error = error.context("failed to create task for container");
        let text = error.chain();
        let code = exit_code(&text);
        self.ends += 1;
        let now = Timestamp::now();
        self.note(
            |details| {
                let state = &mut details.state;
                state.phase = if state.has_been_started {
                    Phase::Exited
                } else {
                    Phase::Created
                };
                state.finished_at = state.has_been_started.then_some(now);
                state.exit_code = code;
                state.error.clone_from(&text);
                state.oom_killed = false;
                if backoff.is_some() {
                    state.restart_count += 1;
                }
            },
            vec![
                Draft::new("die")
                    .with("exitCode", code)
                    .with("error", &text),
            ],
        );
        let next = match backoff {
            Some(_) => self.next(code, Duration::ZERO, false, backoff),
            None if self.details().options.auto_remove => policy::Next::Remove,
            None => policy::Next::Stay,
        };
        self.state = if self.details().state.has_been_started {
            State::Exited
        } else {
            State::Created
        };
        self.follow(next).await;
        match (code, error.kind()) {
            // The command is the caller's: a shim calls it unknown.
            (126 | 127, _) => Error::new(Kind::InvalidArgument, text),
            (_, kind) => Error::new(kind, text),
        }
    }

    pub(super) fn restart_policy(&self) -> Restart {
        // Checked at Create and Update.
        Restart::parse(&self.details().options.restart_policy).unwrap_or(Restart::No)
    }
}

/// The exit code that tells why a start failed, as docker's CLI reads the text.
fn exit_code(text: &str) -> i32 {
    if text.contains("executable file not found") || text.contains("no such file or directory") {
        127
    } else if text.contains("permission denied") || text.contains("is a directory") {
        126
    } else {
        125
    }
}

/// Tells the actor when the run has ended.
async fn watch_end(run: Arc<Run>, mailbox: tokio::sync::mpsc::WeakSender<Command>) {
    let ending = run.ended().await;
    if let Some(mailbox) = mailbox.upgrade() {
        // An actor that is gone needs no telling.
        let _ = mailbox.send(Command::Ended(run.number, ending)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::exit_code;

    #[test]
    fn texts_tell_codes() {
        assert_eq!(
            exit_code("exec: \"foo\": executable file not found in $PATH"),
            127
        );
        assert_eq!(
            exit_code("exec: \"/foo\": stat /foo: no such file or directory"),
            127
        );
        assert_eq!(exit_code("exec: \"/etc/passwd\": permission denied"), 126);
        assert_eq!(exit_code("exec /etc: is a directory"), 126);
        assert_eq!(exit_code("cannot make the cgroup"), 125);
    }
}
