//! Which containers there are, by namespace, id and name. Derived from the
//! records at the start and never stored.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Error, Kind, Result,
    actor::{Command, Reply},
    view::View,
};

/// A way to a container: its actor's mailbox and what it publishes.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) ns: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) mailbox: mpsc::Sender<Command>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    /// Held by whoever changes the files of the container while it does not
    /// run, and by a start.
    pub(crate) files: Arc<tokio::sync::Mutex<()>>,
}

impl Handle {
    /// The container as it is now.
    pub(crate) fn now(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Asks the actor and waits for its answer.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let gone = || Error::not_found(format!("No such container: {}", self.id));
        let (reply, answer) = oneshot::channel();
        self.mailbox
            .send(command(reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// All containers.
#[derive(Debug, Default)]
pub(crate) struct Index {
    spaces: Mutex<HashMap<String, Space>>,
}

#[derive(Debug, Default)]
struct Space {
    by_id: BTreeMap<Arc<str>, Handle>,
    /// Name to id; a name that is being created is here before its handle.
    names: HashMap<String, String>,
}

/// A name (and id) that is held for a container that is being made. Dropped
/// without [`Reservation::keep`] it is free again.
#[derive(Debug)]
pub(crate) struct Reservation {
    index: Arc<Index>,
    ns: String,
    name: String,
    kept: bool,
}

impl Index {
    /// Holds `name` for a container `id` that is being made.
    pub(crate) fn reserve(self: &Arc<Self>, ns: &str, name: &str, id: &str) -> Result<Reservation> {
        if self.contains(ns, id) {
            return Err(Error::already_exists(format!(
                "container {id} exists already; give another id or none"
            )));
        }
        self.reserve_for(ns, name, id)
    }

    /// Holds `name` for a container `id` that exists.
    pub(crate) fn reserve_for(
        self: &Arc<Self>,
        ns: &str,
        name: &str,
        id: &str,
    ) -> Result<Reservation> {
        let mut spaces = self.lock();
        let space = spaces.entry(ns.to_owned()).or_default();
        if let Some(owner) = space.names.get(name) {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to \
                     remove (or rename) that container to be able to reuse that name."
                ),
            ));
        }
        space.names.insert(name.to_owned(), id.to_owned());
        drop(spaces);
        Ok(Reservation {
            index: Arc::clone(self),
            ns: ns.to_owned(),
            name: name.to_owned(),
            kept: false,
        })
    }

    /// Makes a container known.
    pub(crate) fn insert(&self, handle: Handle) {
        let mut spaces = self.lock();
        let space = spaces.entry(handle.ns.to_string()).or_default();
        space.by_id.insert(Arc::clone(&handle.id), handle);
    }

    /// Frees `name` if `id` has it.
    pub(crate) fn release_name(&self, ns: &str, name: &str, id: &str) {
        if let Some(space) = self.lock().get_mut(ns)
            && space.names.get(name).is_some_and(|owner| owner == id)
        {
            space.names.remove(name);
        }
    }

    /// Forgets a container and every name of it.
    pub(crate) fn remove(&self, ns: &str, id: &str) {
        let mut spaces = self.lock();
        if let Some(space) = spaces.get_mut(ns) {
            space.by_id.remove(id);
            space.names.retain(|_, owner| owner != id);
            if space.by_id.is_empty() && space.names.is_empty() {
                spaces.remove(ns);
            }
        }
    }

    /// The container called `reference`: an id, a name, a unique id prefix, in
    /// this order, as in docker.
    pub(crate) fn find(&self, ns: &str, reference: &str) -> Result<Handle> {
        let missing = || Error::not_found(format!("No such container: {reference}"));
        if reference.is_empty() {
            return Err(Error::invalid("a container's name or id is needed"));
        }
        let spaces = self.lock();
        let space = spaces.get(ns).ok_or_else(missing)?;
        if let Some(handle) = space.by_id.get(reference) {
            return Ok(handle.clone());
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(handle) = space
            .names
            .get(name)
            .and_then(|id| space.by_id.get(id.as_str()))
        {
            return Ok(handle.clone());
        }
        let mut matching = space
            .by_id
            .range::<str, _>((
                std::ops::Bound::Included(reference),
                std::ops::Bound::Unbounded,
            ))
            .take_while(|(id, _)| id.starts_with(reference));
        match (matching.next(), matching.next()) {
            (Some((_, handle)), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "multiple IDs found with provided prefix: {reference}; give more digits"
            ))),
            (None, _) => Err(missing()),
        }
    }

    /// The containers of a namespace, in no order that means anything.
    pub(crate) fn list(&self, ns: &str) -> Vec<Handle> {
        self.lock()
            .get(ns)
            .map(|space| space.by_id.values().cloned().collect())
            .unwrap_or_default()
    }

    /// All containers of all namespaces.
    pub(crate) fn all(&self) -> Vec<Handle> {
        self.lock()
            .values()
            .flat_map(|space| space.by_id.values().cloned())
            .collect()
    }

    /// Namespaces that have containers, in order.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let mut names = self
            .lock()
            .iter()
            .filter(|(_, space)| !space.by_id.is_empty())
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>();
        names.sort();
        names
    }

    /// Whether there is a container of this id.
    pub(crate) fn contains(&self, ns: &str, id: &str) -> bool {
        self.lock()
            .get(ns)
            .is_some_and(|space| space.by_id.contains_key(id))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Space>> {
        // Every change under the lock is one map operation, so a panic in
        // between leaves nothing half done.
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The name stays taken after this.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut spaces = self.index.lock();
        if let Some(space) = spaces.get_mut(&self.ns) {
            space.names.remove(&self.name);
            if space.by_id.is_empty() && space.names.is_empty() {
                spaces.remove(&self.ns);
            }
        }
    }
}
