//! POST /containers/{name}/attach

use davit_client::v1::{
    self, AttachRequest, AttachResponse, attach_request, attach_response::Message,
};
use futures::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    failure::{Failure, Result},
    hijack::{self, Input, OnEof, Output, Session},
    reply::Reply,
    request::Call,
};

/// Keys that detach from a terminal unless others are given.
const DETACH_KEYS: &str = "ctrl-p,ctrl-q";

pub(crate) async fn attach(call: Call) -> Result<Reply> {
    let name = call.name();
    let found = super::details(&call.gateway, &name, false).await?;
    check_state(&found)?;
    let options = found.options.unwrap_or_default();
    let stdin = call.query.flag("stdin") && options.open_stdin;
    let keys = call.query.get("detachKeys");
    let keys = if keys.is_empty() { DETACH_KEYS } else { keys };
    let start = v1::AttachStart {
        container: name.clone(),
        stdin,
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
        logs: call.query.flag("logs"),
        stream: call.query.flag("stream"),
        detach_keys: if options.tty {
            keys.to_owned()
        } else {
            String::new()
        },
    };
    let (input, received) = hijack::input();
    let start = AttachRequest {
        message: Some(attach_request::Message::Start(start)),
    };
    let requests = futures::stream::iter([start]).chain(ReceiverStream::new(received).map(request));
    // The connection is handed over only when the engine listens, so that
    // nothing is missed of what the container says first.
    let begin = async {
        let mut answers = call
            .gateway
            .stream()
            .tasks()
            .attach(requests)
            .await?
            .into_inner();
        let first = answers.message().await?;
        Ok((answers, first))
    };
    let (answers, first) = begin
        .await
        .map_err(|status| super::failure(status, &name))?;
    let session = Session {
        tty: options.tty,
        on_eof: on_eof(stdin, &options),
        input,
        output: output(answers, first).boxed(),
    };
    Ok(hijack::reply(call.upgrade, call.version, session))
}

/// `docker run -i` means its stdin to end the container's; a later attach to a
/// container that keeps its stdin does not.
fn on_eof(stdin: bool, options: &v1::ContainerOptions) -> OnEof {
    match (stdin, options.stdin_once && !options.tty) {
        (false, _) => OnEof::Ignore,
        (true, true) => OnEof::CloseStdin,
        (true, false) => OnEof::EndSession,
    }
}

fn check_state(found: &v1::ContainerDetails) -> Result<()> {
    let container = found.container.clone().unwrap_or_default();
    let status = container.state.unwrap_or_default().status();
    match status {
        v1::ContainerStatus::Paused => Err(Failure::conflict(format!(
            "container {} is paused, unpause the container before attach",
            container.id
        ))),
        v1::ContainerStatus::Restarting => Err(Failure::conflict(format!(
            "container {} is restarting, wait until the container is running",
            container.id
        ))),
        v1::ContainerStatus::Unspecified
        | v1::ContainerStatus::Created
        | v1::ContainerStatus::Running
        | v1::ContainerStatus::Removing
        | v1::ContainerStatus::Exited
        | v1::ContainerStatus::Dead => Ok(()),
    }
}

fn request(input: Input) -> AttachRequest {
    let message = match input {
        Input::Data(data) => attach_request::Message::Stdin(data),
        Input::Close => attach_request::Message::CloseStdin(v1::CloseStdin {}),
    };
    AttachRequest {
        message: Some(message),
    }
}

fn output(
    mut answers: Streaming<AttachResponse>,
    first: Option<AttachResponse>,
) -> impl futures::Stream<Item = Output> + Send {
    async_stream::stream! {
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Some(answer)) => match answer.message {
                    Some(Message::Stdout(data)) => yield Output::Stdout(data),
                    Some(Message::Stderr(data)) => yield Output::Stderr(data),
                    Some(Message::Exit(_) | Message::Detached(_)) => return,
                    Some(Message::Attached(_)) | None => {}
                },
                Ok(None) => return,
                Err(status) => {
                    yield system(&status);
                    return;
                }
            }
            next = answers.message().await;
        }
    }
}

fn system(status: &Status) -> Output {
    Output::System(format!("attach ended: {}", status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_end_of_input_means() {
        let options = |stdin_once, tty| v1::ContainerOptions {
            open_stdin: true,
            stdin_once,
            tty,
            ..Default::default()
        };
        assert_eq!(on_eof(false, &options(true, false)), OnEof::Ignore);
        assert_eq!(on_eof(true, &options(true, false)), OnEof::CloseStdin);
        assert_eq!(on_eof(true, &options(false, false)), OnEof::EndSession);
        assert_eq!(on_eof(true, &options(true, true)), OnEof::EndSession);
    }
}
