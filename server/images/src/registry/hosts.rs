//! Which hosts stand for a registry: containerd's `certs.d` folders with
//! their `hosts.toml`, docker's folders of certificates, and the defaults.
//!
//! ```text
//! certs.d/docker.io/hosts.toml
//! certs.d/registry.example:5000/ca.crt      (docker's form)
//! certs.d/_default/hosts.toml
//! ```
//!
//! The files are read for every operation, so a change counts at once.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use davit_store::{Error, Result};
use http::{HeaderName, HeaderValue};
use url::{Host as UrlHost, Url};

use super::hosts_file;
use crate::reference::DEFAULT_DOMAIN;

/// Where docker.io's registry really is.
const DOCKER_REGISTRY: &str = "registry-1.docker.io";
/// No honest `hosts.toml` is larger, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// How to speak to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// TLS.
    Https,
    /// Plain HTTP.
    Http,
    /// Whichever of the two answers: loopback and insecure registries.
    Either,
}

/// Trust and identity for TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// PEM files of authorities to trust beside the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// PEM file of our certificate, and of its key when that is apart.
    pub(crate) client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Take any certificate.
    pub(crate) skip_verify: bool,
}

/// One host that serves a registry's repositories.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) scheme: Scheme,
    /// "host" or "host:port".
    pub(crate) authority: String,
    /// Path before the repository's name, "/v2".
    pub(crate) path: String,
    pub(crate) pull: bool,
    pub(crate) resolve: bool,
    pub(crate) push: bool,
    pub(crate) tls: Tls,
    /// Sent with every request to this host, and to no other.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) dial_timeout: Option<Duration>,
    /// It is the registry that the references name, so that credentials given
    /// for the reference belong to it.
    pub(crate) upstream: bool,
}

/// The hosts for the registry `domain`, in the order to try them.
pub(crate) fn hosts_for(domain: &str, roots: &[PathBuf], insecure: &[String]) -> Result<Vec<Host>> {
    let default = default_host(domain, insecure);
    for dir in roots.iter().flat_map(|root| candidates(root, domain)) {
        if !dir.is_dir() {
            continue;
        }
        let file = dir.join("hosts.toml");
        return match read_bounded(&file)? {
            Some(text) => hosts_file::parse(&text, &dir, default)
                .map_err(|error| error.context(format!("{}", file.display()))),
            None => {
                let tls = docker_certificates(&dir)?;
                if tls == Tls::default() {
                    return Ok(vec![default]);
                }
                // Certificates are given to be used.
                let scheme = Scheme::Https;
                Ok(vec![Host {
                    tls,
                    scheme,
                    ..default
                }])
            }
        };
    }
    Ok(vec![default])
}

/// The host that `domain` itself names.
pub(crate) fn upstream_authority(domain: &str) -> &str {
    if domain == DEFAULT_DOMAIN {
        DOCKER_REGISTRY
    } else {
        domain
    }
}

fn default_host(domain: &str, insecure: &[String]) -> Host {
    let authority = upstream_authority(domain).to_owned();
    let name = authority
        .rsplit_once(':')
        .map_or(authority.as_str(), |(name, _)| name);
    let listed = insecure
        .iter()
        .any(|entry| *entry == authority || entry == name);
    let relaxed = is_loopback(&authority) || listed;
    Host {
        scheme: if relaxed {
            Scheme::Either
        } else {
            Scheme::Https
        },
        authority,
        path: "/v2".to_owned(),
        pull: true,
        resolve: true,
        push: true,
        tls: Tls {
            skip_verify: relaxed,
            ..Tls::default()
        },
        headers: Vec::new(),
        dial_timeout: None,
        upstream: true,
    }
}

/// Whether an authority is this machine: "localhost", 127.0.0.0/8, [::1].
pub(crate) fn is_loopback(authority: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{authority}/")) else {
        return false;
    };
    match url.host() {
        Some(UrlHost::Domain(name)) => name == "localhost",
        Some(UrlHost::Ipv4(address)) => address.is_loopback(),
        Some(UrlHost::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn candidates(root: &Path, domain: &str) -> [PathBuf; 3] {
    let underscored = match domain.rsplit_once(':') {
        Some((host, port)) => format!("{host}_{port}_"),
        None => domain.to_owned(),
    };
    [
        root.join(underscored),
        root.join(domain),
        root.join("_default"),
    ]
}

fn read_bounded(file: &Path) -> Result<Option<String>> {
    let failed = |error| Error::io(format!("can't read {}", file.display()), error);
    match fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(meta) if meta.len() > MAX_FILE => {
            return Err(Error::invalid(format!(
                "{} is larger than 1 MiB",
                file.display()
            )));
        }
        Ok(_) => {}
    }
    fs::read_to_string(file).map(Some).map_err(failed)
}

/// docker's form: `*.crt` are authorities, `*.cert` with `*.key` are ours.
fn docker_certificates(dir: &Path) -> Result<Tls> {
    let failed = |error| Error::io(format!("can't list {}", dir.display()), error);
    let mut tls = Tls::default();
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    files.sort();
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.ca.push(file),
            Some("cert") => {
                let key = file.with_extension("key");
                if !key.exists() {
                    return Err(Error::invalid(format!(
                        "missing key {} for client certificate {}; note that CA certificates should use the extension .crt",
                        key.display(),
                        file.display()
                    )));
                }
                tls.client.push((file, Some(key)));
            }
            _ => {}
        }
    }
    Ok(tls)
}

