//! `davitd`: parses the command line, loads the configuration, and runs the
//! daemon or one of its offline commands. Exit codes are decided here.

mod app;
mod check;
mod config;
mod doors;
mod log;
mod memory;
mod socket;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::config::{Config, Overrides};

/// The container engine's daemon.
#[derive(Debug, Parser)]
#[command(name = "davitd", version)]
struct Args {
    /// Configuration file (TOML); a missing default file is no error
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where images, containers and the store live
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where running state lives; lost at a reboot
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Unix socket of the gRPC API
    #[arg(long, global = true, value_name = "SOCKET")]
    address: Option<PathBuf>,
    /// Unix socket of the Docker API; "none" switches it off
    #[arg(long, global = true, value_name = "SOCKET")]
    docker_address: Option<PathBuf>,
    /// error, warn, info, debug, trace, or a filter such as "info,davit_engine=debug"
    #[arg(long, global = true, value_name = "L")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Verify store, content, snapshots, bundles and mounts while no daemon runs
    Check {
        /// Mend what can be mended
        #[arg(long)]
        repair: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the default configuration, with comments
    Default,
    /// Print the configuration in force
    Dump,
}

/// For the crash tests: failpoints from the environment, and a panic at one of
/// them ends the process as `kill -9` would, without a last word.
#[cfg(feature = "failpoints")]
fn die_at_failpoints() -> fail::FailScenario<'static> {
    if std::env::var_os("FAILPOINTS").is_some() {
        std::panic::set_hook(Box::new(|_| {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }));
    }
    fail::FailScenario::setup()
}

fn main() -> ExitCode {
    davit_sys::memory::moderate();
    #[cfg(feature = "failpoints")]
    let _scenario = die_at_failpoints();
    let args = Args::parse();
    if let Some(Command::Config {
        command: ConfigCommand::Default,
    }) = args.command
    {
        return print(config::DEFAULT);
    }
    let overrides = Overrides {
        root: args.root,
        state: args.state,
        address: args.address,
        docker_address: args.docker_address,
        log_level: args.log_level,
    };
    let config = match Config::load(args.config.as_deref(), overrides) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    let result = match args.command {
        Some(Command::Config { .. }) => return print(&config.dump()),
        Some(Command::Check { repair }) => check::run(&config, repair),
        None => app::run(config),
    };
    match result {
        Ok(code) => code,
        Err(error) => fail(&error.chain()),
    }
}

/// Prints `text` to stdout; a closed pipe is the reader's choice, not a failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Tells the user why the daemon does not go on.
fn fail(message: &str) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "davitd: {message}");
    ExitCode::FAILURE
}
