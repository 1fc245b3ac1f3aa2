//! From results of probes to a health status, by docker's rules. Pure.

use std::time::Duration;

use davit_store::image_config::HealthCheck;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::model::{Health, HealthResult, HealthStatus};

/// Results kept.
const KEPT: usize = 5;
/// Bytes of a probe's output kept.
pub(crate) const OUTPUT: usize = 4096;

/// A health check with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What runs in the container.
    pub(crate) args: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
}

impl Plan {
    /// The plan of a check, or None when there is nothing to run. `shell` is
    /// for the shell form; `/bin/sh -c` when empty.
    pub(crate) fn new(check: &HealthCheck, shell: &[String]) -> Option<Self> {
        let args = match check.test.split_first() {
            Some((form, rest)) if form == "CMD" && !rest.is_empty() => rest.to_vec(),
            Some((form, [line])) if form == "CMD-SHELL" => {
                let mut args = if shell.is_empty() {
                    vec!["/bin/sh".to_owned(), "-c".to_owned()]
                } else {
                    shell.to_vec()
                };
                args.push(line.clone());
                args
            }
            Some(_) | None => return None,
        };
        let or = |nanos: i64, seconds: u64| match u64::try_from(nanos) {
            Ok(0) | Err(_) => Duration::from_secs(seconds),
            Ok(nanos) => Duration::from_nanos(nanos),
        };
        Some(Self {
            args,
            interval: or(check.interval_ns, 30),
            timeout: or(check.timeout_ns, 30),
            retries: u32::try_from(check.retries)
                .ok()
                .filter(|n| *n > 0)
                .unwrap_or(3),
            start_period: or(check.start_period_ns, 0),
            start_interval: or(check.start_interval_ns, 5),
        })
    }

    /// The pause before the next probe of a container that has run for `ran`.
    pub(crate) fn pause(&self, ran: Duration, status: HealthStatus) -> Duration {
        match status {
            HealthStatus::Starting if ran < self.start_period => self.start_interval,
            HealthStatus::Starting | HealthStatus::Healthy | HealthStatus::Unhealthy => {
                self.interval
            }
        }
    }
}

/// How a container's health stands. It is written beside the shim's bundle,
/// so that it outlives the daemon and not the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tracker {
    status: Status,
    streak: u32,
    log: Vec<Probe>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Starting,
    Healthy,
    Unhealthy,
}

/// One probe's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// -1 when it took too long or could not run.
    pub(crate) exit_code: i32,
    pub(crate) output: String,
}

impl Default for Tracker {
    fn default() -> Self {
        Self {
            status: Status::Starting,
            streak: 0,
            log: Vec::new(),
        }
    }
}

impl Tracker {
    /// Takes a result in; true when the status changed.
    pub(crate) fn record(&mut self, plan: &Plan, started_at: Timestamp, probe: Probe) -> bool {
        let before = self.status;
        if probe.exit_code == 0 {
            self.streak = 0;
            self.status = Status::Healthy;
        } else {
            let age = probe.start.duration_since(started_at);
            let grace = SignedDuration::try_from(plan.start_period).unwrap_or(SignedDuration::MAX);
            if before != Status::Starting || age >= grace {
                self.streak = self.streak.saturating_add(1);
                if self.streak >= plan.retries {
                    self.status = Status::Unhealthy;
                }
            }
        }
        if self.log.len() >= KEPT {
            self.log.remove(0);
        }
        self.log.push(probe);
        self.status != before
    }

    /// The status alone.
    pub(crate) fn status(&self) -> HealthStatus {
        match self.status {
            Status::Starting => HealthStatus::Starting,
            Status::Healthy => HealthStatus::Healthy,
            Status::Unhealthy => HealthStatus::Unhealthy,
        }
    }

    /// When the last probe ended.
    pub(crate) fn last_end(&self) -> Option<Timestamp> {
        self.log.last().map(|probe| probe.end)
    }

