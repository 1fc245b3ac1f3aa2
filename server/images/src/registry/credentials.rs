//! Who we are at a host: credentials of the call, or of a docker
//! `config.json` with its credential helpers.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::Engine as _;
use davit_store::{Error, Kind, Result};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{image::RegistryAuth, reference::DEFAULT_DOMAIN};

/// How long a credential helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(20);
/// What a credential helper may say, in bytes.
const HELPER_OUTPUT: u64 = 1 << 20;
/// The key of docker hub in a `config.json`.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name that marks a secret as an identity token.
const TOKEN_USER: &str = "<token>";

/// What is shown to a host.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Credential {
    /// Nothing.
    Anonymous,
    /// User name and password.
    Password(String, String),
    /// OAuth2 refresh token.
    Identity(String),
    /// Bearer token that is sent as it is.
    Token(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stay out of logs.
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password(..) => "Password",
            Self::Identity(_) => "Identity",
            Self::Token(_) => "Token",
        })
    }
}

impl From<&RegistryAuth> for Credential {
    fn from(auth: &RegistryAuth) -> Self {
        if !auth.registry_token.is_empty() {
            return Self::Token(auth.registry_token.clone());
        }
        if !auth.identity_token.is_empty() {
            return Self::Identity(auth.identity_token.clone());
        }
        match (auth.username.as_str(), auth.password.as_str()) {
            ("", "") => Self::Anonymous,
            (TOKEN_USER, secret) => Self::Identity(secret.to_owned()),
            (user, password) => Self::Password(user.to_owned(), password.to_owned()),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerConfig {
    auths: HashMap<String, DockerAuth>,
    #[serde(rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerAuth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What `config` says about the host `authority` of the registry `domain`.
/// A file that is not there says nothing.
pub(crate) async fn from_docker_config(
    config: Option<&PathBuf>,
    domain: &str,
    authority: &str,
) -> Result<Credential> {
    let Some(file) = config else {
        return Ok(Credential::Anonymous);
    };
    let text = match tokio::fs::read(file).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Credential::Anonymous);
        }
        Err(error) => return Err(Error::io(format!("can't read {}", file.display()), error)),
    };
    let config: DockerConfig = serde_json::from_slice(&text).map_err(|error| {
        Error::invalid(format!("{} is no docker config.json", file.display())).with_source(error)
    })?;
    let keys = keys_for(domain, authority);
    let helper = keys.iter().find_map(|key| config.helpers.get(*key));
    if let Some(helper) = helper {
        return from_helper(helper, keys[0]).await;
    }
    if !config.store.is_empty() {
        let found = from_helper(&config.store, keys[0]).await?;
        if found != Credential::Anonymous {
            return Ok(found);
        }
    }
    from_auths(&config.auths, &keys, file)
}

/// The keys under which docker files a host, best first.
fn keys_for<'a>(domain: &'a str, authority: &'a str) -> Vec<&'a str> {
    if domain == DEFAULT_DOMAIN && authority == super::hosts::upstream_authority(domain) {
        return vec![HUB_KEY, "index.docker.io", DEFAULT_DOMAIN, authority];
    }
    vec![authority]
}

fn from_auths(
    auths: &HashMap<String, DockerAuth>,
    keys: &[&str],
    file: &Path,
) -> Result<Credential> {
    let exact = keys.iter().find_map(|key| auths.get(*key));
    let by_host = || {
        keys.iter()
            .find_map(|key| auths.iter().find(|(name, _)| host_of(name) == host_of(key)))
    };
    let Some(auth) = exact.or_else(|| by_host().map(|(_, auth)| auth)) else {
        return Ok(Credential::Anonymous);
    };
    let mut found = RegistryAuth {
        username: auth.username.clone(),
        password: auth.password.clone(),
        identity_token: auth.identitytoken.clone(),
        registry_token: auth.registrytoken.clone(),
    };
    if !auth.auth.is_empty() {
        let (user, password) = decode_auth(&auth.auth).ok_or_else(|| {
            Error::invalid(format!(
                "{}: \"auth\" of {} is no base64 of user:password",
                file.display(),
                keys[0]
            ))
        })?;
        (found.username, found.password) = (user, password);
    }
    Ok(Credential::from(&found))
}

fn decode_auth(text: &str) -> Option<(String, String)> {
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let bytes = engine.decode(text.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// The host in a key, which may be a URL of old.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks `docker-credential-<name>`. No credentials is an answer too.
async fn from_helper(name: &str, key: &str) -> Result<Credential> {
    if name.is_empty() || name.contains('/') {
        return Err(Error::invalid(format!(
            "{name:?} is no name of a credential helper"
        )));
    }
    let program = format!("docker-credential-{name}");
    let asked = tokio::time::timeout(HELPER_TIMEOUT, run_helper(&program, key)).await;
    let (success, output) = asked.map_err(|_| {
        Error::new(
            Kind::DeadlineExceeded,
            format!("{program} gave no answer in 20 s"),
        )
    })??;
    if !success {
        let said = String::from_utf8_lossy(&output);
        let said = said.trim();
        // The words are the helpers' protocol (docker-credential-helpers).
        if said.contains("credentials not found") || said.contains("no credentials server URL") {
            return Ok(Credential::Anonymous);
        }
        let said: String = said.chars().take(200).collect();
        return Err(Error::new(
            Kind::Unauthenticated,
            format!("{program} failed for {key}: {said}"),
        ));
    }
    let answer: HelperAnswer = serde_json::from_slice(&output).map_err(|error| {
        Error::new(Kind::Unauthenticated, format!("{program} answered no JSON")).with_source(error)
    })?;
    Ok(Credential::from(&RegistryAuth {
        username: answer.username,
        password: answer.secret,
        ..RegistryAuth::default()
    }))
}

async fn run_helper(program: &str, key: &str) -> Result<(bool, Vec<u8>)> {
    let failed = |error| Error::io(format!("can't run {program}"), error);
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read it says so by its answer.
        let _ = stdin.write_all(format!("{key}\n").as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(HELPER_OUTPUT)
            .read_to_end(&mut output)
            .await
            .map_err(failed)?;
    }
    let status = child.wait().await.map_err(failed)?;
    Ok((status.success(), output))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look(json: &str, domain: &str, authority: &str) -> Result<Credential> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, json).unwrap();
        from_docker_config(Some(&file), domain, authority).await
    }

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password(user.to_owned(), password.to_owned())
    }

