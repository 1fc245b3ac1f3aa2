//! Everything from the outside: real daemons, a real registry, the real docker
//! CLI. One binary, so that the harness is linked once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod check;
mod cli;
mod containers;
mod crash;
mod daemon;
mod docker;
mod events;
mod full_disk;
mod images;
mod lifecycle;
mod networks;
mod recovery;
mod sdk;
mod streams;
mod tree;
mod volumes;
