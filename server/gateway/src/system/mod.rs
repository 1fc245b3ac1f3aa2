//! The daemon itself: ping, version, info, events, disk usage, login.

pub(crate) mod auth;
pub(crate) mod df;
pub(crate) mod events;
pub(crate) mod info;
pub(crate) mod ping;
pub(crate) mod version;
