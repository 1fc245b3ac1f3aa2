//! `davit attach`, and the attachment that `run` and `start -a` share.

use davit_client::v1::{
    self, AttachRequest, AttachResponse, attach_request::Message as Request,
    attach_response::Message as Response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    context::Context,
    error::{Failure, Outcome},
    session::{self, Input, SignalProxy},
    terminal::RawMode,
};

/// docker's keys to leave a container without ending it.
pub(crate) const DETACH_KEYS: &str = "ctrl-p,ctrl-q";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, default_value = DETACH_KEYS)]
    detach_keys: String,
    /// Proxy all received signals to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    sig_proxy: bool,
    container: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let request = v1::InspectContainerRequest {
        container: args.container.clone(),
        ..Default::default()
    };
    let mut stream = context
        .client
        .containers()
        .inspect(request)
        .await?
        .into_inner();
    let details = stream
        .message()
        .await?
        .ok_or_else(|| Failure::new(format!("No such container: {}", args.container)))?;
    let container = details.container.unwrap_or_default();
    match container.state.unwrap_or_default().status() {
        v1::ContainerStatus::Running => {}
        v1::ContainerStatus::Paused => {
            return Err(Failure::new(
                "You cannot attach to a paused container, unpause it first",
            ));
        }
        v1::ContainerStatus::Restarting => {
            return Err(Failure::new(
                "You cannot attach to a restarting container, wait until it is running",
            ));
        }
        _ => {
            return Err(Failure::new(
                "You cannot attach to a stopped container, start it first",
            ));
        }
    }
    let options = details.options.unwrap_or_default();
    let attachment = Attachment {
        container: container.id,
        stdin: options.open_stdin && !args.no_stdin,
        stdout: true,
        stderr: true,
        tty: options.tty,
        logs: false,
        detach_keys: args.detach_keys,
        signals: args.sig_proxy && !options.tty,
    };
    Ok(join(context, attachment).await?.run().await?.code())
}

/// What is to be joined to the user's terminal.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) container: String,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
    pub(crate) logs: bool,
    pub(crate) detach_keys: String,
    pub(crate) signals: bool,
}

/// An attachment that the daemon has confirmed.
#[derive(Debug)]
pub(crate) struct Joined {
    requests: mpsc::Sender<AttachRequest>,
    replies: Streaming<AttachResponse>,
    attachment: Attachment,
    proxy: Option<SignalProxy>,
}

/// How an attachment came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The container ended with this code.
    Exited(u8),
    /// The user detached.
    Detached,
}

impl End {
    /// What the command line ends with.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Detached => 0,
        }
    }
}

/// Attaches; works before the container is started.
pub(crate) async fn join(context: &Context, attachment: Attachment) -> Outcome<Joined> {
    let (requests, stream) = mpsc::channel(4);
    let start = v1::AttachStart {
        container: attachment.container.clone(),
        stdin: attachment.stdin,
        stdout: attachment.stdout,
        stderr: attachment.stderr,
        logs: attachment.logs,
        stream: true,
        detach_keys: if attachment.tty {
            attachment.detach_keys.clone()
        } else {
            String::new()
        },
    };
    let first = AttachRequest {
        message: Some(Request::Start(start)),
    };
    let _ = requests.send(first).await;
    let mut replies = context
        .client
        .tasks()
        .attach(ReceiverStream::new(stream))
        .await?
        .into_inner();
    match replies.message().await?.and_then(|reply| reply.message) {
        Some(Response::Attached(_)) => {}
        _ => return Err(Failure::new("the daemon did not confirm the attachment")),
    }
    let proxy = attachment
        .signals
        .then(|| SignalProxy::start(context, &attachment.container));
    Ok(Joined {
        requests,
        replies,
        attachment,
        proxy,
    })
}

impl Joined {
    /// Gives the attachment up without a word.
    pub(crate) fn leave(self) {
        drop(self.proxy);
    }

    /// Passes bytes both ways until the container ends or the user detaches.
    pub(crate) async fn run(mut self) -> Outcome<End> {
        let raw = if self.attachment.tty && self.attachment.stdin {
            RawMode::enter()
        } else {
            None
        };
        let inputs = session::inputs(self.attachment.stdin, self.attachment.tty);
        let sender = self.requests.clone();
        let feeder = tokio::spawn(feed(inputs, sender));
        let result = self.receive().await;
        feeder.abort();
        drop(raw);
        result
    }

    async fn receive(&mut self) -> Outcome<End> {
        while let Some(reply) = self.replies.message().await? {
            match reply.message {
                Some(Response::Stdout(bytes)) => session::stdout(&bytes)?,
                Some(Response::Stderr(bytes)) => session::stderr(&bytes)?,
                Some(Response::Exit(exit)) => {
                    return Ok(End::Exited(session::exit_code(exit.exit_code)));
                }
                Some(Response::Detached(_)) => return Ok(End::Detached),
                Some(Response::Attached(_)) | None => {}
            }
        }
        Err(
            Failure::new("the connection to the daemon was lost; the container goes on running")
                .with_code(1),
        )
    }
}

async fn feed(mut inputs: mpsc::Receiver<Input>, requests: mpsc::Sender<AttachRequest>) {
    while let Some(input) = inputs.recv().await {
        let message = match input {
            Input::Bytes(bytes) => Request::Stdin(bytes.into()),
            Input::End => Request::CloseStdin(v1::CloseStdin {}),
            Input::Resize(size) => Request::Resize(size),
        };
        if requests
            .send(AttachRequest {
                message: Some(message),
            })
            .await
            .is_err()
        {
            return;
        }
    }
}
