//! The one error of everything inside: a kind that doors map to their codes,
//! a sentence for people, and the cause.

use std::{error::Error as StdError, fmt};

/// What sort of failure it is. Doors map kinds to gRPC codes and HTTP
/// statuses, each in one table; code branches on kinds and never on text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The named object does not exist.
    NotFound,
    /// An object of that name exists already.
    AlreadyExists,
    /// The request can never be right, whatever the state.
    InvalidArgument,
    /// The request is right, but not in the present state.
    FailedPrecondition,
    /// Another operation on the same object is in the way.
    Conflict,
    /// The object is already as asked for; nothing changed.
    NotModified,
    /// Credentials are missing or wrong.
    Unauthenticated,
    /// The credentials do not allow it.
    PermissionDenied,
    /// A part that is needed can't be reached now; trying again may help.
    Unavailable,
    /// A bounded wait is over.
    DeadlineExceeded,
    /// The caller went away or cancelled.
    Cancelled,
    /// An offset or range lies outside of what exists.
    OutOfRange,
    /// A bound was hit: disk, memory, sizes that we refuse to exceed.
    ResourceExhausted,
    /// Stored or received data is not what its digest or form says.
    DataLoss,
    /// Not offered by this daemon or host.
    Unimplemented,
    /// A fault of ours or of the system below us.
    Internal,
}

/// The result of everything inside.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its [`Kind`]. `Display` gives the sentence only; the causes
/// are in `source()`, and [`Error::chain`] prints all of them.
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind`; `message` names what failed, on what, and
    /// what to do about it.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts `context` before the message and keeps kind and cause.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// An I/O failure while doing `what`; the kind follows the system's error.
    pub fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        use std::io::ErrorKind as E;
        let source = source.into();
        let kind = match source.kind() {
            E::NotFound => Kind::NotFound,
            E::PermissionDenied => Kind::PermissionDenied,
            E::StorageFull | E::QuotaExceeded => Kind::ResourceExhausted,
            E::TimedOut => Kind::DeadlineExceeded,
            _ => Kind::Internal,
        };
        Self::new(kind, what).with_source(source)
    }

    /// An error of kind [`Kind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// An error of kind [`Kind::AlreadyExists`].
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(Kind::AlreadyExists, message)
    }

    /// An error of kind [`Kind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// An error of kind [`Kind::FailedPrecondition`].
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, message)
    }

    /// An error of kind [`Kind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// The kind that callers branch on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence and all causes, joined by ": ".
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.kind, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
