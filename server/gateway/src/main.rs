//! `davit-gateway`: the Docker door as a program of its own, for a davitd that
//! runs elsewhere on this machine.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Serves the Docker Engine API for a davitd.
#[derive(Debug, Parser)]
#[command(name = "davit-gateway", version)]
struct Args {
    /// davitd's socket.
    #[arg(long, env = "DAVIT_ADDRESS", default_value = davit_client::DEFAULT_ADDRESS)]
    address: PathBuf,
    /// Socket to listen on.
    #[arg(long, default_value = davit_gateway::DEFAULT_ADDRESS)]
    docker_address: PathBuf,
    /// Namespace that docker's containers and images live in.
    #[arg(long, default_value = davit_proto::DEFAULT_NAMESPACE)]
    namespace: String,
    /// Group, by name or number, that may connect.
    #[arg(long)]
    group: Option<String>,
    /// error, warn, info, debug or trace.
    #[arg(long, default_value = "info")]
    log_level: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&args.log_level))
        .with_writer(std::io::stderr)
        .init();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> std::io::Result<()> {
    let gid = args.group.as_deref().map(group_id).transpose()?;
    let listener = davit_gateway::bind(&args.docker_address, gid)?;
    tracing::info!(
        listening = %args.docker_address.display(),
        davitd = %args.address.display(),
        "serving the Docker Engine API"
    );
    let config = davit_gateway::Config {
        backend: args.address,
        namespace: args.namespace,
    };
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let shutdown = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    davit_gateway::serve(listener, config, shutdown).await?;
    std::fs::remove_file(&args.docker_address)
}

fn group_id(group: &str) -> std::io::Result<u32> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    match nix::unistd::Group::from_name(group)? {
        Some(found) => Ok(found.gid.as_raw()),
        None => Err(std::io::Error::new(
            std::io::ErrorKind::NotFound,
            format!("there is no group {group:?}"),
        )),
    }
}
