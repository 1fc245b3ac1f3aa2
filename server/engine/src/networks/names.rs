//! Who answers to a name, as seen from one container.

use std::net::IpAddr;

use super::state::Known;

/// The addresses of `name` on the networks of `container`; None when nobody
/// there is called so.
pub(crate) fn addresses(known: &Known, container: &str, name: &str) -> Option<Vec<IpAddr>> {
    let asker = known.sandboxes.get(container)?;
    let mut found = None;
    for own in &asker.endpoints {
        let Some(network) = known.networks.get(&own.network) else {
            continue;
        };
        if network.is_default() {
            continue;
        }
        // "web" and "web.mynet" are the same.
        let suffix = format!(".{}", network.record.name);
        let bare = name.strip_suffix(suffix.as_str()).unwrap_or(name);
        for (sandbox, endpoint) in known.on(&own.network) {
            let called =
                |names: Vec<String>| names.iter().any(|one| one.eq_ignore_ascii_case(bare));
            let linked = own.attachment.links.iter().any(|link| {
                link.split_once(':').is_some_and(|(container, alias)| {
                    alias.eq_ignore_ascii_case(bare)
                        && (container == sandbox.name || sandbox.container.starts_with(container))
                })
            });
            if linked || called(sandbox.names(endpoint)) {
                let addresses: &mut Vec<IpAddr> = found.get_or_insert_default();
                addresses.extend(endpoint.addresses.iter().map(ipnet::IpNet::addr));
            }
        }
    }
    found
}

/// The name of an address on the networks of `container`.
pub(crate) fn name(known: &Known, container: &str, address: IpAddr) -> Option<String> {
    let asker = known.sandboxes.get(container)?;
    asker.endpoints.iter().find_map(|own| {
        let network = known.networks.get(&own.network)?;
        let (sandbox, _) = known
            .on(&own.network)
            .find(|(_, endpoint)| endpoint.addresses.iter().any(|net| net.addr() == address))?;
        (!network.is_default()).then(|| format!("{}.{}", sandbox.name, network.record.name))
    })
}

/// Whether a container has a way out: not when it is on internal networks
/// only.
pub(crate) fn has_way_out(known: &Known, container: &str) -> bool {
    known.sandboxes.get(container).is_some_and(|sandbox| {
        sandbox
            .endpoints
            .iter()
            .any(|endpoint| !endpoint.gateways.is_empty())
    })
}
