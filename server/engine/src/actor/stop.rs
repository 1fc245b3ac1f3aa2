//! Stop, restart, kill, pause and resume.

use std::time::Duration;

use davit_store::table::container::Phase;
use tokio::time::Instant;

use super::{Actor, State, Stopping, Then};
use crate::{
    Error, Kind, Result,
    events::Draft,
    model::{KillOptions, RemoveOptions, StopOptions, StopResponse},
    policy::{self, Call, Verdict},
    shim::Ending,
    spec::signal,
};

/// Longest wait for the end after KILL.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
/// The same when KILL went past a shim that does not answer: it won't tell.
const KILLED_DIRECTLY_WITHIN: Duration = Duration::from_secs(2);
const KILL: i32 = 9;

impl Actor {
    /// Stops it for `then`, which is answered when it has ended.
    pub(super) async fn stop(&mut self, options: StopOptions, then: Then) {
        let admitted = policy::admit(Call::Stop, self.status(), &self.id);
        let signal = signal::parse(&options.signal).or_else(|error| {
            if options.signal.is_empty() {
                Ok(self.stop_signal())
            } else {
                Err(error)
            }
        });
        let signal = match (admitted, signal) {
            (Err(error), _) | (_, Err(error)) => return refuse(then, error),
            (Ok(Verdict::Already), Ok(_)) => return self.stopped_already(then, true).await,
            (Ok(Verdict::Go), Ok(signal)) => signal,
        };
        if matches!(self.state, State::Backoff { .. }) {
            return self.stop_in_backoff(then).await;
        }
        self.by_hand(true);
        let timeout = options.timeout.unwrap_or_else(|| self.stop_timeout());
        if let State::Running(running) = &mut self.state {
            running.then.push(then);
        }
        if timeout == 0 || !self.ask_to_end(signal).await {
            return self.kill_now().await;
        }
        let kill_at = u64::try_from(timeout)
            .ok()
            .map(|seconds| Instant::now() + Duration::from_secs(seconds));
        if let State::Running(running) = &mut self.state {
            running.stopping = Some(match running.stopping {
                Some(Stopping::Killed { give_up_at }) => Stopping::Killed { give_up_at },
                // A second stop may be more impatient than the first.
                Some(Stopping::Asked {
                    kill_at: Some(before),
                }) => Stopping::Asked {
                    kill_at: Some(kill_at.map_or(before, |at| at.min(before))),
                },
                Some(Stopping::Asked { kill_at: None }) | None => Stopping::Asked { kill_at },
            });
        }
    }

    /// Sends the stop signal; false when it can't have arrived.
    async fn ask_to_end(&mut self, signal: i32) -> bool {
        match self.send(signal, false).await {
            Ok(()) => self.unfreeze().await,
            // It is gone already; the exit is on its way.
            Err(error) if error.kind() == Kind::NotFound => true,
            Err(error) => {
                tracing::warn!(container = %self.id, error = %error.chain(), "cannot send the stop signal; KILL follows");
                false
            }
        }
    }

    /// Sends KILL and waits for the end a bounded time.
    async fn kill_now(&mut self) {
        let patience = self.send_kill().await.unwrap_or_else(|error| {
            tracing::warn!(container = %self.id, error = %error.chain(), "cannot send KILL");
            KILLED_WITHIN
        });
        self.unfreeze().await;
        if let State::Running(running) = &mut self.state {
            running.stopping = Some(Stopping::Killed {
                give_up_at: Instant::now() + patience,
            });
        }
    }

    /// Kills it for a forced removal.
    pub(super) async fn kill_for_removal(
        &mut self,
        options: RemoveOptions,
        reply: super::Reply<()>,
    ) {
        self.by_hand(false);
        if let State::Running(running) = &mut self.state {
            running.then.push(Then::Remove(options, reply));
        }
        self.kill_now().await;
    }

    /// A stop is due: the next step of it.
    pub(super) async fn escalate(&mut self) {
        let State::Running(running) = &self.state else {
            return;
        };
        match running.stopping {
            Some(Stopping::Asked { .. }) => self.kill_now().await,
            Some(Stopping::Killed { .. }) => self.give_up().await,
            None => {}
        }
    }

    /// KILL was sent and nobody has seen an end.
    async fn give_up(&mut self) {
        let State::Running(running) = &mut self.state else {
            return;
        };
        let number = running.run.number;
        if running.run.is_alive() {
            running.stopping = None;
            let then = std::mem::take(&mut running.then);
            for then in then {
                refuse(
                    then,
                    Error::new(
                        Kind::DeadlineExceeded,
                        format!(
                            "tried to kill container {}, but did not receive an exit event; its process may be stuck \
                             in the kernel",
                            self.id
                        ),
                    ),
                );
            }
            return;
        }
        let reason = "the process is dead and its shim does not say how it ended".to_owned();
        self.ended(number, Ending::Lost { reason }).await;
    }

    pub(super) async fn kill(&mut self, options: &KillOptions) -> Result<()> {
        policy::admit(Call::Kill, self.status(), &self.id)?;
        let signal = if options.signal.is_empty() {
            KILL
        } else {
            signal::parse(&options.signal)?
        };
        let ends = signal == KILL || signal == self.stop_signal();
        let sent = if signal == KILL && !options.all {
            self.send_kill().await.map(|_| ())
        } else {
            self.send(signal, options.all).await
        };
        match sent {
            Ok(()) => {}
            // It is gone already; the exit is on its way.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error.context(format!("cannot kill container {}", self.id))),
        }
        if ends {
            self.by_hand(true);
            self.unfreeze().await;
        }
        Ok(())
    }

