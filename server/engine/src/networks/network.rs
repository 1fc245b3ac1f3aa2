//! A network: its record, read and checked.

use std::{collections::BTreeMap, net::IpAddr};

use davit_store::table::{NetworkRecord, SubnetRecord};
use ipnet::IpNet;

use super::rules::Bridge;
use crate::{Error, Result};

/// Ids of the networks that every host has; clients keep them.
pub(crate) const HOST_ID: &str = "d0c4e5a1f7b2938c6d5e4f3021b0a9988776655443322110ffeeddccbbaa0001";
pub(crate) const NONE_ID: &str = "d0c4e5a1f7b2938c6d5e4f3021b0a9988776655443322110ffeeddccbbaa0002";

/// Name of the default network.
pub(crate) const DEFAULT: &str = "bridge";

const MTU: &str = "com.docker.network.driver.mtu";
pub(crate) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const TALK: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";

/// A network of this daemon.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// Empty for the default network, which all namespaces have.
    pub(crate) ns: String,
    pub(crate) record: NetworkRecord,
    /// IPv4 first.
    pub(crate) subnets: Vec<Subnet>,
}

#[derive(Debug, Clone)]
pub(crate) struct Subnet {
    pub(crate) net: IpNet,
    pub(crate) gateway: IpAddr,
    pub(crate) range: IpNet,
    pub(crate) auxiliary: Vec<IpAddr>,
    pub(crate) automatic: bool,
}

impl Network {
    /// Reads a record.
    ///
    /// # Errors
    /// `InvalidArgument` for subnets and options that cannot be.
    pub(crate) fn read(ns: &str, record: NetworkRecord) -> Result<Self> {
        let subnets = record
            .subnets
            .iter()
            .map(subnet)
            .collect::<Result<Vec<_>>>()?;
        check_link_name(&record.bridge)?;
        let network = Self {
            ns: ns.to_owned(),
            record,
            subnets,
        };
        network.mtu()?;
        for key in [TALK, MASQUERADE] {
            network.flag(key, true)?;
        }
        Ok(network)
    }

    pub(crate) fn is_default(&self) -> bool {
        self.ns.is_empty()
    }

    pub(crate) fn mtu(&self) -> Result<Option<u32>> {
        match self.record.options.get(MTU).map(String::as_str) {
            None | Some("" | "0") => Ok(None),
            Some(text) => text
                .parse()
                .ok()
                .filter(|mtu| (68..=65535).contains(mtu))
                .map(Some)
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "invalid value {text:?} for {MTU}: a number from 68 to 65535 is needed"
                    ))
                }),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.record.options.get(key).map(String::as_str) {
            None | Some("") => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(text) => Err(Error::invalid(format!(
                "invalid value {text:?} for {key}: true or false is needed"
            ))),
        }
    }

    /// For the rules.
    pub(crate) fn bridge(&self) -> Bridge {
        Bridge {
            name: self.record.bridge.clone(),
            subnets: self.subnets.iter().map(|subnet| subnet.net).collect(),
            internal: self.record.internal,
            talk: self.flag(TALK, true).unwrap_or(true),
            masquerade: self.flag(MASQUERADE, true).unwrap_or(true),
        }
    }
}

fn subnet(record: &SubnetRecord) -> Result<Subnet> {
    let bad = |what: &str, text: &str| Error::invalid(format!("invalid {what} {text:?}"));
    let given: IpNet = record
        .subnet
        .parse()
        .map_err(|_| bad("subnet", &record.subnet))?;
    let net = given.trunc();
    if net.addr().is_ipv4() && net.prefix_len() > 30 || net.prefix_len() > 126 {
        return Err(Error::invalid(format!(
            "invalid subnet {net}: it has no room for a gateway and a container"
        )));
    }
    let gateway = match record.gateway.as_str() {
        "" => super::subnet::nth(&net, 1).ok_or_else(|| bad("subnet", &record.subnet))?,
        text => text.parse().map_err(|_| bad("gateway", text))?,
    };
    if !super::subnet::is_usable(&net, gateway) {
        return Err(Error::invalid(format!(
            "no matching subnet for gateway {gateway}: it is not in {net}"
        )));
    }
    let range = match record.ip_range.as_str() {
        "" => net,
        text => text
            .parse::<IpNet>()
            .map_err(|_| bad("ip range", text))?
            .trunc(),
    };
    if !net.contains(&range) {
        return Err(Error::invalid(format!(
            "no matching subnet for range {range}: it is not in {net}"
        )));
    }
    let auxiliary = record
        .auxiliary
        .values()
        .map(|text| text.parse().map_err(|_| bad("auxiliary address", text)))
        .collect::<Result<_>>()?;
    Ok(Subnet {
        net,
        gateway,
        range,
        auxiliary,
        automatic: record.automatic,
    })
}

/// A record of a subnet that the daemon picked.
pub(crate) fn picked(net: IpNet) -> SubnetRecord {
    SubnetRecord {
        subnet: net.to_string(),
        gateway: super::subnet::nth(&net, 1)
            .map(|address| address.to_string())
            .unwrap_or_default(),
        automatic: true,
        auxiliary: BTreeMap::new(),
        ..Default::default()
    }
}

/// What the kernel takes as the name of a link.
pub(crate) fn check_link_name(name: &str) -> Result<()> {
    let odd = |byte: u8| !(byte.is_ascii_graphic()) || byte == b'/' || byte == b':' || byte == b'%';
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.bytes().any(odd) {
        return Err(Error::invalid(format!(
            "invalid name {name:?} for a bridge: 1 to 15 letters, digits, '-', '_' or '.' are needed"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(subnet: &str, gateway: &str, range: &str) -> NetworkRecord {
        NetworkRecord {
            bridge: "b".to_owned(),
            subnets: vec![SubnetRecord {
                subnet: subnet.to_owned(),
                gateway: gateway.to_owned(),
                ip_range: range.to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn subnets_are_read_and_checked() {
        let network = Network::read("n", record("10.1.2.3/24", "", "10.1.2.128/25")).unwrap();
        assert_eq!(network.subnets[0].net.to_string(), "10.1.2.0/24");
        assert_eq!(network.subnets[0].gateway.to_string(), "10.1.2.1");
        for (subnet, gateway, range) in [
            ("10.1.2.0/33", "", ""),
            ("x", "", ""),
            ("10.1.2.0/31", "", ""),
            ("10.1.2.0/24", "10.1.3.1", ""),
            ("10.1.2.0/24", "10.1.2.255", ""),
            ("10.1.2.0/24", "", "10.1.0.0/16"),
        ] {
            assert!(
                Network::read("n", record(subnet, gateway, range)).is_err(),
                "{subnet} {gateway} {range}"
            );
        }
    }

    #[test]
    fn options_are_checked() {
        let with = |key: &str, value: &str| {
            let mut record = record("10.1.2.0/24", "", "");
            record.options.insert(key.to_owned(), value.to_owned());
            Network::read("n", record)
        };
        assert_eq!(with(MTU, "1400").unwrap().mtu().unwrap(), Some(1400));
        assert!(with(MTU, "tiny").is_err());
        assert!(!with(TALK, "false").unwrap().bridge().talk);
        assert!(with(MASQUERADE, "perhaps").is_err());
        assert!(check_link_name("a/b").is_err());
        assert!(check_link_name("0123456789abcdef").is_err());
    }
}
