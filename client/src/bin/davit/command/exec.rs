//! `davit exec`.

use davit_client::v1::{
    self, ExecRequest, exec_request::Message as Request, exec_response::Message as Response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    command::{attach::DETACH_KEYS, run::start_failure_code},
    context::Context,
    error::{Failure, Outcome},
    session::{self, Input},
    terminal::{self, RawMode},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching
    #[arg(long, default_value = DETACH_KEYS)]
    detach_keys: String,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long, default_value = "")]
    user: String,
    /// Working directory inside the container
    #[arg(short, long, default_value = "")]
    workdir: String,
    container: String,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    if args.tty && args.interactive && !args.detach && !session::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let options = v1::ExecOptions {
        args: args.command,
        env: args.env,
        working_dir: args.workdir,
        user: args.user,
        tty: args.tty,
        attach_stdin: args.interactive && !args.detach,
        attach_stdout: !args.detach,
        attach_stderr: !args.detach,
        privileged: args.privileged,
        detach_keys: if args.tty {
            args.detach_keys
        } else {
            String::new()
        },
        terminal_size: if args.tty { terminal::size() } else { None },
    };
    let result = if args.detach {
        detached(context, args.container, options).await
    } else {
        attached(context, args.container, options).await
    };
    result.map_err(|failure| match start_failure_code(&failure.message) {
        125 => failure,
        code => failure.with_code(code),
    })
}

async fn detached(context: &Context, container: String, options: v1::ExecOptions) -> Outcome {
    let request = v1::CreateExecRequest {
        container,
        options: Some(options),
    };
    let id = context
        .client
        .tasks()
        .create_exec(request)
        .await?
        .into_inner()
        .id;
    context
        .client
        .tasks()
        .start_exec(v1::StartExecRequest { id })
        .await?;
    Ok(0)
}

async fn attached(context: &Context, container: String, options: v1::ExecOptions) -> Outcome {
    let (stdin, tty) = (options.attach_stdin, options.tty);
    let (requests, stream) = mpsc::channel(4);
    let start = v1::ExecStart {
        container,
        options: Some(options),
        ..Default::default()
    };
    let _ = requests
        .send(ExecRequest {
            message: Some(Request::Start(start)),
        })
        .await;
    let mut replies = context
        .client
        .tasks()
        .exec(ReceiverStream::new(stream))
        .await?
        .into_inner();
    let raw = if tty && stdin { RawMode::enter() } else { None };
    let feeder = tokio::spawn(feed(session::inputs(stdin, tty), requests));
    let result = async {
        while let Some(reply) = replies.message().await? {
            match reply.message {
                Some(Response::Stdout(bytes)) => session::stdout(&bytes)?,
                Some(Response::Stderr(bytes)) => session::stderr(&bytes)?,
                Some(Response::Exit(exit)) => return Ok(session::exit_code(exit.exit_code)),
                Some(Response::Started(_)) | None => {}
            }
        }
        // The stream ends without an exit when the detach keys were typed.
        Ok(0)
    }
    .await;
    feeder.abort();
    drop(raw);
    result
}

async fn feed(mut inputs: mpsc::Receiver<Input>, requests: mpsc::Sender<ExecRequest>) {
    while let Some(input) = inputs.recv().await {
        let message = match input {
            Input::Bytes(bytes) => Request::Stdin(bytes.into()),
            Input::End => Request::CloseStdin(v1::CloseStdin {}),
            Input::Resize(size) => Request::Resize(size),
        };
        if requests
            .send(ExecRequest {
                message: Some(message),
            })
            .await
            .is_err()
        {
            return;
        }
    }
    // Without stdin the request stream stays open: its end would be a half-close.
    requests.closed().await;
}
