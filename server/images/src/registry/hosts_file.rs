//! The file `hosts.toml` (containerd, docs/hosts.md).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use davit_store::{Error, Result};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer, de};
use url::Url;

use super::hosts::{Host, Scheme, Tls, header};

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: InOrder,
    #[serde(flatten)]
    root: Table,
}

#[derive(Deserialize, Default)]
struct Table {
    #[serde(default)]
    capabilities: Vec<String>,
    ca: Option<OneOrMany>,
    client: Option<ClientForm>,
    skip_verify: Option<bool>,
    #[serde(default)]
    header: BTreeMap<String, OneOrMany>,
    #[serde(default)]
    override_path: bool,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ClientForm {
    File(String),
    List(Vec<OneOrMany>),
}

/// The `[host."…"]` tables in the order of the file.
#[derive(Default)]
struct InOrder(Vec<(String, Table)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = InOrder;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("tables of hosts")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut tables = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    tables.push(entry);
                }
                Ok(InOrder(tables))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// The hosts of a file that lies in `dir`, mirrors first and the server last.
pub(super) fn parse(text: &str, dir: &Path, default: Host) -> Result<Vec<Host>> {
    let file: File = toml::from_str(text).map_err(|error| {
        Error::invalid(format!("not a valid hosts.toml: {}", error.message())).with_source(error)
    })?;
    let mut hosts = Vec::new();
    for (server, table) in file.host.0 {
        hosts.push(host_from(&server, table, dir, &default.authority)?);
    }
    let server = file.server.filter(|server| !server.is_empty());
    hosts.push(match server {
        Some(server) => host_from(&server, file.root, dir, &default.authority)?,
        None => default_with(default, file.root, dir)?,
    });
    Ok(hosts)
}

/// The default server with what the root of the file says about it.
fn default_with(default: Host, table: Table, dir: &Path) -> Result<Host> {
    let skip_verify = table.skip_verify.unwrap_or(default.tls.skip_verify);
    let url = format!("https://{}", default.authority);
    let configured = host_from(&url, table, dir, &default.authority)?;
    Ok(Host {
        scheme: default.scheme,
        tls: Tls {
            skip_verify,
            ..configured.tls
        },
        ..configured
    })
}

fn host_from(server: &str, table: Table, dir: &Path, upstream: &str) -> Result<Host> {
    let refused = || {
        Error::invalid(format!(
            "{server:?} is no server: expected http(s)://host[:port][/path]"
        ))
    };
    let text = if server.contains("://") {
        server.to_owned()
    } else {
        format!("https://{server}")
    };
    let url = Url::parse(&text).map_err(|error| refused().with_source(error))?;
    let scheme = match url.scheme() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return Err(refused()),
    };
    let name = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(refused)?;
    let authority = match url.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    };
    let mut path = url.path().trim_end_matches('/').to_owned();
    if !table.override_path && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    let mut host = Host {
        upstream: authority == upstream,
        scheme,
        authority,
        path,
        pull: true,
        resolve: true,
        push: true,
        tls: Tls {
            ca: absolute(table.ca, dir),
            client: client_files(table.client, dir)?,
            skip_verify: table.skip_verify.unwrap_or(false),
        },
        headers: headers(table.header)?,
        dial_timeout: dial_timeout(table.dial_timeout.as_deref())?,
    };
    set_capabilities(&mut host, &table.capabilities)?;
    Ok(host)
}

fn set_capabilities(host: &mut Host, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    (host.pull, host.resolve, host.push) = (false, false, false);
    for name in names {
        match name.as_str() {
            "pull" => host.pull = true,
            "resolve" => host.resolve = true,
            "push" => host.push = true,
            // Known to containerd, without a use here.
            "referrers" => {}
            _ => return Err(Error::invalid(format!("unknown capability {name:?}"))),
        }
    }
    Ok(())
}

fn absolute(files: Option<OneOrMany>, dir: &Path) -> Vec<PathBuf> {
    let files = files.map(OneOrMany::into_vec).unwrap_or_default();
    files.into_iter().map(|file| dir.join(file)).collect()
}

fn client_files(form: Option<ClientForm>, dir: &Path) -> Result<Vec<(PathBuf, Option<PathBuf>)>> {
    let list = match form {
        None => return Ok(Vec::new()),
        Some(ClientForm::File(file)) => return Ok(vec![(dir.join(file), None)]),
        Some(ClientForm::List(list)) => list,
    };
    list.into_iter()
        .map(|entry| match entry.into_vec().as_slice() {
            [file] => Ok((dir.join(file), None)),
            [file, key] => Ok((dir.join(file), (!key.is_empty()).then(|| dir.join(key)))),
            _ => Err(Error::invalid(
                "client: expected [\"certificate\", \"key\"] pairs",
            )),
        })
        .collect()
}

fn headers(table: BTreeMap<String, OneOrMany>) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = Vec::new();
    for (name, values) in table {
        for value in values.into_vec() {
            headers.push(header(&name, &value)?);
        }
    }
    Ok(headers)
}

fn dial_timeout(text: Option<&str>) -> Result<Option<Duration>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let duration = humantime::parse_duration(text).map_err(|error| {
        Error::invalid(format!(
            "dial_timeout {text:?}: expected a duration like \"3s\""
        ))
        .with_source(error)
    })?;
    Ok(Some(duration))
}
