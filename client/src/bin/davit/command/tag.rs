//! `davit tag`.

use davit_client::v1;

use crate::{context::Context, error::Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    source: String,
    target: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let request = v1::TagImageRequest {
        source: args.source,
        target: args.target,
    };
    context.client.images().tag(request).await?;
    Ok(0)
}
