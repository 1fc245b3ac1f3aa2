//! `davit pull`, and the pull that `run` and `create` share.

use davit_client::v1::{self, pull_progress::Stage};

use crate::{
    context::{Context, line},
    error::{Failure, Outcome},
    options::platform,
    progress::Progress,
    reference::familiar,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Download all tagged images in the repository
    #[arg(short = 'A', long)]
    all_tags: bool,
    /// Set platform (os[/arch[/variant]])
    #[arg(long)]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// User name and password for the registry: user:password
    #[arg(short, long, value_name = "USER:PASSWORD")]
    user: Option<String>,
    image: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let request = v1::PullRequest {
        reference: args.image,
        platform: args
            .platform
            .as_deref()
            .map(platform)
            .transpose()
            .map_err(Failure::new)?,
        auth: args.user.as_deref().map(auth),
        all_tags: args.all_tags,
    };
    follow(context, request, args.quiet, false).await?;
    Ok(0)
}

/// "user:password" as credentials.
pub(crate) fn auth(text: &str) -> v1::RegistryAuth {
    let (username, password) = text.split_once(':').unwrap_or((text, ""));
    v1::RegistryAuth {
        username: username.into(),
        password: password.into(),
        ..Default::default()
    }
}

/// Pulls `image` on the way to something else: all output goes to stderr when
/// `aside`, since stdout belongs to the container.
pub(crate) async fn pull(
    context: &Context,
    image: &str,
    on: Option<&str>,
    quiet: bool,
    aside: bool,
) -> Outcome<()> {
    let request = v1::PullRequest {
        reference: image.into(),
        platform: on.map(platform).transpose().map_err(Failure::new)?,
        auth: None,
        all_tags: false,
    };
    follow(context, request, quiet, aside).await
}

async fn follow(
    context: &Context,
    request: v1::PullRequest,
    quiet: bool,
    aside: bool,
) -> Outcome<()> {
    let say = |text: String| {
        if aside {
            eprint_line(&text);
            Ok(())
        } else {
            line(text)
        }
    };
    let mut stream = context.client.images().pull(request).await?.into_inner();
    let mut progress = Progress::new(context.terminal, quiet || (aside && !context.terminal));
    let mut done = Vec::new();
    while let Some(message) = stream.message().await? {
        progress.pull(&message);
        if message.stage() == Stage::Done {
            done.push(message);
        }
    }
    progress.finish();
    if done.is_empty() {
        return Err(Failure::new("the daemon ended the pull without a result"));
    }
    for message in done {
        let digest = message
            .image
            .and_then(|image| image.target)
            .unwrap_or_default()
            .digest;
        let name = familiar(&message.reference);
        if quiet {
            if !aside {
                line(&message.reference)?;
            }
            continue;
        }
        say(format!("Digest: {digest}"))?;
        say(if message.up_to_date {
            format!("Status: Image is up to date for {name}")
        } else {
            format!("Status: Downloaded newer image for {name}")
        })?;
        if !aside {
            line(&message.reference)?;
        }
    }
    Ok(())
}

fn eprint_line(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
