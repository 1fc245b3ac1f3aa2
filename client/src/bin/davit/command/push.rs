//! `davit push`: one or more names in one go.

use davit_client::v1::{self, push_progress::Stage};

use crate::{
    command::pull::auth,
    context::{Context, line},
    error::{Failure, Outcome},
    progress::Progress,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Push all tags of an image to the repository
    #[arg(short = 'A', long)]
    all_tags: bool,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// User name and password for the registry: user:password
    #[arg(short, long, value_name = "USER:PASSWORD")]
    user: Option<String>,
    #[arg(required = true)]
    names: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let mut names = args.names.into_iter();
    let reference = names.next().unwrap_or_default();
    let request = v1::PushRequest {
        reference,
        auth: args.user.as_deref().map(auth),
        more_references: names.collect(),
        all_tags: args.all_tags,
    };
    let mut stream = context.client.images().push(request).await?.into_inner();
    let mut progress = Progress::new(context.terminal, args.quiet);
    let mut done = Vec::new();
    while let Some(message) = stream.message().await? {
        progress.push(&message);
        if message.stage() == Stage::Done {
            done.push(message);
        }
    }
    progress.finish();
    if done.is_empty() {
        return Err(Failure::new("the daemon ended the push without a result"));
    }
    for message in done {
        if args.quiet {
            line(&message.reference)?;
        } else {
            line(format!(
                "{}: digest: {} size: {}",
                message.reference, message.digest, message.total
            ))?;
        }
    }
    Ok(0)
}
