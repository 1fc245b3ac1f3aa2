//! The service `Networks`.

use davit_proto::v1::{self, networks_server::Networks};
use tonic::{Request, Response, Status};

use super::{Native, convert::*, namespace, status::status};

#[tonic::async_trait]
impl Networks for Native {
    async fn create(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::CreateNetworkResponse>, Status> {
        let ns = namespace::of(&request)?;
        let create = from_create_network(request.into_inner());
        let id = self
            .engine
            .networks()
            .create(&ns, create)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::CreateNetworkResponse {
            id,
            warnings: Vec::new(),
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        let ns = namespace::of(&request)?;
        let name = request.into_inner().network;
        let network = self.engine.networks().get(&ns, &name).map_err(status)?;
        Ok(Response::new(to_v1_network(network)))
    }

    async fn list(
        &self,
        request: Request<v1::ListNetworksRequest>,
    ) -> Result<Response<v1::ListNetworksResponse>, Status> {
        let ns = namespace::of(&request)?;
        let filters = from_filters(request.into_inner().filters);
        let networks = self.engine.networks().list(&ns, &filters).map_err(status)?;
        Ok(Response::new(v1::ListNetworksResponse {
            networks: networks.into_iter().map(to_v1_network).collect(),
        }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveNetworkRequest>,
    ) -> Result<Response<v1::RemoveNetworkResponse>, Status> {
        let ns = namespace::of(&request)?;
        let name = request.into_inner().network;
        self.engine
            .networks()
            .remove(&ns, &name)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RemoveNetworkResponse {}))
    }

    async fn connect(
        &self,
        request: Request<v1::ConnectNetworkRequest>,
    ) -> Result<Response<v1::ConnectNetworkResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let attachment = request.attachment.map(from_network).unwrap_or_default();
        self.engine
            .networks()
            .connect(&ns, &request.network, &request.container, attachment)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::ConnectNetworkResponse {}))
    }

    async fn disconnect(
        &self,
        request: Request<v1::DisconnectNetworkRequest>,
    ) -> Result<Response<v1::DisconnectNetworkResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        self.engine
            .networks()
            .disconnect(&ns, &request.network, &request.container, request.force)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::DisconnectNetworkResponse {}))
    }

    async fn prune(
        &self,
        request: Request<v1::PruneNetworksRequest>,
    ) -> Result<Response<v1::PruneResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let filters = from_filters(request.filters);
        let pruned = self
            .engine
            .networks()
            .prune(&ns, &filters, request.dry_run)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::PruneResponse {
            removed: pruned.removed,
            space_reclaimed: pruned.space_reclaimed,
        }))
    }
}
