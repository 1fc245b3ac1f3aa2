//! `davit rename`.

use davit_client::v1;

use crate::{context::Context, error::Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    container: String,
    new_name: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let request = v1::RenameContainerRequest {
        container: args.container,
        new_name: args.new_name,
    };
    context.client.containers().rename(request).await?;
    Ok(0)
}
