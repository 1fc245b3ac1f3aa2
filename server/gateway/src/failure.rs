//! The one error of the handlers, and the one table from davit.v1's errors to
//! HTTP statuses.

use http::StatusCode;
use tonic::{Code, Status};

/// Trailer of a davit.v1 error that carries the kind by name, which is finer
/// than gRPC's codes.
pub(crate) const KIND_KEY: &str = "davit-kind";

/// Why a request was not served: a status and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    status: StatusCode,
    message: String,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(crate) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn page_not_found() -> Self {
        Self::not_found("page not found")
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// Says a 404 in other words; clients such as docker-py look into them.
    #[must_use]
    pub(crate) fn when_not_found(self, message: impl FnOnce() -> String) -> Self {
        if self.is_not_found() {
            Self::not_found(message())
        } else {
            self
        }
    }

    /// Puts dockerd's words for the operation before the reason.
    #[must_use]
    pub(crate) fn context(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let kind = status
            .metadata()
            .get(KIND_KEY)
            .and_then(|kind| kind.to_str().ok());
        let code = kind
            .and_then(status_of_kind)
            .unwrap_or_else(|| status_of_code(status.code()));
        let message = match status.message() {
            "" => code
                .canonical_reason()
                .unwrap_or("unknown error")
                .to_owned(),
            message => message.to_owned(),
        };
        if code.is_server_error() && kind.is_none() {
            tracing::warn!(code = ?status.code(), message, "davitd call failed");
        }
        Self::new(code, message)
    }
}

fn status_of_kind(kind: &str) -> Option<StatusCode> {
    Some(match kind {
        "not-found" => StatusCode::NOT_FOUND,
        "already-exists" | "failed-precondition" | "conflict" => StatusCode::CONFLICT,
        "invalid-argument" | "out-of-range" => StatusCode::BAD_REQUEST,
        "not-modified" => StatusCode::NOT_MODIFIED,
        "unauthenticated" => StatusCode::UNAUTHORIZED,
        "permission-denied" => StatusCode::FORBIDDEN,
        "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "deadline-exceeded" => StatusCode::GATEWAY_TIMEOUT,
        "unimplemented" => StatusCode::NOT_IMPLEMENTED,
        "cancelled" | "resource-exhausted" | "data-loss" | "internal" => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => return None,
    })
}

fn status_of_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Cancelled
        | Code::Unknown
        | Code::ResourceExhausted
        | Code::Internal
        | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_decides_before_the_code() {
        let mut status = Status::failed_precondition("is running already");
        assert_eq!(Failure::from(status.clone()).status(), StatusCode::CONFLICT);
        status
            .metadata_mut()
            .insert(KIND_KEY, "not-modified".parse().unwrap());
        assert_eq!(
            Failure::from(status.clone()).status(),
            StatusCode::NOT_MODIFIED
        );
        status
            .metadata_mut()
            .insert(KIND_KEY, "of-a-newer-daemon".parse().unwrap());
        assert_eq!(Failure::from(status).status(), StatusCode::CONFLICT);
    }

    #[test]
    fn a_failure_always_says_something() {
        assert_eq!(
            Failure::from(Status::unavailable("")).message(),
            "Service Unavailable"
        );
    }
}