    #[tokio::test]
    async fn a_host_gets_its_own_credentials_only() {
        let json = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"dTpw"},
            "r.example:5000":{"auth":"YTpi"},
            "https://old.example/v1/":{"username":"x","password":"y"},
            "t.example":{"auth":"PHRva2VuPjo=","identitytoken":"refresh"}}}"#;
        let hub = "registry-1.docker.io";
        assert_eq!(
            look(json, "docker.io", hub).await.unwrap(),
            password("u", "p")
        );
        assert_eq!(
            look(json, "docker.io", "mirror.example").await.unwrap(),
            Credential::Anonymous
        );
        assert_eq!(
            look(json, "docker.io", "r.example:5000").await.unwrap(),
            password("a", "b")
        );
        assert_eq!(
            look(json, "r.example", "r.example").await.unwrap(),
            Credential::Anonymous
        );
        assert_eq!(
            look(json, "old.example", "old.example").await.unwrap(),
            password("x", "y")
        );
        assert_eq!(
            look(json, "t.example", "t.example").await.unwrap(),
            Credential::Identity("refresh".to_owned())
        );
        assert_eq!(
            from_docker_config(None, "a", "a").await.unwrap(),
            Credential::Anonymous
        );
        assert!(look("[", "a", "a").await.is_err());
        assert!(
            look(r#"{"auths":{"a":{"auth":"!!"}}}"#, "a", "a")
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn helpers_must_be_plain_names_that_exist() {
        let json = r#"{"credHelpers":{"a.example":"../x"}}"#;
        assert!(look(json, "a.example", "a.example").await.is_err());
        let json = r#"{"credsStore":"davit-test-none"}"#;
        assert!(look(json, "a.example", "a.example").await.is_err());
    }
}
