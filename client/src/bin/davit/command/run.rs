//! `davit run`: create, attach, start, and give the container's exit code.

use std::path::PathBuf;

use davit_client::v1::{self, wait_response::Message};

use crate::{
    command::{
        attach::{self, End},
        create,
    },
    context::{Context, line},
    error::{Failure, Outcome},
    options::ContainerFlags,
    session,
};

#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: ContainerFlags,
    /// Run container in background and print container ID
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, default_value = attach::DETACH_KEYS)]
    detach_keys: String,
    /// Proxy received signals to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    sig_proxy: bool,
    /// Write the container ID to the file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    image: String,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    if args.flags.tty && args.flags.interactive && !args.detach && !session::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let mut request = args.flags.request(&args.image, &args.command)?;
    if let Some(options) = &mut request.options {
        options.attach_stdin = args.flags.interactive && !args.detach;
        options.attach_stdout = !args.detach;
        options.attach_stderr = !args.detach;
        options.stdin_once = options.open_stdin && options.attach_stdin;
    }
    let id = create::create(context, &args.flags, request, args.cidfile.as_deref()).await?;
    if args.detach {
        start(context, &args.flags, &id).await?;
        line(id)?;
        return Ok(0);
    }
    let attachment = attach::Attachment {
        container: id.clone(),
        stdin: args.flags.interactive,
        stdout: true,
        stderr: true,
        tty: args.flags.tty,
        logs: false,
        detach_keys: args.detach_keys,
        signals: args.sig_proxy && !args.flags.tty,
    };
    let joined = attach::join(context, attachment)
        .await
        .map_err(|failure| failure.with_code(125))?;
    if let Err(failure) = start(context, &args.flags, &id).await {
        joined.leave();
        return Err(failure);
    }
    let end = joined.run().await?;
    if args.flags.rm && matches!(end, End::Exited(_)) {
        removed(context, &id).await?;
    }
    Ok(end.code())
}

/// Waits until the daemon has removed the container, so that its name is free and its disk space back.
async fn removed(context: &Context, id: &str) -> Outcome<()> {
    let request = v1::WaitRequest {
        container: id.to_owned(),
        condition: v1::wait_request::Condition::Removed.into(),
    };
    let mut replies = match context.client.tasks().wait(request).await {
        Ok(replies) => replies.into_inner(),
        Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
        Err(status) => return Err(status.into()),
    };
    while let Some(reply) = replies.message().await? {
        if let Some(Message::Exit(_)) = reply.message {
            break;
        }
    }
    Ok(())
}

/// Starts a container; the exit code of a failure is docker's.
async fn start(context: &Context, flags: &ContainerFlags, id: &str) -> Outcome<()> {
    let request = v1::StartRequest {
        container: id.to_owned(),
    };
    match context.client.tasks().start(request).await {
        Ok(_) => Ok(()),
        Err(status) => {
            let code = start_failure_code(status.message());
            if flags.rm {
                let request = v1::RemoveContainerRequest {
                    container: id.to_owned(),
                    force: true,
                    volumes: true,
                };
                // The daemon removes it by itself, too; both are fine.
                let _ = context.client.containers().remove(request).await;
            }
            Err(Failure::from(status).with_code(code))
        }
    }
}

/// 127 when the program is not there, 126 when it can't be run, else 125.
pub(crate) fn start_failure_code(message: &str) -> u8 {
    let has = |text| message.contains(text);
    if has("executable file not found") || has("no such file or directory") {
        127
    } else if has("permission denied") || has("is a directory") {
        126
    } else {
        125
    }
}
