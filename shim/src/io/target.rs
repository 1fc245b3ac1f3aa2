//! What the stdio strings of a request mean: containerd's FIFOs, `file://` and `binary://`, and davitd's `davit://`.

use std::path::PathBuf;

use super::json_log::LogOptions;
use crate::error::{Error, Kind, Result};

/// A request's stdio.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StdioRequest {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Nowhere.
    Null,
    /// To attached clients, and to a log if there is one.
    Davit(Option<LogOptions>),
    /// To FIFOs (or files) that containerd's client made.
    Fifos {
        stdout: Option<PathBuf>,
        stderr: Option<PathBuf>,
    },
    /// Appended to one file.
    File(PathBuf),
    /// To a logging program.
    Binary(Binary),
}

/// A logging program: `binary:///path?key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    /// `binary-v2`: end of file on the ready pipe is a failure, only a byte is success.
    pub(crate) must_say_ready: bool,
}

/// Where stdin comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nowhere: it reads as empty.
    Null,
    /// From attached clients.
    Davit,
    /// From a FIFO.
    Fifo(PathBuf),
}

impl StdioRequest {
    /// What the strings mean.
    ///
    /// # Errors
    /// Invalid argument: an unknown scheme, a relative path, an unknown or bad parameter.
    pub(crate) fn parse(&self) -> Result<(Source, Output)> {
        let output = self.output()?;
        let source = match (self.stdin.as_str(), &output) {
            ("", _) => Source::Null,
            (stdin, Output::Davit(_)) if stdin.starts_with("davit://") => Source::Davit,
            (stdin, _) if !stdin.contains("://") => Source::Fifo(stdin.into()),
            (stdin, _) => match stdin.strip_prefix("fifo://") {
                Some(path) => Source::Fifo(path.into()),
                None => return Err(invalid(format!("stdin {stdin:?}: expected a FIFO's path"))),
            },
        };
        Ok((source, output))
    }

    fn output(&self) -> Result<Output> {
        let first = if self.stdout.is_empty() {
            &self.stderr
        } else {
            &self.stdout
        };
        if first.is_empty() {
            return Ok(if self.stdin.starts_with("davit://") {
                Output::Davit(None)
            } else {
                Output::Null
            });
        }
        let Some((scheme, rest)) = first.split_once("://") else {
            return Ok(self.fifos());
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = decode(path)?;
        match scheme {
            "fifo" => Ok(self.fifos()),
            "file" => Ok(Output::File(absolute(path)?)),
            "davit" if path.is_empty() => Ok(Output::Davit(None)),
            "davit" => {
                log_options(absolute(path)?, query).map(|options| Output::Davit(Some(options)))
            }
            "binary" | "binary-v2" => Ok(Output::Binary(Binary {
                path: absolute(path)?,
                args: parameters(query)?
                    .into_iter()
                    .flat_map(|(key, value)| [key, value])
                    .collect(),
                must_say_ready: scheme == "binary-v2",
            })),
            other => Err(invalid(format!(
                "stdio {first:?}: unknown scheme {other:?}"
            ))),
        }
    }

    fn fifos(&self) -> Output {
        let path = |text: &str| match text.strip_prefix("fifo://").unwrap_or(text) {
            "" => None,
            path => Some(PathBuf::from(path)),
        };
        Output::Fifos {
            stdout: path(&self.stdout),
            stderr: path(&self.stderr),
        }
    }
}

fn log_options(path: PathBuf, query: &str) -> Result<LogOptions> {
    let mut options = LogOptions {
        path,
        max_size: 20 * 1024 * 1024,
        max_file: 5,
    };
    for (key, value) in parameters(query)? {
        let bad = |_| {
            invalid(format!(
                "log {}: {key}={value} is no number",
                options.path.display()
            ))
        };
        match key.as_str() {
            "max-size" => options.max_size = value.parse().map_err(bad)?,
            "max-file" => options.max_file = value.parse::<u32>().map_err(bad)?.clamp(1, 1000),
            _ => {
                return Err(invalid(format!(
                    "log {}: unknown parameter {key:?}",
                    options.path.display()
                )));
            }
        }
    }
    Ok(options)
}

fn parameters(query: &str) -> Result<Vec<(String, String)>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((
                decode(&key.replace('+', " "))?,
                decode(&value.replace('+', " "))?,
            ))
        })
        .collect()
}

fn absolute(path: String) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(invalid(format!("stdio path {path:?} is not absolute")))
    }
}

/// Undoes percent encoding.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| (byte as char).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?')),
            _ => {
                return Err(invalid(format!(
                    "stdio {text:?}: % must be followed by two hexadecimal digits"
                )));
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid(format!("stdio {text:?} is not UTF-8")))
}

fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(stdin: &str, stdout: &str, stderr: &str) -> Result<(Source, Output)> {
        StdioRequest {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: stderr.into(),
            terminal: false,
        }
        .parse()
    }

    #[test]
    fn every_form() {
        assert_eq!(parse("", "", "").unwrap(), (Source::Null, Output::Null));
        let log = LogOptions {
            path: "/l/x y.log".into(),
            max_size: 7,
            max_file: 2,
        };
        assert_eq!(
            parse("davit://", "davit:///l/x%20y.log?max-size=7&max-file=2", "").unwrap(),
            (Source::Davit, Output::Davit(Some(log)))
        );
        assert_eq!(parse("", "davit://", "").unwrap().1, Output::Davit(None));
        assert_eq!(
            parse("/f/in", "/f/out", "").unwrap(),
            (
                Source::Fifo("/f/in".into()),
                Output::Fifos {
                    stdout: Some("/f/out".into()),
                    stderr: None
                }
            )
        );
        assert_eq!(
            parse("", "file:///x", "file:///x").unwrap().1,
            Output::File("/x".into())
        );
        let binary = Binary {
            path: "/bin/l".into(),
            args: vec!["k".into(), "v w".into()],
            must_say_ready: false,
        };
        assert_eq!(
            parse("", "binary:///bin/l?k=v+w", "").unwrap().1,
            Output::Binary(binary)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for stdout in [
            "ftp://x",
            "file://x",
            "davit:///l?max-size=x",
            "davit:///l?what=1",
            "davit:///%zz",
        ] {
            assert!(parse("", stdout, "").is_err(), "{stdout}");
        }
    }
}
