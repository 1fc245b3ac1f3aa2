//! Calls to a shim: containerd's Task API over ttrpc. Every call but Wait has
//! a deadline, and every failure comes back as one of our kinds.

use std::{fmt, future::Future, path::Path, time::Duration};

use containerd_shim_protos::{
    api,
    protobuf::{MessageField, well_known_types::any::Any},
    shim_async::TaskClient,
    ttrpc::{self, asynchronous::transport::Socket, context::Context},
};
use jiff::Timestamp;

use super::unix;
use crate::{Error, Kind, Result};

/// A connection to one shim; cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    task: TaskClient,
    ns: String,
    id: String,
    deadlines: Deadlines,
}

/// Longest waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) call: Duration,
    /// For calls in which the runtime makes or starts something.
    pub(crate) start: Duration,
}

/// What Create is told beyond the bundle.
#[derive(Debug, Clone, Default)]
pub(crate) struct CreateTask {
    pub(crate) bundle: String,
    pub(crate) rootfs: Vec<RootMount>,
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    /// `davit.shim.v1.Options`, JSON.
    pub(crate) options: Vec<u8>,
}

/// One mount of the root file system.
#[derive(Debug, Clone)]
pub(crate) struct RootMount {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

/// What Exec is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExecTask {
    pub(crate) exec_id: String,
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    /// The OCI process, JSON.
    pub(crate) process: Vec<u8>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) at: Timestamp,
}

/// What a process does, as the shim says.
#[derive(Debug, Clone)]
pub(crate) struct ProcessState {
    pub(crate) paused: bool,
    /// Made, not started.
    pub(crate) created: bool,
    pub(crate) exit: Option<Exit>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("ns", &self.ns)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the shim that listens at `socket`. `Unavailable` when none
    /// does.
    pub(crate) fn connect(socket: &Path, ns: &str, id: &str, deadlines: Deadlines) -> Result<Self> {
        let stream = unix::connect(socket).map_err(|error| {
            Error::new(
                Kind::Unavailable,
                format!("no shim answers for container {id} at {}", socket.display()),
            )
            .with_source(error)
        })?;
        let client = ttrpc::asynchronous::Client::new(Socket::from(stream));
        Ok(Self {
            task: TaskClient::new(client),
            ns: ns.to_owned(),
            id: id.to_owned(),
            deadlines,
        })
    }

    /// Makes the container without starting it; gives its pid.
    pub(crate) async fn create(&self, task: CreateTask) -> Result<u32> {
        let rootfs = task.rootfs.into_iter().map(|mount| api::Mount {
            type_: mount.kind,
            source: mount.source,
            options: mount.options,
            ..Default::default()
        });
        let request = api::CreateTaskRequest {
            id: self.id.clone(),
            bundle: task.bundle,
            rootfs: rootfs.collect(),
            terminal: task.terminal,
            stdin: task.stdin,
            stdout: task.stdout,
            options: any("davit.shim.v1.Options", task.options),
            ..Default::default()
        };
        let answer = self
            .call(
                "create",
                self.deadlines.start,
                self.task.create(self.context(), &request),
            )
            .await?;
        Ok(answer.pid)
    }

    /// Starts the container, or an exec; gives its pid.
    pub(crate) async fn start(&self, exec_id: &str) -> Result<u32> {
        let request = api::StartRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        let answer = self
            .call(
                "start",
                self.deadlines.start,
                self.task.start(self.context(), &request),
            )
            .await?;
        Ok(answer.pid)
    }

