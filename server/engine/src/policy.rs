//! What is to happen to a container, as pure functions: when it is started
//! again, and what a call means in a given status. No effects, no clock.

use std::time::Duration;

use davit_store::options::RestartPolicy;

use crate::{Error, Kind, Result, model::ContainerStatus};

/// First pause before a restart; it doubles with each further one.
pub(crate) const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
pub(crate) const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// A run of this length makes the next pause the first one again.
pub(crate) const GOOD_RUN: Duration = Duration::from_secs(10);

/// A restart policy, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    No,
    OnFailure { at_most: Option<u32> },
    Always,
    UnlessStopped,
}

impl Restart {
    /// Reads a policy; `InvalidArgument` for one that docker refuses.
    pub(crate) fn parse(policy: &RestartPolicy) -> Result<Self> {
        let count = policy.maximum_retry_count;
        let parsed = match policy.name.as_str() {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => Self::OnFailure {
                at_most: u32::try_from(count).ok().filter(|count| *count > 0),
            },
            other => {
                return Err(Error::invalid(format!(
                    "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                     'unless-stopped'"
                )));
            }
        };
        if count < 0 {
            return Err(Error::invalid(
                "invalid restart policy: maximum retry count cannot be negative",
            ));
        }
        if count > 0 && !matches!(parsed, Self::OnFailure { .. }) {
            return Err(Error::invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
        Ok(parsed)
    }
}

/// What is known when a container has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    /// How long it ran.
    pub(crate) ran: Duration,
    /// Somebody asked for the end.
    pub(crate) by_hand: bool,
    /// Restarts by the policy so far.
    pub(crate) restarts: u32,
    /// The pause before the last restart, if there was one.
    pub(crate) last_backoff: Option<Duration>,
    pub(crate) auto_remove: bool,
}

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Stay,
    Restart { after: Duration },
    Remove,
}

/// What follows the end of a run.
pub(crate) fn after_end(policy: Restart, ended: Ended) -> Next {
    let again = !ended.by_hand
        && match policy {
            Restart::No => false,
            Restart::Always | Restart::UnlessStopped => true,
            Restart::OnFailure { at_most } => {
                ended.exit_code != 0 && at_most.is_none_or(|most| ended.restarts < most)
            }
        };
    if again {
        return Next::Restart {
            after: backoff(ended.last_backoff, ended.ran),
        };
    }
    if ended.auto_remove {
        Next::Remove
    } else {
        Next::Stay
    }
}

/// The pause before the next restart.
fn backoff(last: Option<Duration>, ran: Duration) -> Duration {
    match last {
        Some(last) if ran < GOOD_RUN => (last * 2).min(LONGEST_BACKOFF),
        Some(_) | None => FIRST_BACKOFF,
    }
}

/// What is known of a container that does not run when the daemon starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) has_been_started: bool,
    pub(crate) manually_stopped: bool,
    pub(crate) exit_code: i32,
    pub(crate) restarts: u32,
}

/// Whether a container that does not run is started when the daemon starts.
pub(crate) fn start_on_boot(policy: Restart, found: Found) -> bool {
    found.has_been_started
        && match policy {
            Restart::No => false,
            Restart::Always => true,
            Restart::UnlessStopped => !found.manually_stopped,
            Restart::OnFailure { at_most } => {
                !found.manually_stopped
                    && found.exit_code != 0
                    && at_most.is_none_or(|most| found.restarts < most)
            }
        }
}

/// A call that changes what a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Start,
    Stop,
    Kill,
    Pause,
    Resume,
    Exec,
    Attach,
    Remove { force: bool },
}

/// What a call means in a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    /// It is so already; nothing to do.
    Already,
}

