//! The ttrpc service: unpacks requests, calls [`Tasks`], packs replies. Served as `containerd.task.v2.Task` and `v3`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::shim::oci;
use containerd_shim_protos::shim_async::{Task, create_task};
use containerd_shim_protos::types::task::{ProcessInfo, Status};
use davit_sys::mount::Mount;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::empty::Empty;
use protobuf::{EnumOrUnknown, Message, MessageField};
use ttrpc::r#async::{Service, TtrpcContext};

use super::create::Create;
use super::process::{Process, State};
use super::{Tasks, metrics};
use crate::error::{Error, Kind, Result};
use crate::events::{pack, timestamp};
use crate::io::frame::Size;
use crate::io::scratch;
use crate::io::target::StdioRequest;
use crate::options;
use crate::runtime::CheckpointRequest;

/// The service. Its work goes on when the caller hangs up or gives up: a half-made container helps nobody.
pub(crate) struct TaskService {
    tasks: Tasks,
    namespace: String,
}

impl TaskService {
    /// The methods under both versions' names.
    pub(crate) fn register(tasks: Tasks, namespace: &str) -> HashMap<String, Service> {
        let service: Arc<dyn Task + Send + Sync> = Arc::new(TaskService {
            tasks,
            namespace: namespace.to_owned(),
        });
        // The messages are the same, field by field.
        let v2 = create_task(service.clone())
            .into_values()
            .map(|methods| ("containerd.task.v2.Task".to_owned(), methods));
        v2.chain(create_task(service)).collect()
    }

    async fn run<T, F>(&self, work: impl FnOnce(Tasks) -> F) -> ttrpc::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let result = tokio::spawn(work(self.tasks.clone())).await;
        scratch::touch();
        match result {
            Ok(result) => result.map_err(ttrpc::Error::from),
            Err(error) => Err(Error::because("the shim failed", error).into()),
        }
    }
}

