//! `davit version`: the client's, and the daemon's when it answers.

use std::path::PathBuf;

use davit_client::v1;
use serde_json::json;

use crate::{
    command::ps::print_formatted,
    context::{Context, line},
    error::Outcome,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Format output using a template or "json"
    #[arg(short, long)]
    format: Option<String>,
}

pub(crate) async fn run(address: &PathBuf, namespace: &str, args: Args) -> Outcome {
    let client = env!("CARGO_PKG_VERSION");
    let server = match Context::connect(address, namespace).await {
        Ok(context) => match context.client.system().version(v1::VersionRequest {}).await {
            Ok(reply) => Ok(reply.into_inner()),
            Err(status) => Err(status.into()),
        },
        Err(failure) => Err(failure),
    };
    if let Some(format) = &args.format {
        let server = server.as_ref().map_or(serde_json::Value::Null, |server| {
            json!({
                "Version": server.version, "GitCommit": server.git_commit, "Os": server.os,
                "Arch": server.arch, "KernelVersion": server.kernel_version,
                "RustVersion": server.rust_version,
            })
        });
        let value = json!({"Client": {"Version": client}, "Server": server});
        print_formatted(format, std::iter::once(value))?;
        return Ok(0);
    }
    line(format!("Client:\n Version:  {client}"))?;
    let server = server?;
    line(format!(
        "\nServer:\n Version:  {}\n OS/Arch:  {}/{}",
        server.version, server.os, server.arch
    ))?;
    line(format!(" Kernel:   {}", server.kernel_version))?;
    for component in server.components {
        line(format!(
            " {}:\n  Version: {}",
            component.name, component.version
        ))?;
    }
    Ok(0)
}
