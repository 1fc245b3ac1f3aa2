//! What a runc-compatible binary says went wrong: its JSON log, turned into a kind and runc's wording.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use crate::error::Kind;

/// More of a log than this belongs to no single failure.
const MAX_READ: u64 = 64 * 1024;

/// A line of the log: runc and crun write `level` and `msg`, youki `level` and `fields.message`.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    fields: Fields,
}

#[derive(Deserialize, Default)]
struct Fields {
    #[serde(default)]
    message: String,
}

/// The last error in the log from byte `from` on, or "".
pub(super) fn last_error(log: &Path, from: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(MAX_READ).read_to_end(&mut text)
    });
    if read.is_err() {
        return String::new();
    }
    parse(&String::from_utf8_lossy(&text))
}

fn parse(text: &str) -> String {
    text.lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter(|line| {
            matches!(
                line.level.to_ascii_lowercase().as_str(),
                "error" | "fatal" | "panic"
            )
        })
        .map(|line| {
            [line.msg, line.message, line.fields.message]
                .into_iter()
                .find(|m| !m.is_empty())
        })
        .find_map(|message| message)
        .map(|message| message.trim_end().to_owned())
        .unwrap_or_default()
}

/// The kind of a failure, from the runtimes' fixed texts. The only place that looks at text.
pub(super) fn kind(message: &str) -> Kind {
    const GONE: [&str; 6] = [
        "does not exist",
        "process already finished",
        "no such process",
        "container not running",
        "container is not running",
        "container not found",
    ];
    const TAKEN: [&str; 3] = [
        "container with given ID already exists",
        "container with id exists",
        "already exists",
    ];
    const STATE: [&str; 6] = [
        "cannot start a container that has stopped",
        "cannot start an already running container",
        "cannot exec in a stopped container",
        "cannot exec in a paused container",
        "container not paused",
        "cannot delete container that is not stopped",
    ];
    let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if has(&STATE) {
        Kind::FailedPrecondition
    } else if has(&GONE) && !message.contains("unable to start container process") {
        Kind::NotFound
    } else if has(&TAKEN) && !message.contains("unable to start container process") {
        Kind::AlreadyExists
    } else {
        Kind::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_s_log_is_read() {
        let runc = r#"{"level":"warning","msg":"w","time":"t"}
{"level":"error","msg":"runc create failed: unable to start container process: exec: \"foo\": executable file not found in $PATH","time":"t"}"#;
        assert!(parse(runc).ends_with("executable file not found in $PATH"));
        let youki = r#"{"timestamp":"t","level":"ERROR","fields":{"message":"no such container"}}"#;
        assert_eq!(parse(youki), "no such container");
        assert_eq!(parse("not json\n{\"level\":\"info\",\"msg\":\"x\"}"), "");
    }

    #[test]
    fn kinds() {
        assert_eq!(kind("container does not exist"), Kind::NotFound);
        assert_eq!(
            kind("container with given ID already exists"),
            Kind::AlreadyExists
        );
        assert_eq!(
            kind("cannot exec in a stopped container"),
            Kind::FailedPrecondition
        );
        assert_eq!(
            kind("exec failed: unable to start container process: chdir: does not exist"),
            Kind::Unknown
        );
    }
}
