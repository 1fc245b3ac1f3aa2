//! containerd-shim-davit-v2: keeps one container (or the containers of one pod) and outlives the daemon.

#[allow(dead_code, reason = "the shim and its runtime are being built on it")]
mod cgroup;
mod error;
mod reaper;
mod runtime;

fn main() {}