/// Headers that must not show in logs.
pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let refused = || Error::invalid(format!("header {name:?}: no valid name or value"));
    let header: HeaderName = name.parse().map_err(|_| refused())?;
    let mut value: HeaderValue = value.parse().map_err(|_| refused())?;
    value.set_sensitive(true);
    Ok((header, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(domain: &str) -> Host {
        hosts_for(domain, &[], &[]).unwrap().remove(0)
    }

    #[test]
    fn only_loopback_may_be_plain_without_being_told() {
        for domain in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert_eq!(one(domain).scheme, Scheme::Either, "{domain}");
        }
        for domain in [
            "docker.io",
            "localhost.evil.com",
            "10.0.0.1:5000",
            "[2001:db8::1]:5000",
        ] {
            assert_eq!(one(domain).scheme, Scheme::Https, "{domain}");
            assert!(!one(domain).tls.skip_verify);
        }
        assert_eq!(one("docker.io").authority, "registry-1.docker.io");
        let listed = hosts_for("10.0.0.1:5000", &[], &["10.0.0.1:5000".to_owned()]).unwrap();
        assert_eq!(listed[0].scheme, Scheme::Either);
    }

    #[test]
    fn hosts_come_in_the_order_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("docker.io");
        fs::create_dir(&folder).unwrap();
        fs::write(
            folder.join("hosts.toml"),
            r#"
server = "https://registry-1.docker.io"
ca = "root.pem"

[host."http://z.example:5000"]
  capabilities = ["pull"]
  dial_timeout = "3s"
  [host."http://z.example:5000".header]
    x-a = "1"
    x-b = ["2", "3"]

[host."https://a.example/v2/proxy"]
  override_path = true
  skip_verify = true
  client = [["a.cert", "a.key"], ["b.pem"]]

[host."m.example/hub"]
  capabilities = ["pull", "resolve"]
"#,
        )
        .unwrap();
        let hosts = hosts_for("docker.io", &[dir.path().to_owned()], &[]).unwrap();
        let names: Vec<_> = hosts.iter().map(|host| host.authority.as_str()).collect();
        assert_eq!(
            names,
            [
                "z.example:5000",
                "a.example",
                "m.example",
                "registry-1.docker.io"
            ]
        );
        assert_eq!(hosts[0].scheme, Scheme::Http);
        assert!(hosts[0].pull && !hosts[0].resolve && !hosts[0].push);
        assert_eq!(hosts[0].dial_timeout, Some(Duration::from_secs(3)));
        assert_eq!(hosts[0].headers.len(), 3);
        assert_eq!(hosts[1].path, "/v2/proxy");
        assert!(hosts[1].tls.skip_verify);
        assert_eq!(hosts[1].tls.client.len(), 2);
        assert_eq!(hosts[1].tls.client[0].1, Some(folder.join("a.key")));
        assert_eq!(hosts[2].path, "/hub/v2");
        assert!(hosts[3].upstream && !hosts[2].upstream);
        assert_eq!(hosts[3].tls.ca, [folder.join("root.pem")]);
    }

    #[test]
    fn folders_are_found_by_host_port_and_default() {
        let dir = tempfile::tempdir().unwrap();
        let roots = [dir.path().to_owned()];
        let add = |name: &str, text: &str| {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("hosts.toml"), text).unwrap();
        };
        add("_default", "[host.\"https://any.example\"]");
        add("r.example:5000", "server = \"http://r.example:5000\"");
        add("bad.example", "server = 5");
        add("s.example_5000_", "");
        let names = |domain: &str| {
            let hosts = hosts_for(domain, &roots, &[]).unwrap();
            hosts
                .into_iter()
                .map(|host| host.authority)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("x.example"), ["any.example", "x.example"]);
        assert_eq!(names("r.example:5000"), ["r.example:5000"]);
        assert_eq!(names("s.example:5000"), ["s.example:5000"]);
        let error = hosts_for("bad.example", &roots, &[]).unwrap_err();
        assert!(error.to_string().contains("hosts.toml"), "{error}");
    }

    #[test]
    fn dockers_certificates_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("r.example:5000");
        fs::create_dir(&folder).unwrap();
        for name in ["ca.crt", "client.cert", "client.key"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let roots = [dir.path().to_owned()];
        let hosts = hosts_for("r.example:5000", &roots, &[]).unwrap();
        assert_eq!(hosts[0].tls.ca, [folder.join("ca.crt")]);
        assert_eq!(hosts[0].tls.client.len(), 1);
        fs::remove_file(folder.join("client.key")).unwrap();
        assert!(hosts_for("r.example:5000", &roots, &[]).is_err());
    }
}
