//! The service `Volumes`.

use davit_engine::model;
use davit_proto::v1::{self, volumes_server::Volumes};
use tonic::{Request, Response, Status};

use super::{Native, convert::*, namespace, status::status};

#[tonic::async_trait]
impl Volumes for Native {
    async fn create(
        &self,
        request: Request<v1::CreateVolumeRequest>,
    ) -> Result<Response<v1::CreateVolumeResponse>, Status> {
        let ns = namespace::of(&request)?;
        let create = from_create_volume(request.into_inner());
        let made = self
            .engine
            .volumes()
            .create(&ns, create)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::CreateVolumeResponse {
            volume: Some(to_volume(made.volume)),
            created: made.created,
            warnings: made.warnings,
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetVolumeRequest>,
    ) -> Result<Response<v1::Volume>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let volume = self
            .engine
            .volumes()
            .get(&ns, &request.name, request.size)
            .await
            .map_err(status)?;
        Ok(Response::new(to_volume(volume)))
    }

    async fn list(
        &self,
        request: Request<v1::ListVolumesRequest>,
    ) -> Result<Response<v1::ListVolumesResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let list = model::ListVolumesRequest {
            filters: from_filters(request.filters),
            size: request.size,
        };
        let found = self
            .engine
            .volumes()
            .list(&ns, list)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::ListVolumesResponse {
            volumes: found.volumes.into_iter().map(to_volume).collect(),
            warnings: found.warnings,
        }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveVolumeRequest>,
    ) -> Result<Response<v1::RemoveVolumeResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        self.engine
            .volumes()
            .remove(&ns, &request.name, request.force)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RemoveVolumeResponse {}))
    }

    async fn prune(
        &self,
        request: Request<v1::PruneVolumesRequest>,
    ) -> Result<Response<v1::PruneResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let prune = model::PruneVolumesRequest {
            all: request.all,
            dry_run: request.dry_run,
            filters: from_filters(request.filters),
        };
        let pruned = self
            .engine
            .volumes()
            .prune(&ns, prune)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::PruneResponse {
            removed: pruned.removed,
            space_reclaimed: pruned.space_reclaimed,
        }))
    }
}
