//! The service `Containers`.

use davit_engine::model;
use davit_proto::v1::{self, containers_server::Containers};
use futures::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Native,
    convert::*,
    images::{Reply, reply},
    namespace,
    status::{missing, status},
};

#[tonic::async_trait]
impl Containers for Native {
    type InspectStream = Reply<v1::ContainerDetails>;
    type CopyOutStream = Reply<v1::CopyOutResponse>;
    type ExportStream = Reply<v1::TarChunk>;

    async fn create(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        let ns = namespace::of(&request)?;
        let create = from_create(request.into_inner());
        let made = self
            .engine
            .containers()
            .create(&ns, create)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::CreateContainerResponse {
            id: made.id,
            warnings: made.warnings,
            name: made.name,
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetContainerRequest>,
    ) -> Result<Response<v1::Container>, Status> {
        let ns = namespace::of(&request)?;
        let name = request.into_inner().container;
        let container = self.engine.containers().get(&ns, &name).map_err(status)?;
        Ok(Response::new(to_container(container)))
    }

    async fn list(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let list = model::ListContainersRequest {
            all: request.all,
            limit: usize::try_from(request.limit).unwrap_or_default(),
            size: request.size,
            filters: from_filters(request.filters),
        };
        let containers = self
            .engine
            .containers()
            .list(&ns, list)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::ListContainersResponse {
            containers: containers.into_iter().map(to_container).collect(),
        }))
    }

    async fn update(
        &self,
        request: Request<v1::UpdateContainerRequest>,
    ) -> Result<Response<v1::UpdateContainerResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let container = request.container.clone();
        let warnings = self
            .engine
            .containers()
            .update(&ns, &container, from_update(request))
            .await
            .map_err(status)?;
        Ok(Response::new(v1::UpdateContainerResponse { warnings }))
    }

    async fn rename(
        &self,
        request: Request<v1::RenameContainerRequest>,
    ) -> Result<Response<v1::RenameContainerResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        self.engine
            .containers()
            .rename(&ns, &request.container, &request.new_name)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RenameContainerResponse {}))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let options = model::RemoveOptions {
            force: request.force,
            volumes: request.volumes,
        };
        self.engine
            .containers()
            .remove(&ns, &request.container, options)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn prune(
        &self,
        request: Request<v1::PruneContainersRequest>,
    ) -> Result<Response<v1::PruneResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let filters = from_filters(request.filters);
        let pruned = self
            .engine
            .containers()
            .prune(&ns, &filters, request.dry_run)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::PruneResponse {
            removed: pruned.removed,
            space_reclaimed: pruned.space_reclaimed,
        }))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectContainerRequest>,
    ) -> Result<Response<Self::InspectStream>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let containers = self.engine.containers();
        if request.watch {
            let stream = containers
                .watch(&ns, &request.container, request.size)
                .map_err(status)?;
            return Ok(reply(stream, to_details));
        }
        let details = containers
            .inspect(&ns, &request.container, request.size)
            .await
            .map_err(status)?;
        Ok(reply(futures::stream::iter([Ok(details)]), to_details))
    }

    async fn diff(
        &self,
        request: Request<v1::DiffRequest>,
    ) -> Result<Response<v1::DiffResponse>, Status> {
        let ns = namespace::of(&request)?;
        let name = request.into_inner().container;
        let changes = self
            .engine
            .containers()
            .diff(&ns, &name)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::DiffResponse {
            changes: changes.iter().map(to_change).collect(),
        }))
    }

    async fn copy_out(
        &self,
        request: Request<v1::CopyOutRequest>,
    ) -> Result<Response<Self::CopyOutStream>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let (stat, tar) = self
            .engine
            .containers()
            .copy_out(&ns, &request.container, &request.path)
            .await
            .map_err(status)?;
        let head = v1::CopyOutResponse {
            stat: Some(to_path_stat(stat)),
            ..Default::default()
        };
        let tail = tar.map(|chunk| {
            chunk
                .map(|data| v1::CopyOutResponse { stat: None, data })
                .map_err(status)
        });
        Ok(Response::new(
            futures::stream::iter([Ok(head)]).chain(tail).boxed(),
        ))
    }

    async fn copy_in(
        &self,
        request: Request<Streaming<v1::CopyInRequest>>,
    ) -> Result<Response<v1::CopyInResponse>, Status> {
        let ns = namespace::of(&request)?;
        let mut stream = request.into_inner();
        let first = stream.message().await?.ok_or_else(|| missing("options"))?;
        let options = first.options.ok_or_else(|| missing("options"))?;
        let head = futures::stream::iter([Ok(first.data)]);
        let tail = stream.map(|message| {
            // A call that breaks off must not look like the end of the tar.
            message.map(|message| message.data).map_err(|status| {
                davit_store::Error::new(davit_store::Kind::Cancelled, status.message().to_owned())
            })
        });
        let how = model::CopyInOptions {
            path: options.path,
            no_overwrite_dir_non_dir: options.no_overwrite_dir_non_dir,
            copy_uid_gid: options.copy_uid_gid,
        };
        self.engine
            .containers()
            .copy_in(&ns, &options.container, how, head.chain(tail).boxed())
            .await
            .map_err(status)?;
        Ok(Response::new(v1::CopyInResponse {}))
    }

    async fn stat_path(
        &self,
        request: Request<v1::StatPathRequest>,
    ) -> Result<Response<v1::PathStat>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let stat = self
            .engine
            .containers()
            .stat_path(&ns, &request.container, &request.path)
            .await
            .map_err(status)?;
        Ok(Response::new(to_path_stat(stat)))
    }

    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::CommitResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let container = request.container.clone();
        let id = self
            .engine
            .containers()
            .commit(&ns, &container, from_commit(request))
            .await
            .map_err(status)?;
        Ok(Response::new(v1::CommitResponse { id }))
    }

    async fn export(
        &self,
        request: Request<v1::ExportContainerRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let ns = namespace::of(&request)?;
        let name = request.into_inner().container;
        let tar = self
            .engine
            .containers()
            .export(&ns, &name)
            .await
            .map_err(status)?;
        Ok(reply(tar, |data| v1::TarChunk { data }))
    }
}
