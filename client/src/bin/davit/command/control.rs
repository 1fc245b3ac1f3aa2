//! `davit kill`, `pause` and `unpause`: a word to running containers.

use davit_client::v1;

use crate::{
    command::each::each,
    context::{Context, line},
    error::Outcome,
};

#[derive(Debug, clap::Args)]
pub(crate) struct KillArgs {
    /// Signal to send to the container
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    #[arg(required = true)]
    containers: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(crate) async fn kill(context: &Context, args: KillArgs) -> Outcome {
    each(&args.containers, async |container| {
        let request = v1::KillRequest {
            container: container.clone(),
            signal: args.signal.clone(),
            ..Default::default()
        };
        context.client.tasks().kill(request).await?;
        line(container)
    })
    .await
}

pub(crate) async fn pause(context: &Context, args: Args) -> Outcome {
    each(&args.containers, async |container| {
        context
            .client
            .tasks()
            .pause(v1::PauseRequest {
                container: container.clone(),
            })
            .await?;
        line(container)
    })
    .await
}

pub(crate) async fn unpause(context: &Context, args: Args) -> Outcome {
    each(&args.containers, async |container| {
        context
            .client
            .tasks()
            .resume(v1::ResumeRequest {
                container: container.clone(),
            })
            .await?;
        line(container)
    })
    .await
}
