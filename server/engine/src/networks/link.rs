//! Links, addresses and routes, over netlink in one network namespace.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    path::Path,
};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_core::ErrorMessage,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{InfoData, InfoVeth, LinkAttribute},
        route::{RouteAddress, RouteAttribute},
    },
};
use tokio::task::JoinHandle;

use super::namespace;
use crate::{Error, Kind, Result};

/// The loopback interface is the first of each namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// A connection to the kernel for one namespace.
#[derive(Debug)]
pub(crate) struct Links {
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A pair of interfaces: one on a bridge, the other in a container.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) outer: &'a str,
    pub(crate) inner: &'a str,
    pub(crate) bridge: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: Option<u32>,
}

impl Links {
    /// Of the thread's namespace. Needs a tokio runtime.
    pub(crate) fn here() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| Error::io("cannot open a netlink socket", error))?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// Of the namespace at `path`. Blocks for a moment.
    pub(crate) fn within(path: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        namespace::enter(path, || {
            let _inside = runtime.enter();
            Self::here()
        })
    }

    /// The index of a link; None when there is none of this name.
    pub(crate) async fn index(&self, name: &str) -> Result<Option<u32>> {
        let mut found = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        match found.try_next().await {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if errno(&error) == Some(libc_errno::ENODEV) => Ok(None),
            Err(error) => Err(failed(format!("cannot look for the link {name}"), error)),
        }
    }

    /// Names of all links.
    pub(crate) async fn names(&self) -> Result<Vec<String>> {
        let links: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("cannot list the links".to_owned(), error))?;
        Ok(links
            .into_iter()
            .flat_map(|link| link.attributes)
            .filter_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
            .collect())
    }

    /// Every network that the host has a route to (the default one apart).
    pub(crate) async fn routes(&self) -> Result<Vec<IpNet>> {
        let routes: Vec<_> = self
            .handle
            .route()
            .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("cannot list the routes".to_owned(), error))?;
        let nets = routes.into_iter().filter_map(|route| {
            let length = route.header.destination_prefix_length;
            route
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) if length > 0 => {
                        IpNet::new(IpAddr::V4(*address), length).ok()
                    }
                    _ => None,
                })
        });
        Ok(nets.collect())
    }

    /// Makes a bridge that is up; one that is there is taken as it is.
    pub(crate) async fn bridge(&self, name: &str, mtu: Option<u32>) -> Result<u32> {
        if let Some(index) = self.index(name).await? {
            return Ok(index);
        }
        let mut message = LinkBridge::new(name);
        if let Some(mtu) = mtu {
            message = message.mtu(mtu);
        }
        match self.handle.link().add(message.build()).execute().await {
            Ok(()) => {}
            Err(error) if errno(&error) == Some(libc_errno::EEXIST) => {}
            Err(error) => return Err(failed(format!("cannot make the bridge {name}"), error)),
        }
        self.index(name).await?.ok_or_else(|| {
            Error::internal(format!("the bridge {name} is gone as soon as it was made"))
        })
    }

    /// Gives an interface an address; one that it has is fine.
    pub(crate) async fn address(&self, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
        let mut request = self.handle.address().add(index, address, prefix);
        if address.is_ipv6() {
            // Nobody else can have it: it is given out here.
            let message = request.message_mut();
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match request.execute().await {
            Err(error) if errno(&error) != Some(libc_errno::EEXIST) => Err(failed(
                format!("cannot give the address {address}/{prefix} to an interface"),
                error,
            )),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The way to everything else.
    pub(crate) async fn default_route(&self, gateway: IpAddr) -> Result<()> {
        let message = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                .gateway(gateway)
                .build(),
        };
        match self.handle.route().add(message).execute().await {
            Err(error) if errno(&error) != Some(libc_errno::EEXIST) => {
                Err(failed(format!("cannot make {gateway} the gateway"), error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Sets an interface up.
    pub(crate) async fn set_up(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|error| failed(format!("cannot set the interface {index} up"), error))
    }

    /// Makes a pair of interfaces in one call: the outer one here, up and on
    /// the bridge; the inner one in `namespace`, down, since the kernel cannot
    /// set it up before the other one is there.
    pub(crate) async fn pair(&self, pair: &Pair<'_>, namespace: &File) -> Result<()> {
        let mut inner = LinkUnspec::new_with_name(pair.inner)
            .address(pair.mac.to_vec())
            .setns_by_fd(namespace.as_raw_fd());
        let mut outer = LinkVeth::new(pair.outer, pair.inner)
            .controller(pair.bridge)
            .up();
        if let Some(mtu) = pair.mtu {
            inner = inner.mtu(mtu);
            outer = outer.mtu(mtu);
        }
        let message = outer
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner.build())))
            .build();
        self.handle
            .link()
            .add(message)
            .execute()
            .await
            .map_err(|error| failed(format!("cannot make the interface {}", pair.outer), error))
    }

    /// Deletes a link; one that is not there is fine.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        let Some(index) = self.index(name).await? else {
            return Ok(());
        };
        match self.handle.link().del(index).execute().await {
            Err(error) if errno(&error) != Some(libc_errno::ENODEV) => {
                Err(failed(format!("cannot delete the link {name}"), error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Errors that are answers.
mod libc_errno {
    pub(super) const EEXIST: i32 = 17;
    pub(super) const ENODEV: i32 = 19;
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(ErrorMessage {
            code: Some(code), ..
        }) => Some(-code.get()),
        _ => None,
    }
}

fn failed(what: String, error: rtnetlink::Error) -> Error {
    match errno(&error) {
        Some(number) => Error::io(what, std::io::Error::from_raw_os_error(number)),
        None => Error::new(Kind::Internal, what).with_source(error),
    }
}
