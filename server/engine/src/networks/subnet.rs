//! Subnets and addresses: which are free. Nothing is remembered here; what is
//! taken is told by the caller, who derives it from what lives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{Error, Kind, Result};

/// Addresses that are tried before a subnet counts as full: IPv6 subnets have
/// no end.
const TRIES: u128 = 1 << 17;

/// Where subnets come from when nobody gives one, docker's pools.
pub(crate) fn default_pools() -> Vec<(Ipv4Net, u8)> {
    let mut pools = Vec::new();
    for second in 17..=31 {
        pools.push((
            Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 0), 16),
            16,
        ));
    }
    pools.push((Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16), 20));
    pools
}

/// Whether two subnets have an address in common.
pub(crate) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The first subnet of the pools that overlaps with nothing that is taken.
///
/// # Errors
/// `ResourceExhausted` in docker's words when all are taken.
pub(crate) fn pick(pools: &[(Ipv4Net, u8)], taken: &[IpNet]) -> Result<Ipv4Net> {
    for (pool, length) in pools {
        let Ok(subnets) = pool.subnets(*length) else {
            continue;
        };
        for subnet in subnets {
            let candidate = IpNet::V4(subnet);
            if !taken.iter().any(|other| overlap(&candidate, other)) {
                return Ok(subnet);
            }
        }
    }
    Err(Error::new(
        Kind::ResourceExhausted,
        "all predefined address pools have been fully subnetted: remove networks that are not used, \
         give a subnet, or configure networks.pools",
    ))
}

/// A unique local IPv6 subnet for a network, made from its id (RFC 4193).
pub(crate) fn local_v6(id: &str) -> Ipv6Net {
    let mut bytes = [0_u8; 16];
    bytes[0] = 0xfd;
    for (at, byte) in bytes.iter_mut().enumerate().take(8).skip(1) {
        let digits = id.get(at * 2..at * 2 + 2).unwrap_or("00");
        *byte = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    Ipv6Net::new_assert(Ipv6Addr::from(bytes), 64)
}

/// The `n`th address of a subnet, if it has so many.
pub(crate) fn nth(subnet: &IpNet, n: u128) -> Option<IpAddr> {
    let address = match subnet {
        IpNet::V4(net) => {
            let number = u32::from(net.network()).checked_add(u32::try_from(n).ok()?)?;
            IpAddr::V4(number.into())
        }
        IpNet::V6(net) => IpAddr::V6(u128::from(net.network()).checked_add(n)?.into()),
    };
    subnet.contains(&address).then_some(address)
}

/// Whether a container can have an address of this subnet: not the subnet's
/// own, nor its broadcast address.
pub(crate) fn is_usable(subnet: &IpNet, address: IpAddr) -> bool {
    let last = match subnet {
        IpNet::V4(net) => net.prefix_len() < 31 && address == IpAddr::V4(net.broadcast()),
        IpNet::V6(_) => false,
    };
    subnet.contains(&address) && address != subnet.network() && !last
}

/// The next free address after `last`, going round. Addresses are not given
/// again at once: neighbours still know the old owner's.
pub(crate) fn next_address(
    subnet: &IpNet,
    range: &IpNet,
    last: Option<IpAddr>,
    taken: impl Fn(IpAddr) -> bool,
) -> Result<IpAddr> {
    let size = 1_u128
        .checked_shl(u32::from(range.max_prefix_len() - range.prefix_len()))
        .unwrap_or(u128::MAX);
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let start = last
        .filter(|last| range.contains(last))
        .map_or(0, |last| number(last) - number(range.network()) + 1);
    for step in 0..size.min(TRIES) {
        let offset = (start % size + step) % size;
        if let Some(address) = nth(range, offset)
            && is_usable(subnet, address)
            && !taken(address)
        {
            return Ok(address);
        }
    }
    Err(Error::new(
        Kind::ResourceExhausted,
        format!("no available IPv4 addresses on this network's address pools: {subnet} is full"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn pools_are_docker_s_and_what_is_taken_is_passed_over() {
        let pools = default_pools();
        assert_eq!(pick(&pools, &[]).unwrap().to_string(), "172.17.0.0/16");
        let taken = [net("172.16.0.0/12"), net("192.168.0.0/18")];
        assert_eq!(pick(&pools, &taken).unwrap().to_string(), "192.168.64.0/20");
        let error = pick(&pools, &[net("0.0.0.0/0")]).unwrap_err();
        assert!(error.to_string().contains("fully subnetted"));
    }

    #[test]
    fn addresses_go_round_and_skip_network_and_broadcast() {
        let subnet = net("10.0.0.0/29");
        let next = |last: Option<&str>, taken: &[&str]| {
            let last = last.map(|text| text.parse().unwrap());
            next_address(&subnet, &subnet, last, |a| {
                taken.contains(&a.to_string().as_str())
            })
            .map(|address| address.to_string())
        };
        assert_eq!(next(None, &[]).unwrap(), "10.0.0.1");
        assert_eq!(next(Some("10.0.0.1"), &[]).unwrap(), "10.0.0.2");
        assert_eq!(next(Some("10.0.0.6"), &["10.0.0.1"]).unwrap(), "10.0.0.2");
        let all: Vec<String> = (1..7).map(|n| format!("10.0.0.{n}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(
            next(None, &all).unwrap_err().kind(),
            Kind::ResourceExhausted
        );
    }

    #[test]
    fn a_range_bounds_the_addresses_and_ipv6_has_no_end() {
        let (subnet, range) = (net("10.1.0.0/16"), net("10.1.7.0/30"));
        let first = next_address(&subnet, &range, None, |_| false).unwrap();
        assert_eq!(first.to_string(), "10.1.7.0");
        let six = IpNet::V6(local_v6(&"0123456789abcdef".repeat(4)));
        assert!(
            six.to_string().starts_with("fd23:4567:89ab:cdef::/64"),
            "{six}"
        );
        let first = next_address(&six, &six, None, |_| false).unwrap();
        assert_eq!(Some(first), nth(&six, 1));
    }
}
