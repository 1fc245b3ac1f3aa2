//! What goes wrong in the command line: a sentence and an exit code.

use std::error::Error as _;

use davit_client::ConnectError;
use tonic::Status;

/// The result of a command: its exit code, or why it failed.
pub(crate) type Outcome<T = u8> = Result<T, Failure>;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Printed to stderr; empty prints nothing.
    pub(crate) message: String,
    /// Exit code of the program.
    pub(crate) code: u8,
    /// What the daemon's status said, for callers that branch on it.
    pub(crate) status: Option<tonic::Code>,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
            status: None,
        }
    }

    /// An exit code without words: they were printed already.
    pub(crate) fn silent(code: u8) -> Self {
        Self {
            message: String::new(),
            code,
            status: None,
        }
    }

    /// The same failure with another exit code.
    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = match status.code() {
            // Made here, not by the daemon, which also says Unavailable: of a registry, for example.
            tonic::Code::Unavailable if status.source().is_some() => {
                format!("the daemon can't be reached: {}", status.message())
            }
            _ => status.message().to_owned(),
        };
        Self {
            message,
            code: 1,
            status: Some(status.code()),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}
