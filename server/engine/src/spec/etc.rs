//! /etc/hostname, /etc/hosts and /etc/resolv.conf: generated beside the
//! container's record and bound into it.

use std::{
    fs,
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use davit_store::{Error, Result, options::ContainerOptions};

use super::NetworkMode;

const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// Name servers when the host's are all on its loopback, which a container
/// with a network of its own does not reach; docker's choice.
const PUBLIC_SERVERS: &[&str] = &["8.8.8.8", "8.8.4.4"];

/// Where the host keeps its own.
const HOST_HOSTS: &str = "/etc/hosts";
const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

/// What the network gives to the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// The container's own addresses, for its lines in hosts.
    pub addresses: Vec<IpAddr>,
    /// Names are answered at 127.0.0.11, which asks the name servers that the
    /// options give.
    pub resolver: bool,
    /// An address of the host, "host-gateway" in extra hosts.
    pub host: Option<IpAddr>,
}

/// The name server of containers that are found by name.
const OWN_SERVER: &str = "127.0.0.11";

/// The generated files. A path that is `None` is not mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcFiles {
    /// Bound on /etc/hostname.
    pub hostname: Option<PathBuf>,
    /// Bound on /etc/hosts.
    pub hosts: Option<PathBuf>,
    /// Bound on /etc/resolv.conf.
    pub resolv_conf: Option<PathBuf>,
}

impl EtcFiles {
    /// The files of a container whose directory is `dir`.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            hostname: Some(dir.join("hostname")),
            hosts: Some(dir.join("hosts")),
            resolv_conf: Some(dir.join("resolv.conf")),
        }
    }

    pub(super) fn mounts(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let list = [
            ("/etc/resolv.conf", &self.resolv_conf),
            ("/etc/hostname", &self.hostname),
            ("/etc/hosts", &self.hosts),
        ];
        list.into_iter()
            .filter_map(|(target, path)| Some((target, path.as_deref()?)))
    }
}

/// Writes the files of one container into `dir`, which must exist, replacing
/// older ones.
/// With `network_mode` "container:…" the engine gives the other's files to
/// [`Start`](super::Start) instead.
///
/// # Errors
/// `InvalidArgument` for host lines and name servers that are none.
pub fn write(
    dir: &Path,
    hostname: &str,
    options: &ContainerOptions,
    network: &NetworkMode,
    connection: &Connection,
) -> Result<EtcFiles> {
    let files = EtcFiles::in_dir(dir);
    let contents = [
        (&files.hostname, format!("{hostname}\n")),
        (&files.hosts, hosts(hostname, options, network, connection)?),
        (
            &files.resolv_conf,
            resolv_conf(options, network, connection.resolver)?,
        ),
    ];
    for (path, text) in contents {
        if let Some(path) = path {
            put(path, text.as_bytes())
                .map_err(|error| Error::io(format!("writing {}", path.display()), error))?;
        }
    }
    Ok(files)
}

/// Checks, at Create, what [`write`] reads.
pub(super) fn check(options: &ContainerOptions) -> Result<()> {
    for line in &options.extra_hosts {
        extra_host(line)?;
    }
    for server in &options.dns {
        server
            .parse::<IpAddr>()
            .map_err(|_| Error::invalid(format!("{server} is not an ip address")))?;
    }
    let words = options.dns_search.iter().chain(&options.dns_options);
    match words
        .into_iter()
        .find(|word| word.chars().any(|c| c.is_whitespace() || c.is_control()))
    {
        Some(word) => Err(Error::invalid(format!(
            "invalid DNS setting {word:?}: it contains white space"
        ))),
        None => Ok(()),
    }
}

/// In place: a file that is bound into a running container must stay the same
/// inode to be seen there.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    // A link in the place of the file is not followed: directories of
    // containers are root's, but a bug elsewhere must not write to the host.
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .mode(0o644)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

