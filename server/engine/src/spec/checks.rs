//! What is wrong with options whatever the host: docker refuses it at Create,
//! and so do we, in its words.

use davit_store::{
    Error, Result,
    image_config::HealthCheck,
    options::{ContainerOptions, LogConfig, RestartPolicy},
};

use super::{NamespaceKind, NetworkMode, Shared};

/// Longest host name that the kernel takes (HOST_NAME_MAX).
const MAX_HOSTNAME: usize = 64;

/// Least time in a health check: 1 ms.
const MIN_DURATION_NS: i64 = 1_000_000;

/// Checks everything that no other topic checks.
pub(super) fn all(
    options: &ContainerOptions,
    shared: &Shared,
    warnings: &mut Vec<String>,
) -> Result<()> {
    no_nul(options)?;
    names(options, shared)?;
    working_dir(&options.working_dir)?;
    restart_policy(&options.restart_policy)?;
    if options.auto_remove && !matches!(options.restart_policy.name.as_str(), "" | "no") {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    if let Some(check) = &options.healthcheck {
        health_check(check)?;
    }
    if options.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if !(-1000..=1000).contains(&options.oom_score_adj) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            options.oom_score_adj
        ));
    }
    log(&options.log)?;
    for key in options.annotations.keys() {
        if key.is_empty() {
            return invalid(
                "invalid Annotations: the empty string is not permitted as an annotation key",
            );
        }
    }
    not_yet(options, warnings)
}

