//! `davit stop`.

use davit_client::v1;

use crate::{
    command::each::each,
    context::{Context, line},
    error::Outcome,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Signal to send to the container
    #[arg(short, long, default_value = "")]
    signal: String,
    /// Seconds to wait before killing the container
    #[arg(
        short,
        long = "timeout",
        visible_alias = "time",
        allow_hyphen_values = true
    )]
    timeout: Option<i32>,
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    each(&args.containers, async |container| {
        let request = v1::StopRequest {
            container: container.clone(),
            signal: args.signal.clone(),
            timeout: args.timeout.unwrap_or_default(),
            timeout_set: args.timeout.is_some(),
        };
        context.client.tasks().stop(request).await?;
        line(container)
    })
    .await
}