fn hosts(
    hostname: &str,
    options: &ContainerOptions,
    network: &NetworkMode,
    connection: &Connection,
) -> Result<String> {
    let mut text = match network {
        NetworkMode::Host => {
            fs::read_to_string(HOST_HOSTS).unwrap_or_else(|_| LOCAL_HOSTS.to_owned())
        }
        NetworkMode::None | NetworkMode::Named(_) | NetworkMode::Container(_) => {
            LOCAL_HOSTS.to_owned()
        }
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for line in &options.extra_hosts {
        let (name, address) = extra_host(line)?;
        let address = address.or(connection.host).ok_or_else(|| {
            Error::invalid(
                "unable to derive the IP value for host-gateway: the container has no network that leads to the host",
            )
        })?;
        text.push_str(&format!("{address}\t{name}\n"));
    }
    let names = if options.domainname.is_empty() {
        hostname.to_owned()
    } else {
        format!("{hostname}.{} {hostname}", options.domainname)
    };
    for address in &connection.addresses {
        text.push_str(&format!("{address}\t{names}\n"));
    }
    Ok(text)
}

/// "host:address" or "host=address"; an IPv6 address may stand in brackets.
/// None for "host-gateway".
fn extra_host(line: &str) -> Result<(&str, Option<IpAddr>)> {
    let bad = || Error::invalid(format!("bad format for add-host: {line:?}"));
    let (name, text) = line
        .split_once('=')
        .or_else(|| line.split_once(':'))
        .ok_or_else(bad)?;
    if name.is_empty()
        || name
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '#')
    {
        return Err(bad());
    }
    if text == "host-gateway" {
        return Ok((name, None));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse()
        .map_err(|_| Error::invalid(format!("invalid IP address in add-host: {text:?}")))?;
    Ok((name, Some(address)))
}

fn resolv_conf(
    options: &ContainerOptions,
    network: &NetworkMode,
    own_server: bool,
) -> Result<String> {
    check(options)?;
    let host = fs::read_to_string(HOST_RESOLV_CONF).unwrap_or_default();
    if !own_server {
        return Ok(resolver(&host, options, network));
    }
    // Our server asks those that the options give.
    let mut options = options.clone();
    options.dns = vec![OWN_SERVER.to_owned()];
    let mut text = resolver(&host, &options, network);
    if options.dns_options.is_empty() && !text.contains("\noptions ") {
        // Names without a dot are names of containers.
        text.push_str("options ndots:0\n");
    }
    Ok(text)
}

/// The host's settings with the container's in their place.
fn resolver(host: &str, options: &ContainerOptions, network: &NetworkMode) -> String {
    let unchanged =
        options.dns.is_empty() && options.dns_search.is_empty() && options.dns_options.is_empty();
    if unchanged && *network == NetworkMode::Host {
        return host.to_owned();
    }
    let of_host = |word: &str| -> Vec<String> {
        let lines = host
            .lines()
            .filter_map(|line| line.split_once(char::is_whitespace))
            .filter(|(first, _)| *first == word);
        let values: Vec<String> = lines.map(|(_, rest)| rest.trim().to_owned()).collect();
        values
    };
    let mut servers = options.dns.clone();
    if servers.is_empty() {
        servers = of_host("nameserver");
        if *network != NetworkMode::Host {
            servers.retain(|server| !is_loopback(server));
            if servers.is_empty() {
                servers = PUBLIC_SERVERS
                    .iter()
                    .map(|&server| server.to_owned())
                    .collect();
            }
        }
    }
    let words = |own: &[String], word: &str| match own {
        [] => of_host(word).last().cloned().unwrap_or_default(),
        _ => own.join(" "),
    };
    let mut text: String = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    // "." as search domain means none.
    let search = words(&options.dns_search, "search");
    for (word, values) in [
        ("search", search.as_str()),
        ("options", &words(&options.dns_options, "options")),
    ] {
        if !values.is_empty() && values != "." {
            text.push_str(&format!("{word} {values}\n"));
        }
    }
    text
}

fn is_loopback(server: &str) -> bool {
    let address = server.split('%').next().unwrap_or_default();
    address
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> NetworkMode {
        NetworkMode::None
    }

    #[test]
    fn files_are_written_and_replaced_in_place() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let options = ContainerOptions {
            extra_hosts: vec!["db:10.0.0.7".into(), "six=[::2]".into()],
            ..Default::default()
        };
        let address = Connection {
            addresses: vec!["10.1.2.3".parse().unwrap()],
            ..Default::default()
        };
        let files = write(
            dir.path(),
            "name-that-is-longer",
            &options,
            &none(),
            &address,
        )
        .unwrap();
        let hosts = fs::read_to_string(files.hosts.as_ref().unwrap()).unwrap();
        assert!(hosts.starts_with(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\t"
        ));
        assert!(hosts.ends_with("10.0.0.7\tdb\n::2\tsix\n10.1.2.3\tname-that-is-longer\n"));
        let hostname = files.hostname.unwrap();
        let inode = fs::metadata(&hostname).unwrap().ino();
        write(dir.path(), "h", &options, &none(), &Connection::default()).unwrap();
        assert_eq!(fs::read_to_string(&hostname).unwrap(), "h\n");
        assert_eq!(fs::metadata(&hostname).unwrap().ino(), inode);
    }

    #[test]
    fn resolvers() {
        let host = "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch a b\noptions edns0\n";
        let plain = ContainerOptions::default();
        assert_eq!(resolver(host, &plain, &NetworkMode::Host), host);
        assert_eq!(
            resolver(host, &plain, &none()),
            "nameserver 10.0.0.1\nsearch a b\noptions edns0\n"
        );
        assert_eq!(
            resolver("nameserver ::1\n", &plain, &none()),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
        let own = ContainerOptions {
            dns: vec!["1.1.1.1".into()],
            dns_search: vec![".".into()],
            dns_options: vec!["ndots:1".into()],
            ..Default::default()
        };
        assert_eq!(
            resolver(host, &own, &NetworkMode::Host),
            "nameserver 1.1.1.1\noptions ndots:1\n"
        );
    }

    #[test]
    fn refusals_in_dockers_words() {
        let text = |change: fn(&mut ContainerOptions)| {
            let mut options = ContainerOptions::default();
            change(&mut options);
            check(&options).unwrap_err().to_string()
        };
        assert_eq!(
            text(|o| o.extra_hosts = vec!["x".into()]),
            "bad format for add-host: \"x\""
        );
        assert_eq!(
            text(|o| o.extra_hosts = vec!["x:y".into()]),
            "invalid IP address in add-host: \"y\""
        );
        assert!(text(|o| o.extra_hosts = vec!["a\nb:1.1.1.1".into()]).starts_with("bad format"));
        assert_eq!(text(|o| o.dns = vec!["x".into()]), "x is not an ip address");
        assert!(
            text(|o| o.dns_search = vec!["a\nnameserver 6.6.6.6".into()]).contains("white space")
        );
    }
}
