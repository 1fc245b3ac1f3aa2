//! `davit rmi`.

use davit_client::v1;

use crate::{
    command::each::each,
    context::{Context, line},
    error::Outcome,
    reference::familiar,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    #[arg(required = true)]
    images: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    each(&args.images, async |image| {
        let request = v1::RemoveImageRequest {
            image,
            force: args.force,
        };
        let reply = match context.client.images().remove(request).await {
            Ok(reply) => reply.into_inner(),
            Err(status) if args.force && status.code() == tonic::Code::NotFound => {
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "davit: {}", status.message());
                return Ok(());
            }
            Err(status) => return Err(status.into()),
        };
        for name in &reply.untagged {
            line(format!("Untagged: {}", familiar(name)))?;
        }
        for digest in &reply.deleted {
            line(format!("Deleted: {digest}"))?;
        }
        Ok(())
    })
    .await
}
