//! A container's state as docker says it: one word, one sentence, one object.

use davit_client::v1::{self, ContainerStatus};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::time;

/// The one word: "running", "exited", …
pub(crate) fn word(state: &v1::ContainerState) -> &'static str {
    match state.status() {
        ContainerStatus::Unspecified | ContainerStatus::Created => "created",
        ContainerStatus::Running => "running",
        ContainerStatus::Paused => "paused",
        ContainerStatus::Restarting => "restarting",
        ContainerStatus::Removing => "removing",
        ContainerStatus::Exited => "exited",
        ContainerStatus::Dead => "dead",
    }
}

/// The sentence of `docker ps`: "Up 3 minutes (healthy)".
pub(crate) fn sentence(state: &v1::ContainerState, now: Timestamp) -> String {
    let up = || time::human(time::since(state.started_at.as_ref(), now));
    let ended = || time::human(time::since(state.finished_at.as_ref(), now));
    match state.status() {
        ContainerStatus::Unspecified | ContainerStatus::Created => "Created".into(),
        ContainerStatus::Running => match health_word(state) {
            Some("starting") => format!("Up {} (health: starting)", up()),
            Some(health) => format!("Up {} ({health})", up()),
            None => format!("Up {}", up()),
        },
        ContainerStatus::Paused => format!("Up {} (Paused)", up()),
        ContainerStatus::Restarting => format!("Restarting ({}) {} ago", state.exit_code, ended()),
        ContainerStatus::Removing => "Removal In Progress".into(),
        ContainerStatus::Exited => format!("Exited ({}) {} ago", state.exit_code, ended()),
        ContainerStatus::Dead => "Dead".into(),
    }
}

fn health_word(state: &v1::ContainerState) -> Option<&str> {
    let status = state.health.as_ref()?.status.as_str();
    (!status.is_empty() && status != "none").then_some(status)
}

/// The object of inspect.
pub(crate) fn to_json(state: &v1::ContainerState) -> Value {
    let status = state.status();
    let running = matches!(
        status,
        ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting
    );
    let mut value = json!({
        "Status": word(state),
        "Running": running,
        "Paused": status == ContainerStatus::Paused,
        "Restarting": status == ContainerStatus::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": status == ContainerStatus::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time::rfc3339(state.started_at.as_ref()),
        "FinishedAt": time::rfc3339(state.finished_at.as_ref()),
    });
    if let Some(health) = &state.health
        && health_word(state).is_some()
    {
        value["Health"] = health_to_json(health);
    }
    value
}

fn health_to_json(health: &v1::Health) -> Value {
    let entry = |result: &v1::HealthResult| {
        json!({
            "Start": time::rfc3339(result.start.as_ref()),
            "End": time::rfc3339(result.end.as_ref()),
            "ExitCode": result.exit_code,
            "Output": result.output,
        })
    };
    json!({
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": health.log.iter().map(entry).collect::<Value>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: ContainerStatus) -> v1::ContainerState {
        let at = |text: &str| Some(time::wire(text.parse().unwrap()));
        v1::ContainerState {
            status: status.into(),
            exit_code: 3,
            started_at: at("2024-01-01T00:00:00Z"),
            finished_at: at("2024-01-01T00:01:30Z"),
            ..Default::default()
        }
    }

    #[test]
    fn sentences_are_dockers() {
        let now = "2024-01-01T00:02:00Z".parse().unwrap();
        let says = |status| sentence(&state(status), now);
        assert_eq!(says(ContainerStatus::Created), "Created");
        assert_eq!(says(ContainerStatus::Running), "Up 2 minutes");
        assert_eq!(says(ContainerStatus::Paused), "Up 2 minutes (Paused)");
        assert_eq!(says(ContainerStatus::Exited), "Exited (3) 30 seconds ago");
        assert_eq!(
            says(ContainerStatus::Restarting),
            "Restarting (3) 30 seconds ago"
        );
        assert_eq!(says(ContainerStatus::Removing), "Removal In Progress");
        let mut healthy = state(ContainerStatus::Running);
        healthy.health = Some(v1::Health {
            status: "healthy".into(),
            ..Default::default()
        });
        assert_eq!(sentence(&healthy, now), "Up 2 minutes (healthy)");
        assert_eq!(to_json(&healthy)["Health"]["FailingStreak"], 0);
    }

    #[test]
    fn paused_and_restarting_count_as_running() {
        assert_eq!(to_json(&state(ContainerStatus::Paused))["Running"], true);
        assert_eq!(
            to_json(&state(ContainerStatus::Restarting))["Running"],
            true
        );
        assert_eq!(to_json(&state(ContainerStatus::Exited))["Running"], false);
        assert!(
            to_json(&state(ContainerStatus::Exited))
                .get("Health")
                .is_none()
        );
    }
}
