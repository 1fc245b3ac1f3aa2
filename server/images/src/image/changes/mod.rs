//! Dockerfile instructions that change an image's config: what `commit` and
//! `import` take with `--change` (Dockerfile reference, the subset that docker
//! allows there).

mod words;

use davit_store::{
    Error, Result,
    image_config::{HealthCheck, ImageConfig},
};

use words::{Lookup, pairs, words};

/// Instructions in one change; each may be long, but not that long.
const MAX_CHANGE: usize = 64 << 10;

/// Applies instructions, in order.
///
/// # Errors
/// `InvalidArgument`, naming the instruction, when one is not understood.
pub(crate) fn apply(config: &mut ImageConfig, changes: &[String]) -> Result<()> {
    let mut cmd_set = false;
    for change in changes {
        // Lines that end in a backslash go on.
        let change = change.replace("\\\r\n", "").replace("\\\n", "");
        for line in change.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            apply_one(config, line, &mut cmd_set)
                .map_err(|error| error.context(format!("change {line:?}")))?;
        }
    }
    Ok(())
}

fn apply_one(config: &mut ImageConfig, line: &str, cmd_set: &mut bool) -> Result<()> {
    if line.len() > MAX_CHANGE {
        return Err(Error::invalid("the instruction is longer than 64 KiB"));
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let name = name.to_ascii_uppercase();
    if rest.is_empty() {
        return Err(Error::invalid(format!(
            "{name} requires at least one argument"
        )));
    }
    match name.as_str() {
        "CMD" => {
            config.cmd = command(rest, config)?;
            *cmd_set = true;
        }
        "ENTRYPOINT" => {
            config.entrypoint = command(rest, config)?;
            // The inherited arguments were meant for another program.
            if !*cmd_set {
                config.cmd.clear();
            }
        }
        "ENV" => {
            for (key, value) in pairs(rest, &lookup(config))? {
                set_env(&mut config.env, &key, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(rest, &lookup(config))?),
        "EXPOSE" => expose(config, rest)?,
        "USER" => config.user = one(rest, config)?,
        "WORKDIR" => {
            let dir = one(rest, config)?;
            config.working_dir = joined(&config.working_dir, &dir);
        }
        "VOLUME" => add_volumes(config, rest)?,
        "STOPSIGNAL" => config.stop_signal = one(rest, config)?,
        "HEALTHCHECK" => config.healthcheck = Some(health(rest, config)?),
        "ONBUILD" => {
            let inner = rest
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            if matches!(inner.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                return Err(Error::invalid(format!(
                    "{inner} isn't allowed as an ONBUILD trigger"
                )));
            }
            config.on_build.push(rest.to_owned());
        }
        _ => {
            return Err(Error::invalid(format!(
                "{name} is not a valid change command"
            )));
        }
    }
    Ok(())
}

/// `["a", "b"]`, or a line for the shell.
fn command(text: &str, config: &ImageConfig) -> Result<Vec<String>> {
    if let Some(list) = json_list(text) {
        return Ok(list);
    }
    let mut command = if config.shell.is_empty() {
        vec!["/bin/sh".to_owned(), "-c".to_owned()]
    } else {
        config.shell.clone()
    };
    command.push(text.to_owned());
    Ok(command)
}

/// A list of strings as JSON; docker takes anything else as plain words.
fn json_list(text: &str) -> Option<Vec<String>> {
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn lookup(config: &ImageConfig) -> Lookup {
    let split = |entry: &String| {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        (key.to_owned(), value.to_owned())
    };
    config.env.iter().map(split).collect()
}

/// The whole rest of the line, with quotes and variables resolved.
fn one(text: &str, config: &ImageConfig) -> Result<String> {
    Ok(words(text, &lookup(config))?.join(" "))
}

fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    let same = |other: &String| other.split('=').next() == Some(key);
    match env.iter_mut().find(|other| same(other)) {
        Some(other) => *other = entry,
        None => env.push(entry),
    }
}

/// "80", "80/udp", "8000-8010/tcp".
fn expose(config: &mut ImageConfig, text: &str) -> Result<()> {
    for word in words(text, &lookup(config))? {
        let refused = || Error::invalid(format!("invalid containerPort: {word}"));
        let (ports, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(Error::invalid(format!("invalid proto: {protocol}")));
        }
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let first: u16 = first.parse().map_err(|_| refused())?;
        let last: u16 = last.parse().map_err(|_| refused())?;
        if first == 0 || last < first {
            return Err(refused());
        }
        for port in first..=last {
            add(&mut config.exposed_ports, format!("{port}/{protocol}"));
        }
    }
    Ok(())
}

fn add_volumes(config: &mut ImageConfig, text: &str) -> Result<()> {
    let volumes = match json_list(text) {
        Some(list) => list,
        None => words(text, &lookup(config))?,
    };
    for volume in volumes {
        let volume = volume.trim().to_owned();
        if volume.is_empty() {
            return Err(Error::invalid(
                "VOLUME specified can not be an empty string",
            ));
        }
        add(&mut config.volumes, volume);
    }
    Ok(())
}

/// Adds to a sorted set that is kept as a list.
fn add(set: &mut Vec<String>, entry: String) {
    if !set.contains(&entry) {
        set.push(entry);
        set.sort();
    }
}

/// A directory relative to another, cleaned.
fn joined(base: &str, dir: &str) -> String {
    let whole = if dir.starts_with('/') {
        dir.to_owned()
    } else {
        format!("{base}/{dir}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn health(text: &str, config: &ImageConfig) -> Result<HealthCheck> {
    let mut check = HealthCheck::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        let (name, value) = flag
            .split_once('=')
            .ok_or_else(|| Error::invalid(format!("missing a value on flag: {flag}")))?;
        match name {
            "interval" => check.interval_ns = nanoseconds(value)?,
            "timeout" => check.timeout_ns = nanoseconds(value)?,
            "start-period" => check.start_period_ns = nanoseconds(value)?,
            "start-interval" => check.start_interval_ns = nanoseconds(value)?,
            "retries" => {
                check.retries = value
                    .parse()
                    .ok()
                    .filter(|&retries| retries >= 0)
                    .ok_or_else(|| {
                        Error::invalid(format!("--retries must be at least 0, not {value:?}"))
                    })?;
            }
            _ => return Err(Error::invalid(format!("unknown flag: {name}"))),
        }
    }
    let (kind, command_text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match (kind.to_ascii_uppercase().as_str(), command_text.trim()) {
        ("NONE", "") if check == HealthCheck::default() => check.test = vec!["NONE".to_owned()],
        ("NONE", _) => return Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        ("CMD", "") => return Err(Error::invalid("missing command after HEALTHCHECK CMD")),
        ("CMD", command_text) => {
            check.test = match json_list(command_text) {
                Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
                None => vec!["CMD-SHELL".to_owned(), command_text.to_owned()],
            };
        }
        (kind, _) => {
            return Err(Error::invalid(format!(
                "Unknown type {kind:?} in HEALTHCHECK (try CMD)"
            )));
        }
    }
    let _ = config;
    Ok(check)
}

fn nanoseconds(text: &str) -> Result<i64> {
    let refused = || Error::invalid(format!("{text:?} is no duration of at least 1ms"));
    let duration = humantime::parse_duration(text).map_err(|_| refused())?;
    let nanoseconds = i64::try_from(duration.as_nanos()).map_err(|_| refused())?;
    if nanoseconds != 0 && nanoseconds < 1_000_000 {
        return Err(refused());
    }
    Ok(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<ImageConfig> {
        let mut config = ImageConfig {
            env: vec!["PATH=/bin".to_owned(), "HOME=/root".to_owned()],
            cmd: vec!["old".to_owned()],
            working_dir: "/a/b".to_owned(),
            ..ImageConfig::default()
        };
        let changes: Vec<_> = changes.iter().map(|&change| change.to_owned()).collect();
        apply(&mut config, &changes).map(|()| config)
    }

    #[test]
    fn instructions_change_the_config() {
        let config = changed(&[
            "CMD [\"a\", \"b c\"]",
            "entrypoint exec x",
            "ENV PATH=$PATH:/usr/bin A=\"b c\" B='$HOME'",
            "ENV OLD the rest \\\n of it",
            "LABEL x=y \"my key\"=\"it's\"",
            "EXPOSE 80 90/udp 100-102",
            "VOLUME [\"/v\"]",
            "VOLUME /w /v",
            "WORKDIR ../c",
            "USER nobody:$A",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=5s --retries=2 CMD curl -f x || exit 1",
            "ONBUILD RUN make",
        ])
        .unwrap();
        assert_eq!(config.cmd, ["a", "b c"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "exec x"]);
        let env = [
            "PATH=/bin:/usr/bin",
            "HOME=/root",
            "A=b c",
            "B=$HOME",
            "OLD=the rest  of it",
        ];
        assert_eq!(config.env, env);
        assert_eq!(config.labels["my key"], "it's");
        assert_eq!(
            config.exposed_ports,
            ["100/tcp", "101/tcp", "102/tcp", "80/tcp", "90/udp"]
        );
        assert_eq!(config.volumes, ["/v", "/w"]);
        assert_eq!(config.working_dir, "/a/c");
        assert_eq!(config.user, "nobody:b c");
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f x || exit 1"]);
        assert_eq!((check.interval_ns, check.retries), (5_000_000_000, 2));
        assert_eq!(config.on_build, ["RUN make"]);
        assert!(changed(&["ENTRYPOINT [\"x\"]"]).unwrap().cmd.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "RUN x",
            "FROM x",
            "CMD",
            "ENV A",
            "LABEL x",
            "EXPOSE x",
            "EXPOSE 0",
            "EXPOSE 70000",
            "EXPOSE 9-8",
            "EXPOSE 80/icmp",
            "HEALTHCHECK x",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=1ns CMD x",
            "HEALTHCHECK --nope=1 CMD x",
            "ONBUILD FROM x",
            "ENV A=\"b",
        ] {
            let error = changed(&[bad]).unwrap_err();
            assert_eq!(
                error.kind(),
                davit_store::Kind::InvalidArgument,
                "{bad}: {error}"
            );
        }
    }
}
