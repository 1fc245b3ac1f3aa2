//! `davit create`, and the creation that `run` shares.

use std::path::PathBuf;

use davit_client::v1;

use crate::{
    command::pull,
    context::{Context, line, warn},
    error::{Failure, Outcome},
    options::{ContainerFlags, PullPolicy},
};

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: ContainerFlags,
    /// Write the container ID to the file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    image: String,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let mut request = args.flags.request(&args.image, &args.command)?;
    if let Some(options) = &mut request.options {
        options.stdin_once = options.open_stdin;
        options.attach_stdin = options.open_stdin;
        options.attach_stdout = true;
        options.attach_stderr = true;
    }
    let id = create(context, &args.flags, request, args.cidfile.as_deref()).await?;
    line(id)?;
    Ok(0)
}

/// Creates a container, pulling its image when the policy says so. Failures
/// have docker's exit code 125.
pub(crate) async fn create(
    context: &Context,
    flags: &ContainerFlags,
    request: v1::CreateContainerRequest,
    cidfile: Option<&std::path::Path>,
) -> Outcome<String> {
    if let Some(path) = cidfile
        && path.exists()
    {
        return Err(Failure::new(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        ))
        .with_code(125));
    }
    let reply = create_or_pull(context, flags, request)
        .await
        .map_err(|failure| failure.with_code(125))?;
    reply.warnings.iter().for_each(|text| warn(text));
    if let Some(path) = cidfile {
        std::fs::write(path, &reply.id)?;
    }
    Ok(reply.id)
}

async fn create_or_pull(
    context: &Context,
    flags: &ContainerFlags,
    request: v1::CreateContainerRequest,
) -> Outcome<v1::CreateContainerResponse> {
    let image = request.image.clone();
    if flags.pull == PullPolicy::Always {
        pull::pull(
            context,
            &image,
            flags.platform.as_deref(),
            flags.quiet,
            true,
        )
        .await?;
    }
    match context.client.containers().create(request.clone()).await {
        Ok(reply) => return Ok(reply.into_inner()),
        Err(status)
            if status.code() == tonic::Code::NotFound
                && status.message().contains("No such image")
                && flags.pull == PullPolicy::Missing => {}
        Err(status) => return Err(status.into()),
    }
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "Unable to find image '{image}' locally");
    pull::pull(
        context,
        &image,
        flags.platform.as_deref(),
        flags.quiet,
        true,
    )
    .await?;
    Ok(context
        .client
        .containers()
        .create(request)
        .await?
        .into_inner())
}
