//! HTTP clients, one for each way of trusting and being trusted.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use davit_store::{Error, Result};
use reqwest::{Certificate, Client, Identity, redirect::Policy};

use super::hosts::{Tls, is_loopback};

/// How long a connection may take to come up.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// Clients kept; a changed certificate file makes a new one.
const MAX_CLIENTS: usize = 64;

#[derive(PartialEq, Eq, Hash, Clone)]
struct Key {
    tls: Tls,
    dial_timeout: Duration,
    /// Proxies of the environment do not lead to this machine.
    direct: bool,
    /// Plain HTTP must work on a machine without any certificates.
    plain: bool,
    changed: Vec<Option<SystemTime>>,
}

/// The clients, made as they are needed.
#[derive(Default)]
pub(super) struct Clients(Mutex<HashMap<Key, Client>>);

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    /// The client for a host. `InvalidArgument` when a certificate file can't
    /// be used.
    pub(super) fn get(
        &self,
        authority: &str,
        plain: bool,
        tls: &Tls,
        dial_timeout: Option<Duration>,
    ) -> Result<Client> {
        let tls = if plain { Tls::default() } else { tls.clone() };
        let key = Key {
            changed: times(&tls),
            tls,
            dial_timeout: dial_timeout.unwrap_or(DIAL_TIMEOUT),
            direct: is_loopback(authority),
            plain,
        };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build(&key)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

fn times(tls: &Tls) -> Vec<Option<SystemTime>> {
    let client = tls
        .client
        .iter()
        .flat_map(|(certificate, key)| std::iter::once(certificate).chain(key.iter()));
    let changed =
        |path: &std::path::PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    tls.ca.iter().chain(client).map(changed).collect()
}

fn build(key: &Key) -> Result<Client> {
    // Another part of the process may have chosen a provider first; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("davit/", env!("CARGO_PKG_VERSION")))
        // Followed by hand: credentials, headers and certificates belong to one host.
        .redirect(Policy::none())
        .connect_timeout(key.dial_timeout)
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_keepalive(Duration::from_secs(30))
        // Many layers at once over one HTTP/2 connection need room in flight.
        .http2_initial_stream_window_size(4 << 20)
        .http2_initial_connection_window_size(16 << 20);
    if key.direct {
        builder = builder.no_proxy();
    }
    if key.plain {
        builder = builder.tls_certs_only([]);
    }
    for file in &key.tls.ca {
        let bundle = Certificate::from_pem_bundle(&read(file)?).map_err(|error| {
            Error::invalid(format!("{} holds no PEM certificates", file.display()))
                .with_source(error)
        })?;
        builder = builder.tls_certs_merge(bundle);
    }
    for (certificate, private) in &key.tls.client {
        let mut pem = read(certificate)?;
        if let Some(private) = private {
            pem.push(b'\n');
            pem.extend(read(private)?);
        }
        let identity = Identity::from_pem(&pem).map_err(|error| {
            Error::invalid(format!(
                "{}: no client certificate with its key",
                certificate.display()
            ))
            .with_source(error)
        })?;
        builder = builder.identity(identity);
    }
    if key.tls.skip_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    builder.build().map_err(|error| {
        Error::internal("can't set up TLS (are CA certificates installed?)").with_source(error)
    })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|error| Error::io(format!("can't read {}", file.display()), error))
}
