//! `davit wait`.

use davit_client::v1::{self, wait_response::Message};

use crate::{
    command::each::each,
    context::{Context, line},
    error::{Failure, Outcome},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to wait for
    #[arg(long, value_enum, default_value = "not-running")]
    condition: Condition,
    #[arg(required = true)]
    containers: Vec<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let condition = match args.condition {
        Condition::NotRunning => v1::wait_request::Condition::NotRunning,
        Condition::NextExit => v1::wait_request::Condition::NextExit,
        Condition::Removed => v1::wait_request::Condition::Removed,
    };
    each(&args.containers, async |container| {
        let request = v1::WaitRequest {
            container,
            condition: condition.into(),
        };
        let mut replies = context.client.tasks().wait(request).await?.into_inner();
        while let Some(reply) = replies.message().await? {
            if let Some(Message::Exit(exit)) = reply.message {
                return line(exit.exit_code.to_string());
            }
        }
        Err(Failure::new("the connection to the daemon was lost"))
    })
    .await
}
