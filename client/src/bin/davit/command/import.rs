//! `davit import`.

use std::path::PathBuf;

use davit_client::v1;

use crate::{
    command::load::{source, upload},
    context::{Context, line},
    error::{Failure, Outcome},
    options::platform,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long)]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long, default_value = "")]
    message: String,
    /// Set platform (os[/arch[/variant]])
    #[arg(long)]
    platform: Option<String>,
    /// Tarball of the file system, or - for STDIN
    file: PathBuf,
    /// Repository and tag of the image
    #[arg(default_value = "")]
    name: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let options = v1::CreateFromTarOptions {
        name: args.name,
        changes: args.change,
        message: args.message,
        platform: args
            .platform
            .as_deref()
            .map(platform)
            .transpose()
            .map_err(Failure::new)?,
    };
    let first = v1::CreateFromTarRequest {
        options: Some(options),
        ..Default::default()
    };
    let requests = upload(source(Some(&args.file))?, first, |data| {
        v1::CreateFromTarRequest {
            options: None,
            data: data.into(),
        }
    });
    line(
        context
            .client
            .images()
            .create_from_tar(requests)
            .await?
            .into_inner()
            .id,
    )?;
    Ok(0)
}
