//! Docker's volume plugins: programs that keep volumes elsewhere, found by
//! their sockets (`/run/docker/plugins/<name>.sock`) and by files with their
//! address (`/etc/docker/plugins/<name>.spec`, `.json`).
//!
//! Every call is bounded in time and in what it may answer, since a plugin is
//! somebody else's program and hangs when its server does.

mod discovery;
mod http;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Error, Kind, Result, config::VolumesConfig};
use discovery::Found;

/// How long a plugin that did not answer a question of ours is left in peace.
const PEACE: Duration = Duration::from_secs(30);

/// The volume plugins of this host.
#[derive(Debug)]
pub(crate) struct Plugins {
    config: VolumesConfig,
    activated: Mutex<HashSet<(String, String)>>,
    /// Plugins that did not answer, and when.
    silent: Mutex<HashMap<String, Instant>>,
}

/// One plugin that speaks the protocol of volumes.
#[derive(Debug, Clone)]
pub(crate) struct Plugin {
    found: Found,
    timeout: Duration,
    list_timeout: Duration,
}

/// A volume as its plugin tells it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PluginVolume {
    pub(crate) name: String,
    pub(crate) mountpoint: String,
    pub(crate) status: Option<BTreeMap<String, Value>>,
}

/// Every answer of the protocol.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    err: String,
    mountpoint: String,
    volume: Option<PluginVolume>,
    volumes: Option<Vec<PluginVolume>>,
    capabilities: Option<Capabilities>,
    implements: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Capabilities {
    scope: String,
}

impl Plugins {
    pub(crate) fn new(config: &VolumesConfig) -> Self {
        Self {
            config: config.clone(),
            activated: Mutex::default(),
            silent: Mutex::default(),
        }
    }

    /// The plugin called `name`. `NotFound` in docker's words when there is
    /// none, or none that keeps volumes.
    pub(crate) async fn get(&self, name: &str) -> Result<Plugin> {
        let wanted = name.to_owned();
        let found = self
            .find(move |config| discovery::find(config, &wanted))
            .await?;
        let found = found.ok_or_else(|| {
            Error::not_found(format!(
                "error looking up volume plugin {name}: plugin \"{name}\" not found; is it running and its socket in {}?",
                self.config.plugin_sockets.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
            ))
        })?;
        let plugin = self.plugin(found);
        self.activate(&plugin, plugin.timeout).await?;
        Ok(plugin)
    }

    /// Asks all plugins that answer something, all at once, each for the time
    /// that a list may take. The second part tells who did not answer.
    pub(crate) async fn ask_all<T, F>(
        &self,
        ask: impl Fn(Plugin) -> F,
    ) -> (Vec<(String, T)>, Vec<String>)
    where
        F: Future<Output = Result<T>>,
    {
        let found = self.find(|config| Ok(discovery::all(config))).await;
        let (mut answers, mut warnings) = (Vec::new(), Vec::new());
        let asked = found.unwrap_or_else(|error| {
            warnings.push(error.chain());
            Vec::new()
        });
        let asked = asked.into_iter().map(|found| {
            let name = found.name.clone();
            let (plugin, within) = (self.plugin(found), self.config.list_timeout);
            let asking = ask(plugin.clone());
            async move {
                if self.is_silent(&name) {
                    let text =
                        format!("volume plugin {name} did not answer lately and was not asked");
                    return (name, Err(Error::new(Kind::Unavailable, text)));
                }
                let answer = async {
                    self.activate(&plugin, within).await?;
                    asking.await
                };
                // One bound over both calls.
                let answer = tokio::time::timeout(within, answer)
                    .await
                    .unwrap_or_else(|_| {
                        Err(Error::new(
                            Kind::DeadlineExceeded,
                            format!("volume plugin {name} did not answer within {within:?}"),
                        ))
                    });
                self.note(&name, &answer);
                (name, answer)
            }
        });
        for (name, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(answer) => answers.push((name, answer)),
                // A plugin for networks or logs is none of ours.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => warnings.push(error.chain()),
            }
        }
        (answers, warnings)
    }

    fn plugin(&self, found: Found) -> Plugin {
        Plugin {
            found,
            timeout: self.config.timeout,
            list_timeout: self.config.list_timeout,
        }
    }

    async fn find<T: Send + 'static>(
        &self,
        look: impl FnOnce(&VolumesConfig) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let config = self.config.clone();
        super::blocking(move || look(&config)).await
    }

    /// The handshake: once for each plugin and address.
    async fn activate(&self, plugin: &Plugin, within: Duration) -> Result<()> {
        let key = (plugin.found.name.clone(), plugin.found.address.to_string());
        if lock(&self.activated).contains(&key) {
            return Ok(());
        }
        let answer = plugin.call("Plugin.Activate", json!({}), within).await?;
        if !answer
            .implements
            .unwrap_or_default()
            .iter()
            .any(|what| what == "VolumeDriver")
        {
            return Err(Error::not_found(format!(
                "error looking up volume plugin {0}: plugin \"{0}\" does not keep volumes",
                plugin.found.name
            )));
        }
        lock(&self.activated).insert(key);
        Ok(())
    }

    fn is_silent(&self, name: &str) -> bool {
        lock(&self.silent)
            .get(name)
            .is_some_and(|since| since.elapsed() < PEACE)
    }

    fn note<T>(&self, name: &str, answer: &Result<T>) {
        let mut silent = lock(&self.silent);
        match answer {
            Err(error) if error.kind() == Kind::DeadlineExceeded => {
                silent.insert(name.to_owned(), Instant::now());
            }
            Ok(_) | Err(_) => {
                silent.remove(name);
            }
        }
    }
}

