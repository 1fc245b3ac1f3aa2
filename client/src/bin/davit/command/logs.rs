//! `davit logs`.

use davit_client::v1::{self, log_entry::Stream};

use crate::{context::Context, error::Outcome, human, session};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")
    #[arg(long, value_parser = human::moment)]
    since: Option<prost_types::Timestamp>,
    /// Show logs before a timestamp or relative (e.g. "42m")
    #[arg(long, value_parser = human::moment)]
    until: Option<prost_types::Timestamp>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    container: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let tail = args.tail.parse::<i64>().ok().filter(|lines| *lines >= 0);
    let request = v1::LogsRequest {
        container: args.container,
        stdout: true,
        stderr: true,
        follow: args.follow,
        since: args.since,
        until: args.until,
        tail: tail.unwrap_or(-1),
        tail_set: tail.is_some(),
        after: 0,
    };
    let mut entries = context.client.tasks().logs(request).await?.into_inner();
    // A long line comes in parts; only its first gets the time.
    let mut inside = false;
    while let Some(entry) = entries.message().await? {
        let mut text = Vec::new();
        if args.timestamps && !inside {
            text.extend(human::rfc3339(entry.time.as_ref()).bytes());
            text.push(b' ');
        }
        inside = entry.partial;
        text.extend(&entry.line);
        match entry.stream() {
            Stream::Stderr => session::stderr(&text)?,
            Stream::Stdout | Stream::Unspecified => session::stdout(&text)?,
        }
    }
    Ok(0)
}
