//! The one table from our errors to gRPC statuses.

use davit_store::{Error, Kind};
use tonic::{Code, Status, metadata::MetadataValue};

/// Trailer that carries the exact kind: gRPC has fewer codes than we have
/// kinds, and docker's statuses tell more of them apart.
const KIND_KEY: &str = "davit-kind";

/// An error as the caller gets it: the sentence with its causes, the code of
/// its kind, and the kind's name as a trailer.
pub(super) fn status(error: Error) -> Status {
    let (code, name) = match error.kind() {
        Kind::NotFound => (Code::NotFound, "not-found"),
        Kind::AlreadyExists => (Code::AlreadyExists, "already-exists"),
        Kind::InvalidArgument => (Code::InvalidArgument, "invalid-argument"),
        Kind::FailedPrecondition => (Code::FailedPrecondition, "failed-precondition"),
        Kind::Conflict => (Code::FailedPrecondition, "conflict"),
        Kind::NotModified => (Code::FailedPrecondition, "not-modified"),
        Kind::Unauthenticated => (Code::Unauthenticated, "unauthenticated"),
        Kind::PermissionDenied => (Code::PermissionDenied, "permission-denied"),
        Kind::Unavailable => (Code::Unavailable, "unavailable"),
        Kind::DeadlineExceeded => (Code::DeadlineExceeded, "deadline-exceeded"),
        Kind::Cancelled => (Code::Cancelled, "cancelled"),
        Kind::OutOfRange => (Code::OutOfRange, "out-of-range"),
        Kind::ResourceExhausted => (Code::ResourceExhausted, "resource-exhausted"),
        Kind::DataLoss => (Code::DataLoss, "data-loss"),
        Kind::Unimplemented => (Code::Unimplemented, "unimplemented"),
        Kind::Internal => (Code::Internal, "internal"),
    };
    let mut status = Status::new(code, error.chain());
    status
        .metadata_mut()
        .insert(KIND_KEY, MetadataValue::from_static(name));
    status
}

/// The error of a stream that a client began wrongly.
pub(super) fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("the first message must carry {what}"))
}
