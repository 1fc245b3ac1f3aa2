//! One line of a json-file log.

use jiff::Timestamp;
use serde::Deserialize;

use crate::model::{LogEntry, LogStream};

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    time: Timestamp,
}

/// Reads a line; None when it is not one (a write that was cut short).
pub(super) fn parse(line: &[u8]) -> Option<LogEntry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    Some(LogEntry {
        stream: if line.stream == "stderr" {
            LogStream::Stderr
        } else {
            LogStream::Stdout
        },
        position: position(line.time),
        time: line.time,
        partial: !line.log.ends_with('\n'),
        line: line.log.into_bytes().into(),
    })
}

/// The position of an entry of this time.
pub(super) fn position(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_lines() {
        let entry = parse(
            br#"{"log":"hi \u2713\n","stream":"stderr","time":"2026-11-24T00:00:00.000000001Z"}"#,
        )
        .unwrap();
        assert_eq!(entry.stream, LogStream::Stderr);
        assert_eq!(&entry.line[..], "hi ✓\n".as_bytes());
        assert!(!entry.partial);
        assert_eq!(entry.position % 1_000_000_000, 1);
        assert!(
            parse(br#"{"log":"x","stream":"stdout","time":"2026-11-24T00:00:00Z"}"#)
                .unwrap()
                .partial
        );
        assert!(parse(br#"{"log":"x","str"#).is_none());
        assert!(parse(b"").is_none());
    }
}
