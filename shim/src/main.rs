//! containerd-shim-davit-v2: keeps one container (or the containers of one pod) and outlives the daemon.

mod error;
mod reaper;
mod runtime;

fn main() {}