    /// Prepares an exec.
    pub(crate) async fn exec(&self, task: ExecTask) -> Result<()> {
        let request = api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: task.exec_id,
            terminal: task.terminal,
            stdin: task.stdin,
            stdout: task.stdout,
            spec: any(
                "types.containerd.io/opencontainers/runtime-spec/1/Process",
                task.process,
            ),
            ..Default::default()
        };
        self.call(
            "exec",
            self.deadlines.start,
            self.task.exec(self.context(), &request),
        )
        .await?;
        Ok(())
    }

    /// Waits, for as long as it takes, until a process has ended.
    pub(crate) async fn wait(&self, exec_id: &str) -> Result<Exit> {
        let request = api::WaitRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        let answer = self
            .task
            .wait(self.context(), &request)
            .await
            .map_err(|error| self.error("wait", error))?;
        Ok(exit(answer.exit_status, answer.exited_at.as_ref()))
    }

    /// Sends a signal. A process that is gone is `NotFound`.
    pub(crate) async fn kill(&self, exec_id: &str, signal: i32, all: bool) -> Result<()> {
        let request = api::KillRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            signal: u32::try_from(signal).unwrap_or(0),
            all,
            ..Default::default()
        };
        self.call(
            "kill",
            self.deadlines.call,
            self.task.kill(self.context(), &request),
        )
        .await?;
        Ok(())
    }

    /// Freezes the container.
    pub(crate) async fn pause(&self) -> Result<()> {
        let request = api::PauseRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        self.call(
            "pause",
            self.deadlines.call,
            self.task.pause(self.context(), &request),
        )
        .await?;
        Ok(())
    }

    /// Thaws it.
    pub(crate) async fn resume(&self) -> Result<()> {
        let request = api::ResumeRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        self.call(
            "resume",
            self.deadlines.call,
            self.task.resume(self.context(), &request),
        )
        .await?;
        Ok(())
    }

    /// Sets a terminal's size.
    pub(crate) async fn resize(&self, exec_id: &str, width: u32, height: u32) -> Result<()> {
        let request = api::ResizePtyRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            width,
            height,
            ..Default::default()
        };
        self.call(
            "resize",
            self.deadlines.call,
            self.task.resize_pty(self.context(), &request),
        )
        .await?;
        Ok(())
    }

    /// Changes limits; `resources` is OCI `LinuxResources`, JSON.
    pub(crate) async fn update(&self, resources: Vec<u8>) -> Result<()> {
        let request = api::UpdateTaskRequest {
            id: self.id.clone(),
            resources: any(
                "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
                resources,
            ),
            ..Default::default()
        };
        self.call(
            "update",
            self.deadlines.call,
            self.task.update(self.context(), &request),
        )
        .await?;
        Ok(())
    }

    /// What a process does.
    pub(crate) async fn state(&self, exec_id: &str) -> Result<ProcessState> {
        use api::Status;
        let request = api::StateRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        let answer = self
            .call(
                "state",
                self.deadlines.call,
                self.task.state(self.context(), &request),
            )
            .await?;
        let status = answer.status.enum_value_or(Status::UNKNOWN);
        Ok(ProcessState {
            paused: matches!(status, Status::PAUSED | Status::PAUSING),
            created: status == Status::CREATED,
            exit: (status == Status::STOPPED)
                .then(|| exit(answer.exit_status, answer.exited_at.as_ref())),
        })
    }

    /// Forgets a process that has ended: the acknowledgement of its exit.
    pub(crate) async fn delete(&self, exec_id: &str) -> Result<Exit> {
        let request = api::DeleteRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        let answer = self
            .call(
                "delete",
                self.deadlines.start,
                self.task.delete(self.context(), &request),
            )
            .await?;
        Ok(exit(answer.exit_status, answer.exited_at.as_ref()))
    }

    /// Ends the shim.
    pub(crate) async fn shutdown(&self) -> Result<()> {
        let request = api::ShutdownRequest {
            id: self.id.clone(),
            now: true,
            ..Default::default()
        };
        self.call(
            "shutdown",
            self.deadlines.call,
            self.task.shutdown(self.context(), &request),
        )
        .await?;
        Ok(())
    }

    async fn call<T>(
        &self,
        what: &str,
        deadline: Duration,
        call: impl Future<Output = ttrpc::Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(deadline, call).await {
            Ok(answer) => answer.map_err(|error| self.error(what, error)),
            Err(_) => Err(Error::new(
                Kind::DeadlineExceeded,
                format!(
                    "the shim of container {} did not answer `{what}` within {deadline:?}",
                    self.id
                ),
            )),
        }
    }

    fn context(&self) -> Context {
        let mut context = Context::default();
        context.add("containerd-namespace-ttrpc".to_owned(), self.ns.clone());
        context
    }

    fn error(&self, what: &str, error: ttrpc::Error) -> Error {
        match error {
            ttrpc::Error::RpcStatus(status) => Error::new(
                kind(status.code.enum_value_or(ttrpc::Code::UNKNOWN)),
                status.message,
            ),
            other => Error::new(
                Kind::Unavailable,
                format!(
                    "the connection to the shim of container {} broke during `{what}`",
                    self.id
                ),
            )
            .with_source(other),
        }
    }
}

fn any(type_url: &str, value: Vec<u8>) -> MessageField<Any> {
    if value.is_empty() {
        return MessageField::none();
    }
    MessageField::some(Any {
        type_url: type_url.to_owned(),
        value,
        ..Default::default()
    })
}

fn exit(
    status: u32,
    at: Option<&containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp>,
) -> Exit {
    let at = at
        .filter(|at| at.seconds > 0)
        .and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    Exit {
        code: i32::try_from(status).unwrap_or(255),
        at: at.unwrap_or_else(Timestamp::now),
    }
}

fn kind(code: ttrpc::Code) -> Kind {
    use ttrpc::Code;
    match code {
        Code::NOT_FOUND => Kind::NotFound,
        Code::ALREADY_EXISTS => Kind::AlreadyExists,
        Code::INVALID_ARGUMENT => Kind::InvalidArgument,
        Code::FAILED_PRECONDITION => Kind::FailedPrecondition,
        Code::UNIMPLEMENTED => Kind::Unimplemented,
        Code::DEADLINE_EXCEEDED => Kind::DeadlineExceeded,
        Code::PERMISSION_DENIED => Kind::PermissionDenied,
        Code::RESOURCE_EXHAUSTED => Kind::ResourceExhausted,
        Code::CANCELLED => Kind::Cancelled,
        Code::OUT_OF_RANGE => Kind::OutOfRange,
        Code::UNAUTHENTICATED => Kind::Unauthenticated,
        Code::DATA_LOSS => Kind::DataLoss,
        // UNAVAILABLE from the shim itself is an answer; ours means that there
        // was none, so it must not look like a broken connection.
        Code::OK | Code::UNKNOWN | Code::ABORTED | Code::INTERNAL | Code::UNAVAILABLE => {
            Kind::Internal
        }
    }
}
