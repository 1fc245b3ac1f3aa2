//! `davit rm`.

use davit_client::v1;

use crate::{
    command::each::each,
    context::{Context, line},
    error::Outcome,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    volumes: bool,
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    each(&args.containers, async |container| {
        let request = v1::RemoveContainerRequest {
            container: container.clone(),
            force: args.force,
            volumes: args.volumes,
        };
        match context.client.containers().remove(request).await {
            Ok(_) => line(container),
            // As docker: gone already is what -f asked for.
            Err(status) if args.force && status.code() == tonic::Code::NotFound => {
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "davit: {}", status.message());
                Ok(())
            }
            Err(status) => Err(status.into()),
        }
    })
    .await
}
