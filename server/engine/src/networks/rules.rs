//! The rules: published ports, masquerading, and who may talk to whom. The
//! whole table is written from what lives now; there is no list of rules that
//! could disagree with it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::nft::{Chain, Hook, Rule};

/// A bridge that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) subnets: Vec<IpNet>,
    pub(crate) internal: bool,
    /// Containers may talk to each other.
    pub(crate) talk: bool,
    /// What leaves takes the host's address.
    pub(crate) masquerade: bool,
}

/// A port of the host and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) protocol: u8,
    pub(crate) host_ip: IpAddr,
    pub(crate) host_port: u16,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// Everything that the rules depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) bridges: Vec<Bridge>,
    pub(crate) forwards: Vec<Forward>,
}

const PORTS: &str = "ports";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0));

/// The chains of davit's table.
pub(crate) fn chains(picture: &Picture) -> Vec<Chain> {
    let to_ports = || vec![Rule::new().for_the_host().jump(PORTS)];
    vec![
        Chain {
            name: PORTS,
            hook: None,
            rules: ports(picture),
        },
        Chain {
            name: "raw",
            hook: Some(Hook::RAW),
            rules: raw(picture),
        },
        Chain {
            name: "prerouting",
            hook: Some(Hook::PREROUTING),
            rules: to_ports(),
        },
        Chain {
            name: "output",
            hook: Some(Hook::OUTPUT),
            rules: to_ports(),
        },
        Chain {
            name: "postrouting",
            hook: Some(Hook::POSTROUTING),
            rules: postrouting(picture),
        },
        Chain {
            name: "forward",
            hook: Some(Hook::FORWARD),
            rules: forward(picture),
        },
    ]
}

fn ports(picture: &Picture) -> Vec<Rule> {
    let rule = |forward: &Forward| {
        let whole = if forward.host_ip.is_ipv4() { 32 } else { 128 };
        let rule = if forward.host_ip.is_unspecified() {
            Rule::new().of_family(forward.host_ip)
        } else {
            Rule::new().to(forward.host_ip, whole)
        };
        rule.port(forward.protocol, forward.host_port)
            .redirect(forward.address, forward.port)
    };
    picture.forwards.iter().map(rule).collect()
}

/// The bridges route loopback addresses, for the host's own use of published
/// ports; containers must not reach the host's loopback that way.
fn raw(picture: &Picture) -> Vec<Rule> {
    let rule = |bridge: &Bridge| Rule::new().input(&bridge.name).to(LOOPBACK, 8).drop();
    picture.bridges.iter().map(rule).collect()
}

fn postrouting(picture: &Picture) -> Vec<Rule> {
    let mut rules = Vec::new();
    for bridge in &picture.bridges {
        // The host's loopback, and a container that calls its own network's
        // published port, must get their answers by way of the host.
        rules.push(
            Rule::new()
                .output(&bridge.name)
                .from(LOOPBACK, 8)
                .masquerade(),
        );
        for subnet in &bridge.subnets {
            let from = || Rule::new().from(subnet.network(), subnet.prefix_len());
            rules.push(from().output(&bridge.name).published().masquerade());
            if bridge.masquerade && !bridge.internal {
                rules.push(from().not_output(&bridge.name).masquerade());
            }
        }
    }
    rules
}

fn forward(picture: &Picture) -> Vec<Rule> {
    let mut rules = vec![];
    for bridge in &picture.bridges {
        // Within a bridge: seen here when the host filters bridged packets.
        let within = Rule::new().input(&bridge.name).output(&bridge.name);
        if bridge.talk {
            rules.push(within.accept());
        } else {
            // Published ports are for everybody.
            rules.push(within.clone().established().accept());
            rules.push(within.clone().published().accept());
            rules.push(within.drop());
        }
    }
    for bridge in picture.bridges.iter().filter(|bridge| bridge.internal) {
        rules.push(Rule::new().input(&bridge.name).drop());
        rules.push(Rule::new().output(&bridge.name).drop());
    }
    for bridge in &picture.bridges {
        rules.push(Rule::new().output(&bridge.name).established().accept());
        rules.push(Rule::new().output(&bridge.name).published().accept());
    }
    // Whatever else goes to a container is neither an answer nor to a
    // published port: from another bridge, or from another host.
    for bridge in &picture.bridges {
        rules.push(Rule::new().output(&bridge.name).drop());
    }
    rules
}
