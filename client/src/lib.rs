//! davit's Rust SDK: a connection to a davitd socket and the davit.v1 services
//! on it, with the namespace set on every call.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use davit_client::{Client, v1};
//!
//! let client = Client::connect("/run/davit/davit.sock").await?;
//! let version = client.system().version(v1::VersionRequest {}).await?.into_inner();
//! println!("davitd {}", version.version);
//! # Ok(())
//! # }
//! ```

pub mod docker;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use davit_proto::v1;
use davit_proto::{DEFAULT_NAMESPACE, NAMESPACE_KEY};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};
use v1::{
    containers_client::ContainersClient, events_client::EventsClient, images_client::ImagesClient,
    networks_client::NetworksClient, system_client::SystemClient, tasks_client::TasksClient,
    volumes_client::VolumesClient,
};

/// Where davitd listens unless it is told otherwise.
pub const DEFAULT_ADDRESS: &str = "/run/davit/davit.sock";

/// Largest message that is sent or received, in bytes; also containerd's bound.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A channel whose calls carry the namespace.
pub type NamespacedChannel = InterceptedService<Channel, Namespace>;

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket can't be reached.
    #[error("cannot connect to davitd at {}: {source}; is the daemon running?", address.display())]
    Unreachable {
        /// The socket.
        address: PathBuf,
        /// What the system or the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The namespace can't be sent as metadata.
    #[error("namespace {0:?} has characters that are not allowed")]
    Namespace(String),
}

/// Sets the namespace on each request.
#[derive(Debug, Clone)]
pub struct Namespace(MetadataValue<Ascii>);

impl Interceptor for Namespace {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(NAMESPACE_KEY, self.0.clone());
        Ok(request)
    }
}

/// A connection to one davitd. Cloning is cheap and shares the connection.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    namespace: Namespace,
}

impl Client {
    /// Connects to the daemon's socket; calls go to the namespace "default".
    pub async fn connect(address: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let address = address.as_ref();
        let unreachable = |source| ConnectError::Unreachable {
            address: address.into(),
            source,
        };
        // A plain connect first: its error names the system's reason, which
        // the transport would wrap twice.
        UnixStream::connect(address)
            .await
            .map_err(|error| unreachable(error.into()))?;
        let channel = endpoint()
            .connect_with_connector(connector(address))
            .await
            .map_err(|error| unreachable(error.into()))?;
        Ok(Self::over(channel))
    }

    /// Makes a client that connects with its first call and again after the
    /// daemon was restarted.
    pub fn lazy(address: impl AsRef<Path>) -> Self {
        Self::over(endpoint().connect_with_connector_lazy(connector(address.as_ref())))
    }

    /// The same connection, in another namespace.
    pub fn with_namespace(&self, namespace: &str) -> Result<Self, ConnectError> {
        let value = namespace
            .parse()
            .map_err(|_| ConnectError::Namespace(namespace.into()))?;
        Ok(Self {
            channel: self.channel.clone(),
            namespace: Namespace(value),
        })
    }

    /// The service `Images`.
    pub fn images(&self) -> ImagesClient<NamespacedChannel> {
        ImagesClient::with_interceptor(self.channel.clone(), self.namespace.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The service `Containers`.
    pub fn containers(&self) -> ContainersClient<NamespacedChannel> {
        ContainersClient::with_interceptor(self.channel.clone(), self.namespace.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The service `Tasks`.
    pub fn tasks(&self) -> TasksClient<NamespacedChannel> {
        TasksClient::with_interceptor(self.channel.clone(), self.namespace.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The service `Events`.
    pub fn events(&self) -> EventsClient<NamespacedChannel> {
        EventsClient::with_interceptor(self.channel.clone(), self.namespace.clone())
    }

    /// The service `Networks`.
    pub fn networks(&self) -> NetworksClient<NamespacedChannel> {
        NetworksClient::with_interceptor(self.channel.clone(), self.namespace.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The service `System`.
    pub fn system(&self) -> SystemClient<NamespacedChannel> {
        SystemClient::with_interceptor(self.channel.clone(), self.namespace.clone())
    }

    /// The service `Volumes`.
    pub fn volumes(&self) -> VolumesClient<NamespacedChannel> {
        VolumesClient::with_interceptor(self.channel.clone(), self.namespace.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn over(channel: Channel) -> Self {
        Self {
            channel,
            namespace: Namespace(MetadataValue::from_static(DEFAULT_NAMESPACE)),
        }
    }
}

/// The authority is never looked up: the connector goes to the socket.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://davit.local")
        // Bulk streams (attach, cp, export) are slow with HTTP/2's 64 KiB.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}

fn connector(
    address: &Path,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<UnixStream>,
    Error = io::Error,
    Future = impl Future<Output = io::Result<TokioIo<UnixStream>>> + Send,
> + Clone
+ Send
+ 'static {
    let address = address.to_owned();
    tower::service_fn(move |_: Uri| {
        let address = address.clone();
        async move { UnixStream::connect(address).await.map(TokioIo::new) }
    })
}
