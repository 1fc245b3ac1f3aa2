//! A container's log options and how the shim is told.

use davit_store::options::LogConfig;

use crate::{EngineConfig, Error, Result};

/// Where output goes, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogOptions {
    None,
    JsonFile { max_size: u64, max_file: u32 },
}

impl LogOptions {
    /// Reads the options of a container; `InvalidArgument` for a driver or an
    /// option that does not exist.
    pub(crate) fn of(config: &EngineConfig, log: &LogConfig) -> Result<Self> {
        match log.driver.as_str() {
            "none" => return Ok(Self::None),
            "" | "json-file" => {}
            other => {
                return Err(Error::invalid(format!(
                    "logger: no log driver named '{other}' is registered; use json-file or none"
                )));
            }
        }
        let (mut max_size, mut max_file) = (config.log_max_size, config.log_max_file);
        for (key, value) in &log.options {
            let wrong = || Error::invalid(format!("invalid value for log option {key}: {value}"));
            match key.as_str() {
                "max-size" => max_size = size(value).ok_or_else(wrong)?,
                "max-file" => max_file = value.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?,
                // Accepted by docker's driver; they change nothing here.
                "labels" | "env" | "env-regex" | "labels-regex" | "tag" | "compress" | "mode"
                | "max-buffer-size" => {}
                other => {
                    return Err(Error::invalid(format!(
                        "unknown log opt '{other}' for json-file log driver"
                    )));
                }
            }
        }
        Ok(Self::JsonFile { max_size, max_file })
    }

    /// The stdout of a task that logs to `path`.
    pub(crate) fn uri(self, path: &str) -> String {
        match self {
            Self::None => "davit://".to_owned(),
            Self::JsonFile { max_size, max_file } => {
                format!(
                    "davit://{}?max-size={max_size}&max-file={max_file}",
                    escaped(path)
                )
            }
        }
    }
}

/// A path as a part of a URI.
fn escaped(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02x}"),
        })
        .collect()
}

/// Bytes from "20m", "1g", "100k", "4096"; None for what is not a size. -1 is
/// docker's word for no bound.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    if text == "-1" {
        return Some(u64::MAX >> 1);
    }
    let text = text.strip_suffix('b').unwrap_or(&text);
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' => (text.strip_suffix('k')?, 1 << 10),
        b'm' => (text.strip_suffix('m')?, 1 << 20),
        b'g' => (text.strip_suffix('g')?, 1 << 30),
        _ => (text, 1u64),
    };
    digits
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
        .filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(driver: &str, options: &[(&str, &str)]) -> Result<LogOptions> {
        let log = LogConfig {
            driver: driver.to_owned(),
            options: options
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        LogOptions::of(&EngineConfig::new("/r", "/s", "/shim"), &log)
    }

    #[test]
    fn options_are_read() {
        let json = |max_size, max_file| LogOptions::JsonFile { max_size, max_file };
        assert_eq!(of("", &[]).unwrap(), json(20 << 20, 5));
        assert_eq!(
            of("json-file", &[("max-size", "10k"), ("max-file", "2")]).unwrap(),
            json(10 << 10, 2)
        );
        assert_eq!(of("none", &[]).unwrap(), LogOptions::None);
        for (driver, options) in [
            ("syslog", &[][..]),
            ("", &[("max-size", "big")]),
            ("", &[("max-size", "0")]),
            ("", &[("max-file", "0")]),
            ("", &[("colour", "red")]),
        ] {
            assert!(of(driver, options).is_err(), "{driver} {options:?}");
        }
        assert_eq!(
            json(1024, 3).uri("/l/a.log"),
            "davit:///l/a.log?max-size=1024&max-file=3"
        );
        assert_eq!(
            json(1, 1).uri("/l x/a?"),
            "davit:///l%20x/a%3f?max-size=1&max-file=1"
        );
    }
}
