//! Everything from the outside: real daemons, a real registry, the real docker
//! CLI. One binary, so that the harness is linked once.

mod check;
mod cli;
mod containers;
mod daemon;
mod docker;
mod events;
mod images;
mod lifecycle;
mod networks;
mod recovery;
mod sdk;
mod streams;
mod tree;