impl Plugin {
    /// Makes a volume.
    pub(crate) async fn create(
        &self,
        name: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<()> {
        self.volume(
            "Create",
            json!({"Name": name, "Opts": options}),
            self.timeout,
        )
        .await
        .map(drop)
    }

    /// Deletes a volume.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        self.volume("Remove", json!({"Name": name}), self.timeout)
            .await
            .map(drop)
    }

    /// What it says of a volume; None when it does not know it.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<PluginVolume>> {
        match self
            .call("VolumeDriver.Get", json!({"Name": name}), self.list_timeout)
            .await
        {
            Ok(answer) => Ok(answer.volume.filter(|volume| volume.name == name)),
            // The protocol has no code for "there is none".
            Err(error) if error.kind() == Kind::Internal => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All its volumes.
    pub(crate) async fn list(&self) -> Result<Vec<PluginVolume>> {
        let answer = self.volume("List", json!({}), self.list_timeout).await?;
        Ok(answer.volumes.unwrap_or_default())
    }

    /// Mounts a volume for the user `id`; gives its directory.
    pub(crate) async fn mount(&self, name: &str, id: &str) -> Result<String> {
        let answer = self
            .volume("Mount", json!({"Name": name, "ID": id}), self.timeout)
            .await?;
        if answer.mountpoint.starts_with('/') {
            return Ok(answer.mountpoint);
        }
        // Older plugins tell by Path only.
        let answer = self
            .volume("Path", json!({"Name": name}), self.timeout)
            .await?;
        if answer.mountpoint.starts_with('/') {
            return Ok(answer.mountpoint);
        }
        Err(Error::internal(format!(
            "volume plugin {} mounted {name} at {:?}, which is no absolute path",
            self.found.name, answer.mountpoint
        )))
    }

    /// Takes a user's mount back.
    pub(crate) async fn unmount(&self, name: &str, id: &str) -> Result<()> {
        self.volume("Unmount", json!({"Name": name, "ID": id}), self.timeout)
            .await
            .map(drop)
    }

    /// "local" or "global"; "local" when it does not say.
    pub(crate) async fn scope(&self) -> String {
        let answer = self
            .call("VolumeDriver.Capabilities", json!({}), self.list_timeout)
            .await;
        let scope = answer
            .ok()
            .and_then(|answer| answer.capabilities)
            .unwrap_or_default()
            .scope;
        if scope.eq_ignore_ascii_case("global") {
            "global".to_owned()
        } else {
            "local".to_owned()
        }
    }

    async fn volume(&self, method: &str, body: Value, within: Duration) -> Result<Answer> {
        self.call(&format!("VolumeDriver.{method}"), body, within)
            .await
    }

    /// One call. `Unavailable` when it can't be reached, `DeadlineExceeded`
    /// when it does not answer, `Internal` with its words when it says no.
    async fn call(&self, method: &str, body: Value, within: Duration) -> Result<Answer> {
        let name = &self.found.name;
        let sent = http::post(&self.found.address, method, body.to_string());
        let (ok, bytes) = match tokio::time::timeout(within, sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                return Err(Error::new(
                    Kind::Unavailable,
                    format!(
                        "volume plugin {name} at {} can't be asked for {method}: is it running?",
                        self.found.address
                    ),
                )
                .with_source(error));
            }
            Err(_) => {
                return Err(Error::new(
                    Kind::DeadlineExceeded,
                    format!(
                        "volume plugin {name} did not answer {method} within {within:?}; see what it waits for"
                    ),
                ));
            }
        };
        let answer: Answer = parse(&bytes)
            .or_else(|error| {
                if ok {
                    Err(error)
                } else {
                    Ok(Answer::default())
                }
            })
            .map_err(|error| {
                Error::internal(format!(
                    "volume plugin {name} answered {method} with no JSON of the protocol"
                ))
                .with_source(error)
            })?;
        if !answer.err.is_empty() {
            return Err(Error::internal(format!("{method}: {}", answer.err)));
        }
        if !ok {
            let text = String::from_utf8_lossy(&bytes);
            let text: String = text.trim().chars().take(256).collect();
            return Err(Error::internal(format!(
                "{method}: the plugin refused it: {text}"
            )));
        }
        Ok(answer)
    }
}

fn parse<T: DeserializeOwned + Default>(bytes: &[u8]) -> serde_json::Result<T> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes)
}

/// One map operation is done under each lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
