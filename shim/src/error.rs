//! The shim's one error: a kind that becomes a ttrpc code, and a sentence that says what failed on what and why.

use std::fmt;

/// What a caller can do about an error. Each kind is one ttrpc status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No such container, process or file.
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// The request can never succeed as it stands.
    InvalidArgument,
    /// The object is in a state that does not allow the request.
    FailedPrecondition,
    /// The runtime, or this build, cannot do it.
    Unimplemented,
    /// A deadline passed.
    DeadlineExceeded,
    /// Anything else: the system or the runtime failed.
    Unknown,
}

/// An error with its kind. The message is a whole sentence in the wording that callers parse (runc's, where the
/// runtime failed); it already holds the causes.
#[allow(
    clippy::error_impl_error,
    reason = "a program's own error, of which there is one"
)]
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    /// What sort of failure it is.
    pub(crate) kind: Kind,
    /// What failed, on what, why.
    pub(crate) message: String,
}

/// A result with the shim's error.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given kind.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error {
            kind,
            message: message.into(),
        }
    }

    /// `what: cause`, of kind [`Kind::Unknown`].
    pub(crate) fn because(what: impl fmt::Display, cause: impl fmt::Display) -> Error {
        Error::new(Kind::Unknown, format!("{what}: {cause}"))
    }

    /// The same kind with `what: ` in front of the message.
    #[must_use]
    pub(crate) fn within(mut self, what: impl fmt::Display) -> Error {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> ttrpc::Error {
        use ttrpc::Code;
        let code = match error.kind {
            Kind::NotFound => Code::NOT_FOUND,
            Kind::AlreadyExists => Code::ALREADY_EXISTS,
            Kind::InvalidArgument => Code::INVALID_ARGUMENT,
            Kind::FailedPrecondition => Code::FAILED_PRECONDITION,
            Kind::Unimplemented => Code::UNIMPLEMENTED,
            Kind::DeadlineExceeded => Code::DEADLINE_EXCEEDED,
            Kind::Unknown => Code::UNKNOWN,
        };
        ttrpc::Error::RpcStatus(ttrpc::get_status(code, error.message))
    }
}