/// Whether `call` is possible on container `id` in `status`; the errors have
/// docker's wording, since clients show it.
pub(crate) fn admit(call: Call, status: ContainerStatus, id: &str) -> Result<Verdict> {
    use ContainerStatus as S;
    let conflict = |text: String| Err(Error::new(Kind::Conflict, text));
    let precondition = |text: String| Err(Error::precondition(text));
    match (call, status) {
        (Call::Remove { .. }, S::Removing) => {
            conflict(format!("removal of container {id} is already in progress"))
        }
        (Call::Remove { .. }, S::Created | S::Exited | S::Dead) => Ok(Verdict::Go),
        (Call::Remove { force }, S::Running | S::Paused | S::Restarting) => {
            if force {
                return Ok(Verdict::Go);
            }
            let (state, hint) = match status {
                S::Paused => (
                    "paused",
                    "unpause and then stop the container before removal or force remove",
                ),
                _ => (
                    status.as_str(),
                    "stop the container before removal or force remove",
                ),
            };
            conflict(format!(
                "cannot remove container \"{id}\": container is {state}: {hint}"
            ))
        }
        (_, S::Removing | S::Dead) => conflict(format!(
            "container {id} is marked for removal and cannot be used; remove it again if it stays"
        )),
        (Call::Start, S::Running) => Ok(Verdict::Already),
        (Call::Start, S::Paused) => {
            precondition("cannot start a paused container, try unpause instead".to_owned())
        }
        (Call::Start, S::Created | S::Exited | S::Restarting) => Ok(Verdict::Go),
        (Call::Stop, S::Running | S::Paused | S::Restarting) => Ok(Verdict::Go),
        (Call::Stop, S::Created | S::Exited) => Ok(Verdict::Already),
        (Call::Kill, S::Running | S::Paused) => Ok(Verdict::Go),
        (Call::Kill, S::Restarting | S::Created | S::Exited) => conflict(format!(
            "cannot kill container: {id}: container {id} is not running"
        )),
        (Call::Pause, S::Running) => Ok(Verdict::Go),
        (Call::Pause, S::Paused) => conflict(format!("container {id} is already paused")),
        (Call::Pause, S::Restarting) => conflict(format!(
            "container {id} is restarting, wait until the container is running"
        )),
        (Call::Pause | Call::Exec, S::Created | S::Exited) => {
            conflict(format!("container {id} is not running"))
        }
        (Call::Resume, S::Paused) => Ok(Verdict::Go),
        (Call::Resume, S::Running | S::Restarting | S::Created | S::Exited) => {
            conflict(format!("container {id} is not paused"))
        }
        (Call::Exec, S::Running) => Ok(Verdict::Go),
        (Call::Exec, S::Paused) => conflict(format!(
            "container {id} is paused, unpause the container before exec"
        )),
        (Call::Attach, S::Paused) => conflict(format!(
            "container {id} is paused, unpause the container before attach"
        )),
        (Call::Exec | Call::Attach, S::Restarting) => conflict(format!(
            "container {id} is restarting, wait until the container is running"
        )),
        (Call::Attach, S::Running | S::Created | S::Exited) => Ok(Verdict::Go),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, count: i32) -> Result<Restart> {
        Restart::parse(&RestartPolicy {
            name: name.to_owned(),
            maximum_retry_count: count,
        })
    }

    fn ended(exit_code: i32) -> Ended {
        Ended {
            exit_code,
            ran: Duration::from_secs(1),
            by_hand: false,
            restarts: 0,
            last_backoff: None,
            auto_remove: false,
        }
    }

    #[test]
    fn policies_are_checked() {
        assert_eq!(policy("", 0).unwrap(), Restart::No);
        assert_eq!(
            policy("on-failure", 3).unwrap(),
            Restart::OnFailure { at_most: Some(3) }
        );
        assert_eq!(
            policy("on-failure", 0).unwrap(),
            Restart::OnFailure { at_most: None }
        );
        for (name, count) in [
            ("sometimes", 0),
            ("always", 1),
            ("on-failure", -1),
            ("no", 2),
        ] {
            assert_eq!(
                policy(name, count).unwrap_err().kind(),
                Kind::InvalidArgument,
                "{name}:{count}"
            );
        }
    }

    #[test]
    fn each_policy_restarts_what_it_should() {
        let restart = |policy, ended| matches!(after_end(policy, ended), Next::Restart { .. });
        for code in [0, 1, 137] {
            assert!(!restart(Restart::No, ended(code)));
            assert!(restart(Restart::Always, ended(code)));
            assert!(restart(Restart::UnlessStopped, ended(code)));
            assert_eq!(
                restart(Restart::OnFailure { at_most: None }, ended(code)),
                code != 0
            );
        }
        let third = Ended {
            restarts: 3,
            ..ended(1)
        };
        assert!(!restart(Restart::OnFailure { at_most: Some(3) }, third));
        assert!(restart(Restart::OnFailure { at_most: Some(4) }, third));
    }

    #[test]
    fn a_stop_by_hand_ends_every_policy() {
        for policy in [
            Restart::Always,
            Restart::UnlessStopped,
            Restart::OnFailure { at_most: None },
        ] {
            assert_eq!(
                after_end(
                    policy,
                    Ended {
                        by_hand: true,
                        ..ended(1)
                    }
                ),
                Next::Stay
            );
        }
        let gone = Ended {
            by_hand: true,
            auto_remove: true,
            ..ended(0)
        };
        assert_eq!(after_end(Restart::No, gone), Next::Remove);
    }

    #[test]
    fn pauses_double_to_a_minute_and_a_good_run_resets_them() {
        let mut last = None;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let Next::Restart { after } = after_end(
                Restart::Always,
                Ended {
                    last_backoff: last,
                    ..ended(1)
                },
            ) else {
                panic!("always restarts");
            };
            pauses.push(after.as_millis());
            last = Some(after);
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[9..], [51_200, 60_000, 60_000]);
        let good = Ended {
            last_backoff: last,
            ran: GOOD_RUN,
            ..ended(1)
        };
        assert_eq!(
            after_end(Restart::Always, good),
            Next::Restart {
                after: FIRST_BACKOFF
            }
        );
    }

    #[test]
    fn boot_starts_what_ran_and_was_not_stopped() {
        let found = Found {
            has_been_started: true,
            manually_stopped: false,
            exit_code: 255,
            restarts: 0,
        };
        let stopped = Found {
            manually_stopped: true,
            ..found
        };
        assert!(start_on_boot(Restart::Always, stopped));
        assert!(start_on_boot(Restart::UnlessStopped, found));
        assert!(!start_on_boot(Restart::UnlessStopped, stopped));
        assert!(start_on_boot(Restart::OnFailure { at_most: None }, found));
        assert!(!start_on_boot(
            Restart::OnFailure { at_most: None },
            Found {
                exit_code: 0,
                ..found
            }
        ));
        assert!(!start_on_boot(Restart::No, found));
        assert!(!start_on_boot(
            Restart::Always,
            Found {
                has_been_started: false,
                ..found
            }
        ));
    }

    #[test]
    fn calls_repeat_without_harm() {
        use ContainerStatus as S;
        assert_eq!(
            admit(Call::Start, S::Running, "x").unwrap(),
            Verdict::Already
        );
        assert_eq!(admit(Call::Stop, S::Exited, "x").unwrap(), Verdict::Already);
        assert_eq!(
            admit(Call::Stop, S::Created, "x").unwrap(),
            Verdict::Already
        );
        assert_eq!(
            admit(Call::Start, S::Paused, "x").unwrap_err().kind(),
            Kind::FailedPrecondition
        );
        assert_eq!(
            admit(Call::Remove { force: false }, S::Running, "x")
                .unwrap_err()
                .kind(),
            Kind::Conflict
        );
        assert_eq!(
            admit(Call::Remove { force: false }, S::Dead, "x").unwrap(),
            Verdict::Go
        );
        assert!(
            admit(Call::Exec, S::Exited, "x")
                .unwrap_err()
                .to_string()
                .contains("is not running")
        );
    }
}
