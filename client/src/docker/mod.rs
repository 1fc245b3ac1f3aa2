//! davit.v1's objects in the shape of the Docker Engine API's JSON, which is
//! what `inspect` shows: written once, for the gateway and the command line.
//!
//! Field names, types and the choice between null, "" and absent are those of
//! API 1.51.

mod container;
mod image;
mod network;
mod volume;

pub use container::{container, state};
pub use image::image;
pub use network::{endpoints, network, network_settings, port_list};
pub use volume::volume;

/// RFC 3339 with nanoseconds; docker's zero time when there is none.
pub fn time(time: Option<&prost_types::Timestamp>) -> String {
    time.filter(|time| time.seconds != 0 || time.nanos != 0)
        .and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok())
        .map_or_else(|| ZERO_TIME.to_owned(), |time| format!("{time:.9}"))
}

/// How Go prints a time that was never set.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Path and arguments in one line; an argument with a blank in quotes.
pub fn command_line(words: &[String]) -> String {
    let mut words = words.iter();
    let mut line = words.next().cloned().unwrap_or_default();
    for word in words {
        line.push(' ');
        if word.contains(' ') {
            line.push_str(&format!("'{word}'"));
        } else {
            line.push_str(word);
        }
    }
    line
}
