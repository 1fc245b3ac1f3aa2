//! Registries: manifests and blobs over the OCI distribution protocol and
//! docker's v2 before it.
//!
//! ```text
//! hosts      which hosts serve a registry (hosts.toml, defaults)
//! exchange   one request to one host: credentials, redirects, tries
//! manifest   what a name points to
//! download   a blob, from where it broke off
//! upload     a blob, unless the registry has it
//! ```

mod answer;
mod challenge;
mod clients;
mod credentials;
mod download;
mod exchange;
mod hosts;
mod hosts_file;
mod login;
mod manifest;
mod token;
mod upload;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use davit_store::Result;

pub(crate) use download::Sink;
pub(crate) use upload::{OpenBlob, Sent};

use self::{
    clients::Clients,
    credentials::Credential,
    exchange::{Challenges, Link},
    hosts::Host,
    token::Tokens,
};
use crate::{Reference, image::RegistryAuth};

/// All registries. Cheap to clone; tokens and connections are shared.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    certs_d: Vec<PathBuf>,
    insecure: Vec<String>,
    docker_config: Option<PathBuf>,
    clients: Clients,
    tokens: Tokens,
    challenges: Challenges,
    schemes: Mutex<HashMap<String, &'static str>>,
}

impl Registry {
    /// Registries with the hosts and credentials that `config` names.
    pub fn new(config: &crate::ImagesConfig) -> Self {
        Self(Arc::new(Shared {
            certs_d: config.certs_d.clone(),
            insecure: config.insecure_registries.clone(),
            docker_config: config.docker_config.clone(),
            clients: Clients::default(),
            tokens: Tokens::default(),
            challenges: Mutex::default(),
            schemes: Mutex::default(),
        }))
    }

    /// One repository, for one operation. `InvalidArgument` when a
    /// `hosts.toml` can't be read.
    pub(crate) fn repository(
        &self,
        name: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Repository> {
        let hosts = hosts::hosts_for(name.domain(), &self.0.certs_d, &self.0.insecure)?;
        let given = auth
            .map(Credential::from)
            .filter(|given| *given != Credential::Anonymous);
        let link = |host: Host| Link {
            shared: self.0.clone(),
            // Credentials of the call belong to the registry that the
            // reference names; a mirror gets its own or none.
            given: given.clone().filter(|_| host.upstream),
            domain: name.domain().to_owned(),
            credential: tokio::sync::OnceCell::new(),
            host,
        };
        Ok(Repository {
            name: name.repository(),
            links: hosts.into_iter().map(link).collect(),
        })
    }
}

/// One repository in one registry, with all hosts that serve it.
pub(crate) struct Repository {
    name: Reference,
    links: Vec<Link>,
}

impl Repository {
    /// Its name, without tag and digest.
    pub(crate) fn name(&self) -> &Reference {
        &self.name
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/{rest}", self.name.path())
    }

    fn having(&self, can: impl Fn(&Host) -> bool) -> Vec<&Link> {
        self.links.iter().filter(|link| can(&link.host)).collect()
    }
}

/// How often a host is tried: others may be asked after a mirror.
fn tries(is_last: bool) -> u32 {
    if is_last { 5 } else { 2 }
}
