//! The door of davit's own API, davit.v1: each call is unpacked, handed to the
//! engine, and its answer wrapped.

mod containers;
mod convert;
mod events;
mod images;
mod namespace;
mod networks;
mod status;
mod system;
mod tasks;
mod volumes;

use davit_engine::Engine;
use davit_images::Images;
use davit_proto::v1::{
    containers_server::ContainersServer, events_server::EventsServer, images_server::ImagesServer,
    networks_server::NetworksServer, system_server::SystemServer, tasks_server::TasksServer,
    volumes_server::VolumesServer,
};
use davit_store::Store;
use tonic::service::RoutesBuilder;

pub(crate) use system::Facts;

/// Largest message that is taken or given, in bytes; also containerd's bound.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct Native {
    pub(crate) engine: Engine,
    pub(crate) images: Images,
    pub(crate) store: Store,
    pub(crate) facts: std::sync::Arc<Facts>,
}

impl Native {
    /// Adds davit.v1's services to the routes.
    pub(crate) fn add_to(self, routes: &mut RoutesBuilder) {
        routes
            .add_service(
                ImagesServer::new(self.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                ContainersServer::new(self.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                TasksServer::new(self.clone())
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(EventsServer::new(self.clone()))
            .add_service(NetworksServer::new(self.clone()))
            .add_service(VolumesServer::new(self.clone()))
            .add_service(SystemServer::new(self));
    }
}
