//! containerd-shim-davit-v2: keeps one container (or the containers of one pod) and outlives the daemon.

mod args;
mod bundle;
#[allow(dead_code, reason = "the shim and its runtime are being built on it")]
mod cgroup;
mod diag;
mod error;
mod events;
mod exits;
mod io;
mod options;
mod reaper;
mod runtime;
mod task;

fn main() {}
