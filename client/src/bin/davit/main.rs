//! `davit`: the command line. Flags, output and exit codes are docker's where
//! the two overlap. This file parses and dispatches; each subcommand is a file
//! in `command/`.

mod cli;
mod command;
mod context;
mod error;
mod human;
mod options;
mod ports;
mod progress;
mod reference;
mod session;
mod table;
mod template;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, error::Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::new(format!("cannot start: {error}"))),
    };
    let result = runtime.block_on(cli.run());
    // A read of the terminal that is still pending must not delay the end.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure),
    }
}

/// Errors go to stderr; the exit code is the failure's.
fn report(failure: &Failure) -> ExitCode {
    use std::io::Write;
    if !failure.message.is_empty() {
        let _ = writeln!(std::io::stderr(), "davit: {}", failure.message);
    }
    ExitCode::from(failure.code)
}
