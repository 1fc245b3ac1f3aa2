//! The service `Tasks`.

use davit_engine::model::{self, Input, Output};
use davit_proto::v1::{
    self, attach_request, attach_response, exec_request, exec_response, tasks_server::Tasks,
    wait_response,
};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Native,
    convert::*,
    images::{Reply, reply},
    namespace,
    status::{missing, status},
};

#[tonic::async_trait]
impl Tasks for Native {
    type WaitStream = Reply<v1::WaitResponse>;
    type ExecStream = Reply<v1::ExecResponse>;
    type AttachStream = Reply<v1::AttachResponse>;
    type LogsStream = Reply<v1::LogEntry>;
    type StatsStream = Reply<v1::StatsResponse>;

    async fn start(
        &self,
        request: Request<v1::StartRequest>,
    ) -> Result<Response<v1::StartResponse>, Status> {
        let ns = namespace::of(&request)?;
        let name = request.into_inner().container;
        let started = self
            .engine
            .tasks()
            .start(&ns, &name)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::StartResponse {
            pid: started.pid.cast_signed(),
            already_running: started.already_running,
        }))
    }

    async fn stop(
        &self,
        request: Request<v1::StopRequest>,
    ) -> Result<Response<v1::StopResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let options = model::StopOptions {
            signal: request.signal,
            timeout: request.timeout_set.then_some(request.timeout),
        };
        let stopped = self
            .engine
            .tasks()
            .stop(&ns, &request.container, options)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::StopResponse {
            already_stopped: stopped.already_stopped,
        }))
    }

    async fn restart(
        &self,
        request: Request<v1::RestartRequest>,
    ) -> Result<Response<v1::RestartResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let options = model::StopOptions {
            signal: request.signal,
            timeout: request.timeout_set.then_some(request.timeout),
        };
        let pid = self
            .engine
            .tasks()
            .restart(&ns, &request.container, options)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RestartResponse {
            pid: pid.cast_signed(),
        }))
    }

    async fn kill(
        &self,
        request: Request<v1::KillRequest>,
    ) -> Result<Response<v1::KillResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let options = model::KillOptions {
            signal: request.signal,
            all: request.all,
            exec_id: request.exec_id,
        };
        self.engine
            .tasks()
            .kill(&ns, &request.container, options)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::KillResponse {}))
    }

    async fn pause(
        &self,
        request: Request<v1::PauseRequest>,
    ) -> Result<Response<v1::PauseResponse>, Status> {
        let ns = namespace::of(&request)?;
        let name = request.into_inner().container;
        self.engine
            .tasks()
            .pause(&ns, &name)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::PauseResponse {}))
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeRequest>,
    ) -> Result<Response<v1::ResumeResponse>, Status> {
        let ns = namespace::of(&request)?;
        let name = request.into_inner().container;
        self.engine
            .tasks()
            .resume(&ns, &name)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::ResumeResponse {}))
    }

    async fn wait(
        &self,
        request: Request<v1::WaitRequest>,
    ) -> Result<Response<Self::WaitStream>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let condition = from_condition(request.condition());
        let waiter = self
            .engine
            .tasks()
            .wait(&ns, &request.container, condition)
            .map_err(status)?;
        let armed = wait_response::Message::Armed(v1::WaitArmed {});
        let armed = v1::WaitResponse {
            message: Some(armed),
        };
        let exit = futures::stream::once(async move {
            let exit = waiter.wait().await.map_err(status)?;
            Ok(v1::WaitResponse {
                message: Some(wait_response::Message::Exit(to_exit(exit))),
            })
        });
        Ok(Response::new(
            futures::stream::iter([Ok(armed)]).chain(exit).boxed(),
        ))
    }

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let ns = namespace::of(&request)?;
        let mut requests = request.into_inner();
        let first = requests
            .message()
            .await?
            .and_then(|message| message.message);
        let Some(exec_request::Message::Start(start)) = first else {
            return Err(missing("start"));
        };
        let size = start.terminal_size.map(from_terminal_size);
        let target = if start.id.is_empty() {
            let options = from_exec_options(start.options.unwrap_or_default());
            model::ExecTarget::New {
                container: start.container,
                options,
            }
        } else {
            model::ExecTarget::Prepared(start.id)
        };
        let session = self
            .engine
            .tasks()
            .exec(&ns, target, size)
            .await
            .map_err(status)?;
        let inputs = requests.map(|message| {
            message.map(|message| match message.message? {
                exec_request::Message::Stdin(bytes) => Some(Input::Stdin(bytes)),
                exec_request::Message::CloseStdin(_) => Some(Input::CloseStdin),
                exec_request::Message::Resize(size) => {
                    Some(Input::Resize(from_terminal_size(size)))
                }
                exec_request::Message::Start(_) => None,
            })
        });
        feed(session.input, inputs.boxed());
        let started = v1::ExecStarted {
            id: session.exec_id,
            pid: session.pid.map_or(0, u32::cast_signed),
        };
        let head = v1::ExecResponse {
            message: Some(exec_response::Message::Started(started)),
        };
        let tail = outputs(session.output, |output| {
            let message = match output {
                Output::Stdout(bytes) => exec_response::Message::Stdout(bytes),
                Output::Stderr(bytes) => exec_response::Message::Stderr(bytes),
                Output::Exit(exit) => exec_response::Message::Exit(to_exit(exit)),
                // The stream's end without an exit says it.
                Output::Detached => return None,
            };
            Some(v1::ExecResponse {
                message: Some(message),
            })
        });
        Ok(Response::new(
            futures::stream::iter([Ok(head)]).chain(tail).boxed(),
        ))
    }

    async fn create_exec(
        &self,
        request: Request<v1::CreateExecRequest>,
    ) -> Result<Response<v1::CreateExecResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let options = from_exec_options(request.options.unwrap_or_default());
        let id = self
            .engine
            .tasks()
            .create_exec(&ns, &request.container, options)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::CreateExecResponse { id }))
    }

    async fn start_exec(
        &self,
        request: Request<v1::StartExecRequest>,
    ) -> Result<Response<v1::StartExecResponse>, Status> {
        let ns = namespace::of(&request)?;
        let id = request.into_inner().id;
        let pid = self
            .engine
            .tasks()
            .start_exec(&ns, &id)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::StartExecResponse {
            pid: pid.cast_signed(),
        }))
    }

    async fn inspect_exec(
        &self,
        request: Request<v1::InspectExecRequest>,
    ) -> Result<Response<v1::ExecDetails>, Status> {
        let ns = namespace::of(&request)?;
        let id = request.into_inner().id;
        let details = self.engine.tasks().inspect_exec(&ns, &id).map_err(status)?;
        Ok(Response::new(to_exec_details(details)))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let ns = namespace::of(&request)?;
        let mut requests = request.into_inner();
        let first = requests
            .message()
            .await?
            .and_then(|message| message.message);
        let Some(attach_request::Message::Start(start)) = first else {
            return Err(missing("start"));
        };
        let (container, options) = from_attach(start);
        let session = self
            .engine
            .tasks()
            .attach(&ns, &container, options)
            .await
            .map_err(status)?;
        let inputs = requests.map(|message| {
            message.map(|message| match message.message? {
                attach_request::Message::Stdin(bytes) => Some(Input::Stdin(bytes)),
                attach_request::Message::CloseStdin(_) => Some(Input::CloseStdin),
                attach_request::Message::Resize(size) => {
                    Some(Input::Resize(from_terminal_size(size)))
                }
                attach_request::Message::Start(_) => None,
            })
        });
        feed(session.input, inputs.boxed());
        let attached = attach_response::Message::Attached(v1::Attached { tty: session.tty });
        let head = v1::AttachResponse {
            message: Some(attached),
        };
        let tail = outputs(session.output, |output| {
            let message = match output {
                Output::Stdout(bytes) => attach_response::Message::Stdout(bytes),
                Output::Stderr(bytes) => attach_response::Message::Stderr(bytes),
                Output::Exit(exit) => attach_response::Message::Exit(to_exit(exit)),
                Output::Detached => attach_response::Message::Detached(v1::Detached {}),
            };
            Some(v1::AttachResponse {
                message: Some(message),
            })
        });
        Ok(Response::new(
            futures::stream::iter([Ok(head)]).chain(tail).boxed(),
        ))
    }

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let ns = namespace::of(&request)?;
        let (container, logs) = from_logs(request.into_inner())?;
        let stream = self
            .engine
            .tasks()
            .logs(&ns, &container, logs)
            .await
            .map_err(status)?;
        Ok(reply(stream, to_log_entry))
    }

    async fn resize(
        &self,
        request: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let size = from_terminal_size(request.size.unwrap_or_default());
        self.engine
            .tasks()
            .resize(&ns, &request.container, &request.exec_id, size)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::ResizeResponse {}))
    }

    async fn processes(
        &self,
        request: Request<v1::ProcessesRequest>,
    ) -> Result<Response<v1::ProcessesResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let processes = self
            .engine
            .tasks()
            .processes(&ns, &request.container, &request.ps_args)
            .await
            .map_err(status)?;
        Ok(Response::new(to_processes(processes)))
    }

    async fn stats(
        &self,
        request: Request<v1::StatsRequest>,
    ) -> Result<Response<Self::StatsStream>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let stream = self
            .engine
            .tasks()
            .stats(&ns, &request.container, request.stream)
            .await
            .map_err(status)?;
        Ok(reply(stream, to_stats))
    }

    async fn update(
        &self,
        request: Request<v1::UpdateTaskRequest>,
    ) -> Result<Response<v1::UpdateTaskResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let resources = from_resources(request.resources.unwrap_or_default());
        let warnings = self
            .engine
            .tasks()
            .update(&ns, &request.container, resources)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::UpdateTaskResponse { warnings }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteTaskRequest>,
    ) -> Result<Response<v1::DeleteTaskResponse>, Status> {
        let ns = namespace::of(&request)?;
        let name = request.into_inner().container;
        let exit = self
            .engine
            .tasks()
            .delete(&ns, &name)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::DeleteTaskResponse {
            exit: Some(to_exit(exit)),
        }))
    }
}

/// Hands what the caller sends to the session, no faster than it takes it.
/// Ends with the call or the session; a call that ends leaves stdin open.
fn feed(
    input: mpsc::Sender<Input>,
    mut requests: futures::stream::BoxStream<'static, Result<Option<Input>, Status>>,
) {
    tokio::spawn(async move {
        while let Some(Ok(message)) = requests.next().await {
            let Some(message) = message else { continue };
            if input.send(message).await.is_err() {
                return;
            }
        }
        // The half of the call that we read is over; the session must not end
        // for it, so the sender lives until the session is gone.
        input.closed().await;
    });
}

fn outputs<M: Send + 'static>(
    output: mpsc::Receiver<davit_store::Result<Output>>,
    convert: impl Fn(Output) -> Option<M> + Send + 'static,
) -> Reply<M> {
    ReceiverStream::new(output)
        .filter_map(move |item| {
            let item = match item {
                Ok(output) => convert(output).map(Ok),
                Err(error) => Some(Err(status(error))),
            };
            async move { item }
        })
        .boxed()
}