#[async_trait]
impl Task for TaskService {
    async fn state(
        &self,
        _: &TtrpcContext,
        request: api::StateRequest,
    ) -> ttrpc::Result<api::StateResponse> {
        let (container, process) = self.tasks.look(&request.id, &request.exec_id)?;
        let mut response = api::StateResponse {
            id: container.id.clone(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: number(process.pid()),
            status: EnumOrUnknown::new(status(&process)),
            stdin: process.request.stdin.clone(),
            stdout: process.request.stdout.clone(),
            stderr: process.request.stderr.clone(),
            terminal: process.request.terminal,
            exec_id: process.exec_id.clone(),
            ..Default::default()
        };
        if let State::Stopped(exit) = process.state() {
            response.exit_status = exit.code;
            response.exited_at = MessageField::some(timestamp(exit.at));
        }
        Ok(response)
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        let options = options::parse(request.options.as_ref(), &self.namespace)?;
        let stdio = StdioRequest {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let create = Create {
            id: request.id,
            bundle: request.bundle.into(),
            rootfs: request.rootfs.into_iter().map(mount).collect(),
            stdio,
            checkpoint: Some(request.checkpoint)
                .filter(|path| !path.is_empty())
                .map(Into::into),
            options,
        };
        let pid = self
            .run(|tasks| async move { tasks.create(create).await })
            .await?;
        Ok(api::CreateTaskResponse {
            pid: number(pid),
            ..Default::default()
        })
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        request: api::StartRequest,
    ) -> ttrpc::Result<api::StartResponse> {
        let pid = self
            .run(|tasks| async move { tasks.start(&request.id, &request.exec_id).await })
            .await?;
        Ok(api::StartResponse {
            pid: number(pid),
            ..Default::default()
        })
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> ttrpc::Result<api::DeleteResponse> {
        let exit = self
            .run(|tasks| async move { tasks.delete(&request.id, &request.exec_id).await })
            .await?;
        Ok(api::DeleteResponse {
            pid: number(exit.pid),
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        })
    }

    async fn pids(
        &self,
        _: &TtrpcContext,
        request: api::PidsRequest,
    ) -> ttrpc::Result<api::PidsResponse> {
        let pids = self
            .run(|tasks| async move { tasks.pids(&request.id).await })
            .await?;
        let processes = pids.into_iter().map(|(pid, exec)| {
            let info = exec.map(|exec_id| {
                pack(
                    "containerd.runc.v1",
                    &oci::ProcessDetails {
                        exec_id,
                        ..Default::default()
                    },
                )
            });
            ProcessInfo {
                pid: number(pid),
                info: info.into(),
                ..Default::default()
            }
        });
        Ok(api::PidsResponse {
            processes: processes.collect(),
            ..Default::default()
        })
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> ttrpc::Result<Empty> {
        self.run(|tasks| async move { tasks.pause(&request.id).await })
            .await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> ttrpc::Result<Empty> {
        self.run(|tasks| async move { tasks.resume(&request.id).await })
            .await?;
        Ok(Empty::new())
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: api::CheckpointTaskRequest,
    ) -> ttrpc::Result<Empty> {
        let options = checkpoint_options(request.options.as_ref())?;
        self.run(|tasks| async move {
            tasks
                .checkpoint(&request.id, request.path.as_ref(), options)
                .await
        })
        .await?;
        Ok(Empty::new())
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<Empty> {
        self.run(|tasks| async move {
            tasks
                .kill(&request.id, &request.exec_id, request.signal, request.all)
                .await
        })
        .await?;
        Ok(Empty::new())
    }

    async fn exec(
        &self,
        _: &TtrpcContext,
        request: api::ExecProcessRequest,
    ) -> ttrpc::Result<Empty> {
        let spec = request
            .spec
            .into_option()
            .map(|any| any.value)
            .unwrap_or_default();
        let stdio = StdioRequest {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let (id, exec_id) = (request.id, request.exec_id);
        self.run(|tasks| async move { tasks.exec(&id, &exec_id, stdio, spec).await })
            .await?;
        Ok(Empty::new())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> ttrpc::Result<Empty> {
        let side = |length: u32| u16::try_from(length).unwrap_or(u16::MAX);
        let size = Size {
            width: side(request.width),
            height: side(request.height),
        };
        self.tasks.resize(&request.id, &request.exec_id, size)?;
        Ok(Empty::new())
    }

    async fn close_io(
        &self,
        _: &TtrpcContext,
        request: api::CloseIORequest,
    ) -> ttrpc::Result<Empty> {
        if request.stdin {
            self.tasks.close_stdin(&request.id, &request.exec_id)?;
        }
        Ok(Empty::new())
    }

    async fn update(
        &self,
        _: &TtrpcContext,
        request: api::UpdateTaskRequest,
    ) -> ttrpc::Result<Empty> {
        let resources = request
            .resources
            .into_option()
            .map(|any| any.value)
            .unwrap_or_default();
        self.run(|tasks| async move { tasks.update(&request.id, &resources).await })
            .await?;
        Ok(Empty::new())
    }

    async fn wait(
        &self,
        _: &TtrpcContext,
        request: api::WaitRequest,
    ) -> ttrpc::Result<api::WaitResponse> {
        let exit = self.tasks.wait(&request.id, &request.exec_id).await?;
        Ok(api::WaitResponse {
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        })
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        request: api::StatsRequest,
    ) -> ttrpc::Result<api::StatsResponse> {
        let (stats, is_v2) = self.tasks.stats(&request.id)?;
        scratch::touch();
        let stats = MessageField::some(metrics::encode(&stats, is_v2));
        Ok(api::StatsResponse {
            stats,
            ..Default::default()
        })
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> ttrpc::Result<api::ConnectResponse> {
        // A shim without the container answers, too: that is how a daemon finds it.
        let task_pid = self
            .tasks
            .look(&request.id, "")
            .map_or(0, |(_, init)| init.pid());
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: number(task_pid),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> ttrpc::Result<Empty> {
        // While there are containers a shim stays, whoever asks: containerd asks after each one of a pod.
        self.tasks.shutdown();
        Ok(Empty::new())
    }
}

fn number(pid: i32) -> u32 {
    u32::try_from(pid).unwrap_or(0)
}

fn status(process: &Process) -> Status {
    match process.state() {
        State::Added | State::Created { .. } => Status::CREATED,
        State::Running { .. } => Status::RUNNING,
        State::Paused { .. } => Status::PAUSED,
        State::Stopped(_) => Status::STOPPED,
    }
}

fn mount(mount: containerd_shim_protos::types::mount::Mount) -> Mount {
    Mount {
        kind: mount.type_,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    }
}

fn checkpoint_options(any: Option<&Any>) -> Result<CheckpointRequest> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
        return Ok(CheckpointRequest::default());
    };
    let invalid = |cause: String| {
        Error::new(
            Kind::InvalidArgument,
            format!("options {}: {cause}", any.type_url),
        )
    };
    if any.type_url != "containerd.runc.v1.CheckpointOptions" {
        return Err(invalid("unknown type".into()));
    }
    let wire = oci::CheckpointOptions::parse_from_bytes(&any.value)
        .map_err(|error| invalid(error.to_string()))?;
    Ok(CheckpointRequest {
        image_path: wire.image_path.into(),
        work_path: Some(wire.work_path)
            .filter(|path| !path.is_empty())
            .map(Into::into),
        exit: wire.exit,
        open_tcp: wire.open_tcp,
        external_unix_sockets: wire.external_unix_sockets,
        terminal: wire.terminal,
        file_locks: wire.file_locks,
        empty_namespaces: wire.empty_namespaces,
        cgroups_mode: wire.cgroups_mode,
    })
}
