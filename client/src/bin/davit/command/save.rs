//! `davit save`.

use std::path::PathBuf;

use davit_client::v1;

use crate::{
    command::export::{refuse_terminal, write},
    context::Context,
    error::{Failure, Outcome},
    options::platform,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write to a file, instead of STDOUT
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Save only the given platform
    #[arg(long)]
    platform: Option<String>,
    #[arg(required = true)]
    images: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    refuse_terminal(args.output.as_deref())?;
    let request = v1::ExportRequest {
        images: args.images,
        platform: args
            .platform
            .as_deref()
            .map(platform)
            .transpose()
            .map_err(Failure::new)?,
    };
    let stream = context.client.images().export(request).await?.into_inner();
    write(stream, args.output.as_deref()).await?;
    Ok(0)
}
