//! Networks: bridges of the host, the namespaces of containers, and what
//! leads from one to the other.
//!
//! Who has which address and port is derived from the containers that run
//! ([`Sandbox`], kept in memory and in each run's bundle); there is no other
//! list. What a start makes is recorded in the bundle first, so that a crash
//! leaves nothing that the next daemon does not find.

mod attach;
mod calls;
mod connect;
mod create;
mod dns;
mod link;
mod names;
mod namespace;
mod network;
mod nft;
mod peers;
mod port;
mod reconcile;
mod rules;
mod sandbox;
mod state;
mod subnet;
mod writer;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use davit_store::Store;
use ipnet::Ipv4Net;

use crate::{Result, config::NetworkConfig};

pub(crate) use attach::Attachment;
pub use calls::Networks;
pub(crate) use subnet::default_pools;

use dns::Server;
use link::Links;
use state::Known;
use writer::Writer;

/// The networks of one daemon.
#[derive(Debug)]
pub(crate) struct Net {
    store: Store,
    state_dir: PathBuf,
    /// Begins the names of all that is this daemon's on the host.
    tag: String,
    default_bridge: String,
    default_subnet: Option<Ipv4Net>,
    pools: Vec<(Ipv4Net, u8)>,
    links: Links,
    known: Arc<Mutex<Known>>,
    rules: Writer,
    servers: Mutex<HashMap<String, Server>>,
    peers: Arc<tokio::sync::Notify>,
}

impl Net {
    /// Reads the configuration and the stored networks. Nothing is made on
    /// the host before a container needs it. Needs a tokio runtime.
    pub(crate) fn new(
        config: &NetworkConfig,
        root: &Path,
        state: &Path,
        store: Store,
    ) -> Result<Self> {
        let default_root = root == Path::new(crate::config::DEFAULT_ROOT);
        let tag = tag(root);
        let table = if default_root {
            "davit".to_owned()
        } else {
            format!("davit-{}", tag.get(1..).unwrap_or(&tag))
        };
        let default_bridge = match config.bridge.as_str() {
            "" if default_root => "davit0".to_owned(),
            "" => format!("{tag}0"),
            name => name.to_owned(),
        };
        network::check_link_name(&default_bridge)?;
        let known = Arc::new(Mutex::new(Known::default()));
        let net = Self {
            rules: Writer::start(table, Arc::clone(&known)),
            links: Links::here()?,
            store,
            state_dir: state.to_owned(),
            tag,
            default_bridge,
            default_subnet: config.default_subnet()?,
            pools: config.parsed_pools()?,
            known,
            servers: Mutex::default(),
            peers: Arc::default(),
        };
        net.load()?;
        Ok(net)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Changes under the lock are whole before the next one begins.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<String, Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// "d" and six hex digits that differ from root directory to root directory,
/// so that several daemons share a host. FNV-1a: it must never change.
fn tag(root: &Path) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in root.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("d{:06x}", hash & 0xff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_differ_and_stay() {
        assert_eq!(
            tag(Path::new("/var/lib/davit")),
            tag(Path::new("/var/lib/davit"))
        );
        assert_ne!(tag(Path::new("/a")), tag(Path::new("/b")));
        assert_eq!(tag(Path::new("/a")).len(), 7);
    }
}
