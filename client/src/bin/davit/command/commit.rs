//! `davit commit`.

use davit_client::v1;

use crate::{
    context::{Context, line},
    error::Outcome,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short, long, default_value = "")]
    author: String,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long)]
    change: Vec<String>,
    /// Commit message
    #[arg(short, long, default_value = "")]
    message: String,
    /// Pause container during commit
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pause: bool,
    container: String,
    /// Repository and tag of the image
    #[arg(default_value = "")]
    name: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let request = v1::CommitRequest {
        container: args.container,
        name: args.name,
        comment: args.message,
        author: args.author,
        pause: args.pause,
        changes: args.change,
        config: None,
    };
    line(
        context
            .client
            .containers()
            .commit(request)
            .await?
            .into_inner()
            .id,
    )?;
    Ok(0)
}
