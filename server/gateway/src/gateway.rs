//! The way to davitd: one connection for short calls, one more for each long
//! or bulky stream.

use std::{path::PathBuf, sync::Arc};

use davit_client::{Client, ConnectError};

/// What a gateway needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// davitd's davit.v1 socket.
    pub backend: PathBuf,
    /// davit.v1 namespace that all calls go to.
    pub namespace: String,
}

impl Config {
    /// A gateway to the davitd at `backend`, in the default namespace.
    pub fn new(backend: impl Into<PathBuf>) -> Self {
        Self {
            backend: backend.into(),
            namespace: davit_proto::DEFAULT_NAMESPACE.into(),
        }
    }
}

impl From<PathBuf> for Config {
    fn from(backend: PathBuf) -> Self {
        Self::new(backend)
    }
}

/// Handle that every request gets; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Gateway(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    calls: Client,
}

impl Gateway {
    pub(crate) fn new(config: Config) -> Result<Self, ConnectError> {
        let calls = Client::lazy(&config.backend).with_namespace(&config.namespace)?;
        Ok(Self(Arc::new(Inner { config, calls })))
    }

    /// For calls that are answered at once.
    pub(crate) fn calls(&self) -> Client {
        self.0.calls.clone()
    }

    /// For streams: a connection of their own. HTTP/2's window is shared by all
    /// streams of a connection, so a client that stops reading its `logs -f`
    /// would otherwise hold up everybody's calls.
    pub(crate) fn stream(&self) -> Client {
        Client::lazy(&self.0.config.backend)
            .with_namespace(&self.0.config.namespace)
            .unwrap_or_else(|_| self.0.calls.clone())
    }
}
