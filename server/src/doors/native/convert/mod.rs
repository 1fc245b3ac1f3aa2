//! davit.v1's messages to the engine's types and back, each conversion once.
//! `from_…` reads what a caller sent, `to_…` makes what the caller gets.

mod container;
mod image;
mod network;
mod options;
mod task;
mod volume;

pub(super) use container::*;
pub(super) use image::*;
pub(super) use network::*;
pub(super) use options::*;
pub(super) use task::*;
pub(super) use volume::*;

use jiff::Timestamp;
use tonic::Status;

/// A time as protobuf has it.
pub(super) fn to_time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

/// A caller's time; `INVALID_ARGUMENT` outside of what calendars have.
pub(super) fn from_time(time: prost_types::Timestamp) -> Result<Timestamp, Status> {
    Timestamp::new(time.seconds, time.nanos).map_err(|_| {
        Status::invalid_argument(format!("{} s after 1970 is no valid time", time.seconds))
    })
}

/// A count that fits: more than `i64` has nobody.
pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
