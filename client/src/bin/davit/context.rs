//! What every command has: the connection and what it knows of the terminal.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
};

use davit_client::Client;

use crate::error::{Failure, Outcome};

/// A connection, and where output goes.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    /// Whether stdout is a terminal: progress bars and colour are for it only.
    pub(crate) terminal: bool,
}

impl Context {
    /// Connects to the daemon.
    pub(crate) async fn connect(address: &PathBuf, namespace: &str) -> Outcome<Self> {
        let client = Client::connect(address).await?.with_namespace(namespace)?;
        Ok(Self {
            client,
            terminal: std::io::stdout().is_terminal(),
        })
    }
}

/// Prints a line to stdout. A reader that is gone ends the program quietly, as
/// a signal would.
pub(crate) fn line(text: impl AsRef<str>) -> Outcome<()> {
    write_all(format!("{}\n", text.as_ref()).as_bytes())
}

/// Writes bytes to stdout and flushes them.
pub(crate) fn write_all(bytes: &[u8]) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| {
            if error.kind() == std::io::ErrorKind::BrokenPipe {
                Failure::silent(141)
            } else {
                Failure::new(format!("cannot write to stdout: {error}"))
            }
        })
}

/// Prints a warning to stderr.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "WARNING: {text}");
}