    pub(super) async fn pause(&mut self) -> Result<()> {
        policy::admit(Call::Pause, self.status(), &self.id)?;
        let State::Running(running) = &mut self.state else {
            return Ok(());
        };
        running
            .run
            .client()
            .pause()
            .await
            .map_err(|error| error.context(format!("cannot pause container {}", self.id)))?;
        running.paused = true;
        self.note(
            |details| details.state.phase = Phase::Paused,
            vec![Draft::new("pause")],
        );
        self.publish();
        Ok(())
    }

    pub(super) async fn resume(&mut self) -> Result<()> {
        policy::admit(Call::Resume, self.status(), &self.id)?;
        let State::Running(running) = &mut self.state else {
            return Ok(());
        };
        running
            .run
            .client()
            .resume()
            .await
            .map_err(|error| error.context(format!("cannot resume container {}", self.id)))?;
        running.paused = false;
        self.note(
            |details| details.state.phase = Phase::Running,
            vec![Draft::new("unpause")],
        );
        self.publish();
        Ok(())
    }

    /// Thaws it so that it sees a signal; false when that failed.
    async fn unfreeze(&mut self) -> bool {
        if !matches!(&self.state, State::Running(running) if running.paused) {
            return true;
        }
        match self.resume().await {
            Ok(()) => true,
            Err(error) if error.kind() == Kind::NotFound => true,
            Err(error) => {
                tracing::warn!(container = %self.id, error = %error.chain(), "cannot resume a container that is stopped");
                false
            }
        }
    }

    /// Sends a signal through the shim, with its event.
    async fn send(&mut self, signal: i32, all: bool) -> Result<()> {
        let State::Running(running) = &self.state else {
            return Ok(());
        };
        let client = running.run.client();
        self.tell(Draft::new("kill").with("signal", signal));
        self.publish();
        fail::fail_point!("engine.stop.before-signal");
        client.kill("", signal, all).await
    }

    /// KILL through the shim, or past it when it does not answer. Gives how
    /// long the end may take to be told.
    async fn send_kill(&mut self) -> Result<Duration> {
        let shares_pids = !matches!(self.details().options.pid_mode.as_str(), "" | "private");
        let sent = self.send(KILL, shares_pids).await;
        let State::Running(running) = &self.state else {
            return sent.map(|()| KILLED_WITHIN);
        };
        match sent {
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::DeadlineExceeded) => {
                tracing::warn!(container = %self.id, error = %error.chain(), "the shim does not take KILL; killing past it");
                running.run.kill_directly().map(|()| KILLED_DIRECTLY_WITHIN)
            }
            Err(error) if error.kind() == Kind::NotFound => Ok(KILLED_WITHIN),
            other => other.map(|()| KILLED_WITHIN),
        }
    }

    /// Remembers that somebody wants the end.
    fn by_hand(&mut self, record: bool) {
        if let State::Running(running) = &mut self.state {
            running.by_hand = true;
        }
        if record {
            self.note(|details| details.state.manually_stopped = true, Vec::new());
        }
    }

    async fn stop_in_backoff(&mut self, then: Then) {
        self.state = State::Exited;
        self.ends += 1;
        let (stops, removes) = match &then {
            Then::Stopped(_) | Then::Restart(_) => (true, self.details().options.auto_remove),
            Then::Remove(..) => (false, false),
        };
        self.note(
            |details| {
                details.state.phase = Phase::Exited;
                details.state.manually_stopped = stops;
            },
            if stops {
                vec![Draft::new("stop")]
            } else {
                Vec::new()
            },
        );
        self.publish();
        let restarts = matches!(then, Then::Restart(_));
        self.stopped_already(then, false).await;
        if removes && !restarts {
            self.remove_by_itself().await;
        }
    }

    /// It does not run: answers `then`, or goes on with it.
    async fn stopped_already(&mut self, then: Then, already: bool) {
        match then {
            Then::Stopped(reply) => {
                let _ = reply.send(Ok(StopResponse {
                    already_stopped: already,
                }));
            }
            Then::Restart(reply) => {
                let started = self.start(None).await;
                if started.is_ok() {
                    self.tell(Draft::new("restart"));
                    self.publish();
                }
                let _ = reply.send(started);
            }
            Then::Remove(options, reply) => {
                self.remove_for(vec![Then::Remove(options, reply)]).await
            }
        }
    }

    fn stop_signal(&self) -> i32 {
        let details = self.details();
        signal::parse(&details.config.stop_signal).unwrap_or(15)
    }

    fn stop_timeout(&self) -> i32 {
        self.details()
            .options
            .stop_timeout
            .unwrap_or(self.shared.config.stop_timeout)
    }
}

fn refuse(then: Then, error: Error) {
    match then {
        Then::Stopped(reply) => drop(reply.send(Err(error))),
        Then::Restart(reply) => drop(reply.send(Err(error))),
        Then::Remove(_, reply) => drop(reply.send(Err(error))),
    }
}