    /// What callers see.
    pub(crate) fn health(&self) -> Health {
        Health {
            status: self.status(),
            failing_streak: self.streak,
            log: self
                .log
                .iter()
                .map(|probe| HealthResult {
                    start: probe.start,
                    end: probe.end,
                    exit_code: probe.exit_code,
                    output: probe.output.clone(),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(retries: i32, start_period: u64) -> Plan {
        let check = HealthCheck {
            test: vec!["CMD".to_owned(), "true".to_owned()],
            retries,
            start_period_ns: i64::try_from(start_period * 1_000_000_000).unwrap(),
            ..Default::default()
        };
        Plan::new(&check, &[]).unwrap()
    }

    fn probe(second: i64, exit_code: i32) -> Probe {
        let at = Timestamp::from_second(second).unwrap();
        Probe {
            start: at,
            end: at,
            exit_code,
            output: String::new(),
        }
    }

    #[test]
    fn forms() {
        let check = |test: &[&str]| HealthCheck {
            test: test.iter().map(|part| (*part).to_owned()).collect(),
            ..Default::default()
        };
        assert!(Plan::new(&check(&[]), &[]).is_none());
        assert!(Plan::new(&check(&["NONE"]), &[]).is_none());
        assert!(Plan::new(&check(&["CMD"]), &[]).is_none());
        assert_eq!(
            Plan::new(&check(&["CMD", "a", "b"]), &[]).unwrap().args,
            ["a", "b"]
        );
        assert_eq!(
            Plan::new(&check(&["CMD-SHELL", "x"]), &[]).unwrap().args,
            ["/bin/sh", "-c", "x"]
        );
        let shell = ["/bin/bash".to_owned(), "-ec".to_owned()];
        assert_eq!(
            Plan::new(&check(&["CMD-SHELL", "x"]), &shell).unwrap().args,
            ["/bin/bash", "-ec", "x"]
        );
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let plan = plan(2, 10);
        let start = Timestamp::from_second(0).unwrap();
        let mut tracker = Tracker::default();
        assert!(!tracker.record(&plan, start, probe(5, 1)));
        assert!(!tracker.record(&plan, start, probe(10, 1)));
        assert!(tracker.record(&plan, start, probe(11, 1)));
        assert_eq!(tracker.status(), HealthStatus::Unhealthy);
        assert!(tracker.record(&plan, start, probe(12, 0)));
        assert_eq!(tracker.health().failing_streak, 0);
    }

    #[test]
    fn a_success_ends_the_start_period() {
        let plan = plan(1, 100);
        let start = Timestamp::from_second(0).unwrap();
        let mut tracker = Tracker::default();
        assert!(tracker.record(&plan, start, probe(1, 0)));
        assert!(tracker.record(&plan, start, probe(2, 1)));
        assert_eq!(tracker.status(), HealthStatus::Unhealthy);
    }

    #[test]
    fn the_last_five_are_kept() {
        let plan = plan(3, 0);
        let start = Timestamp::from_second(0).unwrap();
        let mut tracker = Tracker::default();
        for second in 0..9 {
            tracker.record(&plan, start, probe(second, 0));
        }
        let log = tracker.health().log;
        assert_eq!(log.len(), 5);
        assert_eq!(log[4].start.as_second(), 8);
        let text = serde_json::to_string(&tracker).unwrap();
        assert_eq!(serde_json::from_str::<Tracker>(&text).unwrap(), tracker);
    }

    #[test]
    fn probes_are_closer_while_it_starts() {
        let plan = plan(3, 20);
        let pause = |seconds, status| plan.pause(Duration::from_secs(seconds), status).as_secs();
        assert_eq!(pause(1, HealthStatus::Starting), 5);
        assert_eq!(pause(21, HealthStatus::Starting), 30);
        assert_eq!(pause(1, HealthStatus::Healthy), 30);
    }
}
