//! Published ports: which are wanted, and which are free. Taken are those of
//! the containers that run, and those that a program of the host has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use davit_store::options::{ContainerOptions, PortBinding};

use super::sandbox::{Protocol, Published};
use crate::{Error, Result};

/// One port of a container, with what it may be on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) container_port: u16,
    pub(crate) protocol: Protocol,
    /// None for all addresses.
    pub(crate) host_ip: Option<IpAddr>,
    /// Any port of these will do; None for any at all.
    pub(crate) host_ports: Option<(u16, u16)>,
}

/// What the options want published. `exposed` are the ports of image and
/// options that `-P` publishes.
///
/// # Errors
/// `InvalidArgument` in docker's words for what is no port.
pub(crate) fn wanted(options: &ContainerOptions, exposed: &[String]) -> Result<Vec<Wanted>> {
    let mut all = Vec::new();
    for binding in &options.ports {
        all.push(one(binding)?);
    }
    if options.publish_all_ports {
        for text in exposed {
            for (container_port, protocol) in exposed_ports(text)? {
                let published = all.iter().any(|wanted: &Wanted| {
                    wanted.container_port == container_port && wanted.protocol == protocol
                });
                if !published {
                    all.push(Wanted {
                        container_port,
                        protocol,
                        host_ip: None,
                        host_ports: None,
                    });
                }
            }
        }
    }
    Ok(all)
}

fn one(binding: &PortBinding) -> Result<Wanted> {
    let protocol = Protocol::parse(&binding.protocol)
        .ok_or_else(|| Error::invalid(format!("invalid proto: {}", binding.protocol)))?;
    let container_port = u16::try_from(binding.container_port)
        .ok()
        .filter(|&port| port != 0)
        .ok_or_else(|| {
            Error::invalid(format!("invalid containerPort: {}", binding.container_port))
        })?;
    let host_ip = match binding.host_ip.as_str() {
        "" => None,
        text => {
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            let address = bare
                .parse::<IpAddr>()
                .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?;
            Some(address)
        }
    };
    let host_ports = match binding.host_port.as_str() {
        "" | "0" => None,
        text => {
            Some(range(text).ok_or_else(|| Error::invalid(format!("invalid hostPort: {text}")))?)
        }
    };
    Ok(Wanted {
        container_port,
        protocol,
        host_ip,
        host_ports,
    })
}

/// "80" or "80-90".
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first != 0 && first <= last).then_some((first, last))
}

/// "80", "80/udp" or "80-90/tcp".
pub(crate) fn exposed_ports(text: &str) -> Result<Vec<(u16, Protocol)>> {
    let bad = || {
        Error::invalid(format!(
            "invalid exposed port {text:?}: use PORT or PORT/PROTOCOL"
        ))
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, ""));
    let protocol = Protocol::parse(protocol).ok_or_else(bad)?;
    let (first, last) = range(ports).ok_or_else(bad)?;
    Ok((first..=last).map(|port| (port, protocol)).collect())
}

/// Whether both cannot be had at once.
pub(crate) fn clash(one: &Published, other: &Published) -> bool {
    let any = |address: IpAddr| address.is_unspecified();
    one.protocol == other.protocol
        && one.host_port == other.host_port
        && one.host_ip.is_ipv4() == other.host_ip.is_ipv4()
        && (one.host_ip == other.host_ip || any(one.host_ip) || any(other.host_ip))
}

/// The addresses that a wanted port is published on.
fn addresses(wanted: &Wanted, ipv6: bool) -> Vec<IpAddr> {
    match wanted.host_ip {
        Some(address) => vec![address],
        None if ipv6 => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        None => vec![Ipv4Addr::UNSPECIFIED.into()],
    }
}

/// Ports that the host gives out by itself; ephemeral ones come from there.
const EPHEMERAL: (u16, u16) = (32768, 60999);

/// Picks ports for all that is wanted. `taken` are those of other containers,
/// `start` is where the search for an ephemeral port begins, `free` asks the
/// host.
///
/// # Errors
/// `Conflict` with docker's sentence and who has it.
pub(crate) fn allocate<'a>(
    wanted: &[Wanted],
    ipv6: bool,
    taken: impl Fn(&Published) -> Option<&'a str>,
    mut start: u16,
    free: impl Fn(&Published) -> bool,
) -> Result<Vec<Published>, Taken> {
    let mut picked: Vec<Published> = Vec::new();
    for want in wanted {
        let (first, last) = want.host_ports.unwrap_or(EPHEMERAL);
        let count = u32::from(last - first) + 1;
        let offset = match want.host_ports {
            Some(_) => 0,
            None => u32::from(start.saturating_sub(first)) % count,
        };
        let mut refusal = None;
        let found = (0..count).find_map(|step| {
            let port = first + u16::try_from((offset + step) % count).unwrap_or(0);
            let set: Vec<Published> = addresses(want, ipv6)
                .into_iter()
                .map(|host_ip| Published {
                    container_port: want.container_port,
                    protocol: want.protocol,
                    host_ip,
                    host_port: port,
                })
                .collect();
            let holder = set.iter().find_map(|one| {
                if let Some(holder) = taken(one) {
                    return Some((one.clone(), holder.to_owned()));
                }
                (picked.iter().any(|other| clash(one, other)) || !free(one))
                    .then(|| (one.clone(), String::new()))
            });
            match holder {
                None => Some(set),
                Some(holder) => {
                    refusal.get_or_insert(holder);
                    None
                }
            }
        });
        match (found, refusal) {
            (Some(set), _) => {
                if want.host_ports.is_none() {
                    start = set
                        .first()
                        .map_or(start, |one| one.host_port.saturating_add(1));
                }
                picked.extend(set);
            }
            (None, Some((port, holder))) => return Err(Taken { port, holder }),
            (None, None) => {}
        }
    }
    Ok(picked)
}