/// The policy itself; Update uses it, too.
pub(super) fn restart_policy(policy: &RestartPolicy) -> Result<()> {
    let count = policy.maximum_retry_count;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if count > 0 => invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        "" | "no" | "always" | "unless-stopped" | "on-failure" if count < 0 => {
            let name = if policy.name == "on-failure" {
                ""
            } else {
                "can only be used with 'on-failure' and "
            };
            invalid(format!(
                "invalid restart policy: maximum retry count {name}cannot be negative"
            ))
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

/// The kernel ends strings at a NUL byte, so what follows one would silently
/// go.
fn no_nul(options: &ContainerOptions) -> Result<()> {
    let lists = [
        ("args", options.args.as_deref().unwrap_or_default()),
        (
            "entrypoint",
            options.entrypoint.as_deref().unwrap_or_default(),
        ),
        ("env", &options.env),
        (
            "masked_paths",
            options.masked_paths.as_deref().unwrap_or_default(),
        ),
        (
            "readonly_paths",
            options.readonly_paths.as_deref().unwrap_or_default(),
        ),
        ("binds", &options.binds),
        ("extra_hosts", &options.extra_hosts),
    ];
    let single = [
        ("user", &options.user),
        ("working_dir", &options.working_dir),
        ("cgroup_parent", &options.cgroup_parent),
    ];
    let found = lists
        .iter()
        .find(|(_, list)| list.iter().any(|item| item.contains('\0')))
        .map(|(field, _)| *field)
        .or_else(|| {
            single
                .iter()
                .find(|(_, text)| text.contains('\0'))
                .map(|(field, _)| *field)
        });
    found.map_or(Ok(()), |field| {
        invalid(format!("{field} contains a NUL byte"))
    })
}

fn names(options: &ContainerOptions, shared: &Shared) -> Result<()> {
    for (what, name) in [
        ("hostname", &options.hostname),
        ("domainname", &options.domainname),
    ] {
        let odd = |c: char| c.is_control() || c.is_whitespace() || c == '/';
        if name.len() > MAX_HOSTNAME || name.chars().any(odd) {
            return invalid(format!(
                "invalid {what} format: {name:?} (at most {MAX_HOSTNAME} characters, without white space)"
            ));
        }
    }
    if options.hostname.is_empty() {
        return Ok(());
    }
    if shared.host.contains(&NamespaceKind::Uts) {
        return invalid("conflicting options: hostname and the UTS mode");
    }
    if matches!(shared.network, NetworkMode::Container(_)) {
        return invalid("conflicting options: hostname and the network mode");
    }
    Ok(())
}

pub(super) fn working_dir(dir: &str) -> Result<()> {
    if dir.is_empty() || dir.starts_with('/') {
        return Ok(());
    }
    invalid(format!(
        "the working directory '{dir}' is invalid, it needs to be an absolute path"
    ))
}

pub(super) fn health_check(check: &HealthCheck) -> Result<()> {
    let durations = [
        ("Interval", check.interval_ns),
        ("Timeout", check.timeout_ns),
        ("StartPeriod", check.start_period_ns),
        ("StartInterval", check.start_interval_ns),
    ];
    for (name, nanoseconds) in durations {
        if nanoseconds != 0 && nanoseconds < MIN_DURATION_NS {
            return invalid(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    if check.retries < 0 {
        return invalid("Retries in Healthcheck cannot be negative");
    }
    match check.test.first().map(String::as_str) {
        None | Some("NONE" | "CMD" | "CMD-SHELL" | "") => Ok(()),
        Some(other) => invalid(format!(
            "Unknown type {other:?} in Healthcheck (try NONE, CMD or CMD-SHELL)"
        )),
    }
}

fn log(log: &LogConfig) -> Result<()> {
    match log.driver.as_str() {
        "" | "json-file" | "none" => {}
        // docker's other local drivers have no meaning of their own here.
        other => {
            return invalid(format!(
                "logger: no log driver named '{other}' is registered; use json-file or none"
            ));
        }
    }
    for (name, value) in &log.options {
        match name.as_str() {
            "max-size" => drop(log_size(value)?),
            "max-file" => drop(log_files(value)?),
            "mode" | "max-buffer-size" | "compress" | "labels" | "labels-regex" | "env"
            | "env-regex" | "tag" => {}
            other => {
                return invalid(format!(
                    "unknown log opt '{other}' for json-file log driver"
                ));
            }
        }
    }
    Ok(())
}

/// Bytes in "20m", "1g", "512k", "100".
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn log_size(text: &str) -> Result<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, factor) = match digits.chars().last() {
        Some('k') => (&digits[..digits.len() - 1], 1u64 << 10),
        Some('m') => (&digits[..digits.len() - 1], 1 << 20),
        Some('g') => (&digits[..digits.len() - 1], 1 << 30),
        _ => (digits, 1),
    };
    let bytes = number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|&bytes| bytes > 0);
    bytes.ok_or_else(|| {
        Error::invalid(format!(
            "invalid value for max-size: {text:?}; use for example 20m"
        ))
    })
}

/// The number in max-file.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn log_files(text: &str) -> Result<u32> {
    let number = text
        .trim()
        .parse::<u32>()
        .ok()
        .filter(|number| (1..=1000).contains(number));
    number.ok_or_else(|| {
        Error::invalid(format!(
            "invalid value for max-file: {text:?}; use a number from 1 to 1000"
        ))
    })
}

/// Refuses, or warns of, what is accepted by the API and not done yet.
fn not_yet(options: &ContainerOptions, warnings: &mut Vec<String>) -> Result<()> {
    if !options.links.is_empty() {
        warnings.push("Links are not supported yet. Links discarded.".to_owned());
    }
    Ok(())
}

fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::invalid(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::CgroupMode;

    fn error(change: impl FnOnce(&mut ContainerOptions)) -> String {
        let mut options = ContainerOptions::default();
        change(&mut options);
        let shared = Shared::parse(&options, CgroupMode::V2).unwrap();
        all(&options, &shared, &mut Vec::new())
            .unwrap_err()
            .to_string()
    }

    fn policy(name: &str, count: i32) -> RestartPolicy {
        RestartPolicy {
            name: name.to_owned(),
            maximum_retry_count: count,
        }
    }

    #[test]
    fn refusals_in_dockers_words() {
        assert_eq!(
            error(|o| o.working_dir = "x".into()),
            "the working directory 'x' is invalid, it needs to be an absolute path"
        );
        assert_eq!(
            error(|o| o.shm_size = -1),
            "SHM size can not be less than 0"
        );
        assert_eq!(
            error(|o| o.oom_score_adj = 1001),
            "Invalid value 1001, range for oom score adj is [-1000, 1000]"
        );
        assert_eq!(
            error(|o| (o.hostname, o.uts_mode) = ("h".into(), "host".into())),
            "conflicting options: hostname and the UTS mode"
        );
        assert_eq!(
            error(|o| (o.hostname, o.network_mode) = ("h".into(), "container:x".into())),
            "conflicting options: hostname and the network mode"
        );
        assert!(error(|o| o.hostname = "a b".into()).starts_with("invalid hostname format"));
        assert!(error(|o| o.hostname = "a".repeat(65)).starts_with("invalid hostname format"));
        assert_eq!(
            error(|o| o.env = vec!["A=\0".into()]),
            "env contains a NUL byte"
        );
        assert_eq!(
            error(|o| (o.auto_remove, o.restart_policy) = (true, policy("always", 0))),
            "can't create 'AutoRemove' container with restart policy"
        );
    }

    #[test]
    fn restart_policies() {
        for good in [
            policy("", 0),
            policy("no", 0),
            policy("always", 0),
            policy("unless-stopped", 0),
            policy("on-failure", 3),
        ] {
            restart_policy(&good).unwrap();
        }
        let text = |bad: RestartPolicy| restart_policy(&bad).unwrap_err().to_string();
        assert_eq!(
            text(policy("on-failure", -1)),
            "invalid restart policy: maximum retry count cannot be negative"
        );
        assert_eq!(
            text(policy("always", 1)),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        );
        assert!(
            text(policy("sometimes", 0))
                .starts_with("invalid restart policy: unknown policy 'sometimes'")
        );
    }

    #[test]
    fn health_checks_and_logs() {
        let check = |change: fn(&mut HealthCheck)| {
            let mut check = HealthCheck::default();
            change(&mut check);
            health_check(&check).map_err(|error| error.to_string())
        };
        assert!(check(|c| c.test = vec!["CMD".into(), "true".into()]).is_ok());
        assert_eq!(
            check(|c| c.interval_ns = 1).unwrap_err(),
            "Interval in Healthcheck cannot be less than 1ms"
        );
        assert_eq!(
            check(|c| c.retries = -1).unwrap_err(),
            "Retries in Healthcheck cannot be negative"
        );
        assert!(
            check(|c| c.test = vec!["true".into()])
                .unwrap_err()
                .contains("Unknown type")
        );
        assert_eq!(log_size("20m").unwrap(), 20 << 20);
        assert_eq!(log_size("1KiB").unwrap(), 1024);
        assert!(
            log_size("").is_err() && log_size("-1").is_err() && log_size("99999999999g").is_err()
        );
        assert!(error(|o| o.log.driver = "syslog".into()).contains("no log driver named 'syslog'"));
        assert!(
            error(|o| o.log.options = [("max-file".to_owned(), "0".to_owned())].into())
                .contains("max-file")
        );
    }
}
