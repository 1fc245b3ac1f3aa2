//! Health checks: a pure part that turns results into a status, and a task a
//! container that runs the probes.

mod probe;
mod status;

pub(crate) use probe::watch_health;
pub(crate) use status::{Plan, Tracker};