/// A port that somebody else has.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) port: Published,
    /// The container; empty for a program of the host.
    pub(crate) holder: String,
}

impl Taken {
    /// docker's sentence, and who has the port.
    pub(crate) fn error(&self, name: &str, endpoint: &str) -> Error {
        let address = std::net::SocketAddr::new(self.port.host_ip, self.port.host_port);
        let reason = if self.holder.is_empty() {
            format!(
                "failed to bind host port for {address}/{}: address already in use",
                self.port.protocol.as_str()
            )
        } else {
            format!(
                "Bind for {address} failed: port is already allocated (container {} has it)",
                self.holder
            )
        };
        Error::new(
            crate::Kind::Conflict,
            format!(
                "driver failed programming external connectivity on endpoint {name} ({endpoint}): {reason}"
            ),
        )
    }
}

/// Whether no program of the host has the port. SCTP is not asked for.
pub(crate) fn is_free(port: &Published) -> bool {
    let address = (port.host_ip, port.host_port);
    let taken = |error: std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
    match port.protocol {
        Protocol::Tcp => !TcpListener::bind(address).is_err_and(taken),
        Protocol::Udp => !UdpSocket::bind(address).is_err_and(taken),
        Protocol::Sctp => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(container_port: u32, protocol: &str, host_ip: &str, host_port: &str) -> PortBinding {
        PortBinding {
            container_port,
            protocol: protocol.to_owned(),
            host_ip: host_ip.to_owned(),
            host_port: host_port.to_owned(),
        }
    }

    fn options(ports: Vec<PortBinding>) -> ContainerOptions {
        ContainerOptions {
            ports,
            ..Default::default()
        }
    }

    #[test]
    fn bindings_are_read() {
        let list = wanted(
            &options(vec![binding(80, "", "127.0.0.1", "8080-8090")]),
            &[],
        )
        .unwrap();
        assert_eq!(list[0].host_ports, Some((8080, 8090)));
        assert_eq!(list[0].protocol, Protocol::Tcp);
        for bad in [
            binding(0, "", "", ""),
            binding(70000, "", "", ""),
            binding(80, "icmp", "", ""),
            binding(80, "", "nowhere", ""),
            binding(80, "", "", "9-8"),
            binding(80, "", "", "x"),
        ] {
            assert_eq!(
                wanted(&options(vec![bad]), &[]).unwrap_err().kind(),
                crate::Kind::InvalidArgument
            );
        }
    }

    #[test]
    fn all_exposed_ports_are_published_only_when_asked_for() {
        let exposed = ["80/tcp".to_owned(), "53/udp".to_owned(), "7-8".to_owned()];
        let mut options = options(vec![binding(80, "tcp", "", "80")]);
        assert_eq!(wanted(&options, &exposed).unwrap().len(), 1);
        options.publish_all_ports = true;
        assert_eq!(wanted(&options, &exposed).unwrap().len(), 4);
    }

    #[test]
    fn a_port_is_had_once() {
        let one = |port: &str| wanted(&options(vec![binding(80, "", "", port)]), &[]).unwrap();
        let free = |_: &Published| true;
        let first = allocate(&one("8080"), false, |_| None, 0, free).unwrap();
        assert_eq!(first[0].host_port, 8080);
        let held = first[0].clone();
        let taken = |port: &Published| clash(port, &held).then_some("web");
        let refusal = allocate(&one("8080"), false, taken, 0, free)
            .unwrap_err()
            .error("b", "e");
        assert_eq!(
            refusal.to_string(),
            "driver failed programming external connectivity on endpoint b (e): Bind for 0.0.0.0:8080 failed: \
             port is already allocated (container web has it)"
        );
        assert_eq!(
            allocate(&one("8080-8082"), false, taken, 0, free).unwrap()[0].host_port,
            8081
        );
        assert_eq!(
            allocate(&one(""), false, taken, 40000, free).unwrap()[0].host_port,
            40000
        );
        let two = [one("8080"), one("8080")].concat();
        assert!(allocate(&two, false, |_| None, 0, free).is_err());
    }

    #[test]
    fn one_address_and_all_addresses_clash() {
        let port = |ip: &str| Published {
            container_port: 1,
            protocol: Protocol::Udp,
            host_ip: ip.parse().unwrap(),
            host_port: 5,
        };
        assert!(clash(&port("0.0.0.0"), &port("127.0.0.1")));
        assert!(!clash(&port("127.0.0.2"), &port("127.0.0.1")));
        assert!(!clash(&port("0.0.0.0"), &port("::")));
    }
}
