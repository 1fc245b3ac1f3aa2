//! `davit export`, and the writing of a tar stream that `save` shares.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

use davit_client::v1;
use tonic::Streaming;

use crate::{
    context::Context,
    error::{Failure, Outcome},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write to a file, instead of STDOUT
    #[arg(short, long)]
    output: Option<PathBuf>,
    container: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    refuse_terminal(args.output.as_deref())?;
    let request = v1::ExportContainerRequest {
        container: args.container,
    };
    let stream = context
        .client
        .containers()
        .export(request)
        .await?
        .into_inner();
    write(stream, args.output.as_deref()).await?;
    Ok(0)
}

/// A tar stream on a terminal helps nobody.
pub(crate) fn refuse_terminal(output: Option<&Path>) -> Outcome<()> {
    if output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    Ok(())
}

/// Writes the stream to `output`, by way of a temporary file beside it, so that
/// a failure leaves no half file; or to stdout.
pub(crate) async fn write(
    mut stream: Streaming<v1::TarChunk>,
    output: Option<&Path>,
) -> Outcome<()> {
    let Some(path) = output else {
        while let Some(chunk) = stream.message().await? {
            crate::context::write_all(&chunk.data)?;
        }
        return Ok(());
    };
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let told =
        |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let mut file = std::fs::File::create(&partial).map_err(told)?;
    let result = async {
        while let Some(chunk) = stream.message().await? {
            file.write_all(&chunk.data).map_err(told)?;
        }
        std::fs::rename(&partial, path).map_err(told)
    }
    .await;
    if result.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    result
}
