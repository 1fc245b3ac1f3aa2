//! The flags of `run` and `create` about networks and ports.

use std::collections::HashMap;

use clap::Args;
use davit_client::v1;

/// docker's flags for where a container is connected.
#[derive(Debug, Args)]
pub(crate) struct NetworkFlags {
    /// Connect a container to a network
    #[arg(long = "network", visible_alias = "net", value_name = "NETWORK")]
    networks: Vec<String>,
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long)]
    ip: Option<String>,
    /// IPv6 address (e.g., 2001:db8::33)
    #[arg(long)]
    ip6: Option<String>,
    /// Add network-scoped alias for the container
    #[arg(long, visible_alias = "net-alias")]
    network_alias: Vec<String>,
    /// Add link to another container
    #[arg(long)]
    pub(crate) link: Vec<String>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long)]
    pub(crate) mac_address: Option<String>,
    /// Publish a container's port(s) to the host
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/PROTOCOL]")]
    publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Expose a port or a range of ports
    #[arg(long)]
    expose: Vec<String>,
}

impl NetworkFlags {
    /// The first network is the one that the container is made for.
    pub(crate) fn mode(&self) -> String {
        self.networks
            .first()
            .map(|text| split(text).0)
            .unwrap_or_default()
    }

    /// Settings by network.
    pub(crate) fn attachments(&self) -> Result<HashMap<String, v1::NetworkAttachment>, String> {
        let mut all = HashMap::new();
        for text in &self.networks {
            let (name, settings) = split(text);
            all.insert(name, advanced(&settings)?);
        }
        let first = v1::NetworkAttachment {
            aliases: self.network_alias.clone(),
            ipv4_address: self.ip.clone().unwrap_or_default(),
            ipv6_address: self.ip6.clone().unwrap_or_default(),
            ..Default::default()
        };
        if first != v1::NetworkAttachment::default() {
            let mode = self.mode();
            let name = if mode.is_empty() {
                "default".to_owned()
            } else {
                mode
            };
            let entry = all.entry(name).or_default();
            entry.aliases.extend(first.aliases);
            for (to, from) in [
                (&mut entry.ipv4_address, first.ipv4_address),
                (&mut entry.ipv6_address, first.ipv6_address),
            ] {
                if !from.is_empty() {
                    *to = from;
                }
            }
        }
        all.retain(|_, settings| {
            self.networks.len() > 1 || *settings != v1::NetworkAttachment::default()
        });
        Ok(all)
    }

    /// What is published.
    pub(crate) fn ports(&self) -> Result<Vec<v1::PortBinding>, String> {
        let mut all = Vec::new();
        for text in &self.publish {
            all.extend(published(text)?);
        }
        Ok(all)
    }

    /// What is exposed: published ports are, too.
    pub(crate) fn exposed(&self) -> Result<Vec<String>, String> {
        let mut all = Vec::new();
        for text in &self.expose {
            let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let (first, last) =
                range(ports).ok_or_else(|| format!("invalid range format for --expose: {text}"))?;
            all.extend((first..=last).map(|port| format!("{port}/{protocol}")));
        }
        all.extend(
            self.ports()?
                .iter()
                .map(|port| format!("{}/{}", port.container_port, port.protocol)),
        );
        all.sort();
        all.dedup();
        Ok(all)
    }
}

/// "name=net,alias=a,ip=…" or a plain name.
fn split(text: &str) -> (String, String) {
    if !text.contains('=') {
        return (text.to_owned(), String::new());
    }
    let name = text
        .split(',')
        .find_map(|field| field.trim().strip_prefix("name="));
    (name.unwrap_or_default().to_owned(), text.to_owned())
}

fn advanced(text: &str) -> Result<v1::NetworkAttachment, String> {
    let mut settings = v1::NetworkAttachment::default();
    for field in text
        .split(',')
        .map(str::trim)
        .filter(|field| !field.is_empty())
    {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid key/value pair format in network option: {field}"))?;
        let value = value.to_owned();
        match key {
            "name" => {}
            "alias" => settings.aliases.push(value),
            "ip" => settings.ipv4_address = value,
            "ip6" => settings.ipv6_address = value,
            "mac-address" => settings.mac_address = value,
            "link-local-ip" => settings.link_local_ips.push(value),
            "driver-opt" => settings.driver_opts.extend([crate::options::pair(&value)]),
            "gw-priority" => {
                settings.gw_priority = value
                    .parse()
                    .map_err(|_| format!("invalid gw-priority ({value})"))?;
            }
            _ => return Err(format!("invalid key {key} in network option")),
        }
    }
    Ok(settings)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then_some((first, last))
}

/// One `-p`: "[[ip:][host]:]container[/protocol]", each a port or a range.
fn published(text: &str) -> Result<Vec<v1::PortBinding>, String> {
    let invalid = |what: &str| format!("invalid {what}: {text}");
    let (addresses, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let (rest, container) = match addresses.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, addresses),
    };
    let (ip, host) = match rest {
        None => ("", ""),
        Some(rest) => match rest.rsplit_once(':') {
            Some((ip, host)) if !rest.ends_with(']') => (ip, host),
            _ => ("", rest),
        },
    };
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    let (first, last) = range(container).ok_or_else(|| invalid("containerPort"))?;
    let host_range = match host {
        "" | "0" => None,
        _ => Some(range(host).ok_or_else(|| invalid("hostPort"))?),
    };
    let count = last - first;
    (first..=last)
        .map(|port| {
            let host_port = match host_range {
                None => String::new(),
                // One port may be had from a range.
                Some((low, high)) if count == 0 && high > low => format!("{low}-{high}"),
                Some((low, high)) if high - low == count => (low + (port - first)).to_string(),
                Some(_) => {
                    return Err(format!(
                        "invalid ranges specified for container and host Ports: {container} and {host}"
                    ));
                }
            };
            Ok(v1::PortBinding {
                container_port: port.into(),
                protocol: protocol.to_lowercase(),
                host_ip: ip.to_owned(),
                host_port,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ports: &str) -> String {
        let all = published(ports).unwrap();
        let one = |port: &v1::PortBinding| {
            format!(
                "{}|{}|{}|{}",
                port.host_ip, port.host_port, port.container_port, port.protocol
            )
        };
        all.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ports_are_read_as_docker_does() {
        assert_eq!(text("80"), "||80|tcp");
        assert_eq!(text("8080:80/udp"), "|8080|80|udp");
        assert_eq!(text("127.0.0.1:8080:80"), "127.0.0.1|8080|80|tcp");
        assert_eq!(text("127.0.0.1::80"), "127.0.0.1||80|tcp");
        assert_eq!(text("[::1]:8080:80"), "::1|8080|80|tcp");
        assert_eq!(text("8000-8001:80-81"), "|8000|80|tcp |8001|81|tcp");
        assert_eq!(text("8000-8010:80"), "|8000-8010|80|tcp");
        for bad in ["", "x", "0", "1:x", "99999", "1-3:4-5", "9-8"] {
            assert!(published(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_have_settings() {
        assert_eq!(split("host").0, "host");
        let (name, settings) = split("name=n,alias=a,ip=1.2.3.4");
        assert_eq!(name, "n");
        assert_eq!(advanced(&settings).unwrap().ipv4_address, "1.2.3.4");
        assert!(advanced("name=n,what=1").is_err());
    }
}
