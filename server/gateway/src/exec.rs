//! POST /containers/{name}/exec and /exec/{id}/…

use davit_client::v1::{self, ExecRequest, exec_request, exec_response::Message};
use futures::{Stream, StreamExt};
use http::StatusCode;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    containers::{self, lifecycle},
    convert::create,
    failure::{Failure, Result},
    fields::Fields,
    gateway::Gateway,
    hijack::{self, Input, OnEof, Output, Session},
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn create(mut call: Call) -> Result<Reply> {
    let name = call.name();
    let body = call.json().await?.unwrap_or_default();
    let options = options(&Fields::root(&body, "ExecConfig")?)?;
    if options.args.is_empty() {
        return Err(Failure::bad_request("No exec command specified"));
    }
    let request = v1::CreateExecRequest {
        container: name.clone(),
        options: Some(options),
    };
    let created = call.gateway.calls().tasks().create_exec(request).await;
    let created = created
        .map_err(|status| containers::failure(status, &name))?
        .into_inner();
    Ok(reply::json(StatusCode::CREATED, &json!({"Id": created.id})))
}

fn options(fields: &Fields<'_>) -> Result<v1::ExecOptions> {
    Ok(v1::ExecOptions {
        args: fields.words("Cmd")?.unwrap_or_default(),
        env: fields.strings("Env")?,
        working_dir: fields.string("WorkingDir")?,
        user: fields.string("User")?,
        tty: fields.flag("Tty")?,
        attach_stdin: fields.flag("AttachStdin")?,
        attach_stdout: fields.flag("AttachStdout")?,
        attach_stderr: fields.flag("AttachStderr")?,
        privileged: fields.flag("Privileged")?,
        detach_keys: fields.string("DetachKeys")?,
        terminal_size: create::terminal_size(fields)?,
    })
}

async fn find(gateway: &Gateway, id: &str) -> Result<v1::ExecDetails> {
    let request = v1::InspectExecRequest { id: id.to_owned() };
    let found = gateway.calls().tasks().inspect_exec(request).await;
    found
        .map(tonic::Response::into_inner)
        .map_err(|status| failure(status, id))
}

fn failure(status: Status, id: &str) -> Failure {
    Failure::from(status).when_not_found(|| format!("No such exec instance: {id}"))
}

pub(crate) async fn start(mut call: Call) -> Result<Reply> {
    let id = call.name();
    let body = call.json().await?.unwrap_or_default();
    let fields = Fields::root(&body, "ExecStartOptions")?;
    let found = find(&call.gateway, &id).await?;
    if found.started {
        return Err(Failure::conflict(format!(
            "exec command {id} has already run"
        )));
    }
    if fields.flag("Detach")? {
        let request = v1::StartExecRequest { id: id.clone() };
        let started = call.gateway.calls().tasks().start_exec(request).await;
        started.map_err(|status| failure(status, &id))?;
        return Ok(reply::empty(StatusCode::OK));
    }
    let options = found.options.unwrap_or_default();
    let (input, received) = hijack::input();
    let start = v1::ExecStart {
        id,
        terminal_size: create::terminal_size(&fields)?,
        ..Default::default()
    };
    let start = ExecRequest {
        message: Some(exec_request::Message::Start(start)),
    };
    let requests = futures::stream::iter([start]).chain(ReceiverStream::new(received).map(request));
    let on_eof = match (options.attach_stdin, options.tty) {
        (false, _) => OnEof::Ignore,
        (true, false) => OnEof::CloseStdin,
        (true, true) => OnEof::EndSession,
    };
    // As dockerd does it the process starts behind the 101: why it can't be
    // started is told in the stream, and by the exec's exit code.
    let output = output(call.gateway.clone(), requests).boxed();
    let session = Session {
        tty: options.tty,
        on_eof,
        input,
        output,
    };
    Ok(hijack::reply(call.upgrade, call.version, session))
}

fn request(input: Input) -> ExecRequest {
    let message = match input {
        Input::Data(data) => exec_request::Message::Stdin(data),
        Input::Close => exec_request::Message::CloseStdin(v1::CloseStdin {}),
    };
    ExecRequest {
        message: Some(message),
    }
}

fn output(
    gateway: Gateway,
    requests: impl Stream<Item = ExecRequest> + Send + 'static,
) -> impl Stream<Item = Output> + Send {
    async_stream::stream! {
        let mut answers = match gateway.stream().tasks().exec(requests).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => {
                yield told(&status);
                return;
            }
        };
        loop {
            match answers.message().await {
                Ok(Some(answer)) => match answer.message {
                    Some(Message::Stdout(data)) => yield Output::Stdout(data),
                    Some(Message::Stderr(data)) => yield Output::Stderr(data),
                    Some(Message::Exit(_)) => return,
                    Some(Message::Started(_)) | None => {}
                },
                Ok(None) => return,
                Err(status) => {
                    yield told(&status);
                    return;
                }
            }
        }
    }
}

fn told(status: &Status) -> Output {
    Output::Stdout(format!("{}\r\n", status.message()).into())
}

pub(crate) async fn resize(call: Call) -> Result<Reply> {
    let id = call.name();
    let request = v1::ResizeRequest {
        container: String::new(),
        exec_id: id.clone(),
        size: Some(lifecycle::size(&call)?),
    };
    let resized = call.gateway.calls().tasks().resize(request).await;
    resized.map_err(|status| failure(status, &id))?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn inspect(call: Call) -> Result<Reply> {
    let found = find(&call.gateway, &call.name()).await?;
    Ok(reply::ok(&to_json(&found)))
}

fn to_json(exec: &v1::ExecDetails) -> Value {
    let options = exec.options.clone().unwrap_or_default();
    let ended = exec.started && !exec.running;
    let mut process = json!({
        "tty": options.tty,
        "entrypoint": options.args.first().cloned().unwrap_or_default(),
        "arguments": options.args.get(1..).unwrap_or_default(),
        "privileged": options.privileged,
    });
    if !options.user.is_empty() {
        process["user"] = json!(options.user);
    }
    json!({
        "ID": exec.id,
        "Running": exec.running,
        "ExitCode": ended.then_some(exec.exit_code),
        "ProcessConfig": process,
        "OpenStdin": options.attach_stdin,
        "OpenStderr": options.attach_stderr,
        "OpenStdout": options.attach_stdout,
        "CanRemove": false,
        "ContainerID": exec.container_id,
        "DetachKeys": options.detach_keys,
        "Pid": exec.pid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_has_no_exit_code_before_its_end() {
        let exec = v1::ExecDetails {
            id: "x".into(),
            options: Some(v1::ExecOptions {
                args: vec!["sh".into(), "-c".into()],
                ..Default::default()
            }),
            started: true,
            running: true,
            ..Default::default()
        };
        let value = to_json(&exec);
        assert_eq!(value["ExitCode"], Value::Null);
        assert_eq!(value["ProcessConfig"]["arguments"], json!(["-c"]));
        let ended = v1::ExecDetails {
            running: false,
            exit_code: 127,
            ..exec
        };
        assert_eq!(to_json(&ended)["ExitCode"], 127);
    }
}
