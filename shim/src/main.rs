//! containerd-shim-davit-v2: keeps one container (or the containers of one pod) and outlives the daemon.
//!
//! | run as | by | does |
//! | --- | --- | --- |
//! | `start` | containerd | spawns `serve`, prints its address ([`bootstrap`]) |
//! | `serve` | `start`, davitd | serves the Task API on descriptor 3 ([`serve`], [`task`]) |
//! | `delete` | both daemons | cleans up after a `serve` that is gone ([`bootstrap`]) |
//! | `-info`, `-v` | containerd | says what it is |

mod args;
mod bootstrap;
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
mod serve;
mod task;

use std::process::ExitCode;

use args::{Action, Args};

fn main() -> ExitCode {
    davit_sys::memory::frugal();
    #[cfg(feature = "failpoints")]
    let _scenario = fail_hard();
    let run = |args: Args| match args.action {
        Action::Start => bootstrap::start(&args),
        Action::Delete => bootstrap::delete(&args),
        Action::Serve => serve::serve(&args),
        Action::Info => bootstrap::info(),
        Action::Version => bootstrap::version(),
    };
    match Args::parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows what a failed `start` printed as it stands.
            eprintln!("containerd-shim-davit-v2: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Failpoints come from the environment variable FAILPOINTS; `panic` at one is as good as kill -9.
#[cfg(feature = "failpoints")]
fn fail_hard() -> fail::FailScenario<'static> {
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    fail::FailScenario::setup()
}
