//! Leases: what keeps content and snapshots alive while nothing refers to
//! them yet.
//!
//! Whoever creates or is about to refer to something opens an [`Operation`]
//! first, holds the thing, then reads it, then writes the record that refers
//! to it. Garbage collection never takes what any operation holds, nor what a
//! recorded, unexpired lease lists.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use davit_store::{
    Error, Result, Store, Tx,
    table::{self, LeaseRecord, LeaseResource},
};
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::Digest;

/// Label of a lease that an operation of the daemon's own recorded.
pub const OPERATION_LABEL: &str = "davit.io/operation";

/// Something that a lease can keep alive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// A blob, and by its labels all that it refers to.
    Blob(Digest),
    /// A snapshot and its parents.
    Snapshot {
        /// Name of the snapshotter.
        snapshotter: String,
        /// Key in that snapshotter.
        key: String,
    },
    /// A partial download, by its reference.
    Ingest(String),
    /// An image name and what it points to.
    Image(String),
}

impl Resource {
    /// As the store has it: kind and id (containerd's leases.Resource).
    fn to_record(&self) -> LeaseResource {
        let (kind, id) = match self {
            Self::Blob(digest) => ("content".to_owned(), digest.to_string()),
            Self::Snapshot { snapshotter, key } => {
                (format!("snapshots/{snapshotter}"), key.clone())
            }
            Self::Ingest(reference) => ("ingests".to_owned(), reference.clone()),
            Self::Image(name) => ("images".to_owned(), name.clone()),
        };
        LeaseResource { kind, id }
    }

    /// The resource of a record; `None` for a kind that we do not know.
    pub(crate) fn of_record(record: &LeaseResource) -> Option<Self> {
        Some(match record.kind.as_str() {
            "content" => Self::Blob(Digest::parse(&record.id).ok()?),
            "ingests" => Self::Ingest(record.id.clone()),
            "images" => Self::Image(record.id.clone()),
            kind => Self::Snapshot {
                snapshotter: kind.strip_prefix("snapshots/")?.to_owned(),
                key: record.id.clone(),
            },
        })
    }
}

/// A recorded lease.
#[derive(Debug, Clone)]
pub struct LeaseInfo {
    /// Its id in the namespace.
    pub id: String,
    /// Its labels; `containerd.io/gc.expire` and `containerd.io/gc.flat` have a meaning.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops holding anything; never without it.
    pub expires_at: Option<Timestamp>,
    /// What it lists.
    pub resources: Vec<Resource>,
}

impl From<LeaseRecord> for LeaseInfo {
    fn from(record: LeaseRecord) -> Self {
        Self {
            resources: record
                .resources
                .iter()
                .filter_map(Resource::of_record)
                .collect(),
            id: record.id,
            labels: record.labels,
            created_at: record.created_at,
            expires_at: record.expires_at,
        }
    }
}

/// A resource with its namespace.
type Hold = (String, Resource);

/// What running operations hold, for garbage collection.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    active: HashMap<Hold, usize>,
    /// Ids of recorded leases whose operations run: they do not expire.
    leases: HashSet<(String, String)>,
    /// What was taken hold of since the collection that runs has begun, also
    /// when it was let go again.
    since: Option<Vec<Hold>>,
}

impl Holds {
    /// Starts to note what is held from now on, and gives what is held.
    pub(crate) fn begin(&mut self) -> (Vec<Hold>, HashSet<(String, String)>) {
        self.since = Some(Vec::new());
        (self.active.keys().cloned().collect(), self.leases.clone())
    }

    /// What was taken hold of since [`Holds::begin`] or the last call.
    pub(crate) fn taken(&mut self) -> Vec<Hold> {
        self.since.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The collection is over.
    pub(crate) fn end(&mut self) {
        self.since = None;
    }
}

/// All leases and operations. Cheap to clone.
#[derive(Clone)]
pub struct Leases(Arc<Inner>);

struct Inner {
    store: Store,
    holds: Mutex<Holds>,
    /// Rung when something may have become garbage.
    garbage: Notify,
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leases")
    }
}

impl Leases {
    pub(crate) fn new(store: Store) -> Self {
        Self(Arc::new(Inner {
            store,
            holds: Mutex::default(),
            garbage: Notify::new(),
        }))
    }

    /// Opens an operation that lives in memory only: for work that ends with
    /// its process, such as creating a container.
    pub fn operation(&self, namespace: &str) -> Operation {
        self.open(namespace, None)
    }

    /// Opens an operation that is recorded too, so that what it brought in
    /// outlives a crash or a broken connection for `ttl` and need not be
    /// brought in again: for pulls and imports. `what` goes into its label.
    pub fn recorded_operation(
        &self,
        namespace: &str,
        what: &str,
        ttl: Duration,
    ) -> Result<Operation> {
        let id = format!("davit-{}", uuid::Uuid::new_v4().simple());
        let labels = BTreeMap::from([(OPERATION_LABEL.to_owned(), what.to_owned())]);
        let ttl =
            jiff::SignedDuration::try_from(ttl).unwrap_or(jiff::SignedDuration::from_hours(24));
        let expires = Timestamp::now().checked_add(ttl).ok();
        self.create(namespace, &id, labels, expires)?;
        Ok(self.open(namespace, Some(LeaseRef { id, own: true })))
    }

    /// Opens an operation whose resources are also recorded in the lease `id`
    /// of a client. `NotFound` when there is none.
    pub fn operation_in(&self, namespace: &str, id: &str) -> Result<Operation> {
        self.get(namespace, id)?;
        Ok(self.open(
            namespace,
            Some(LeaseRef {
                id: id.to_owned(),
                own: false,
            }),
        ))
    }

    fn open(&self, namespace: &str, lease: Option<LeaseRef>) -> Operation {
        if let Some(lease) = lease.as_ref().filter(|lease| lease.own) {
            self.holds()
                .leases
                .insert((namespace.to_owned(), lease.id.clone()));
        }
        Operation(Arc::new(Held {
            leases: self.clone(),
            namespace: namespace.to_owned(),
            lease,
            resources: Mutex::default(),
        }))
    }

    /// Records a lease. `AlreadyExists` when the namespace has one of that id.
    pub fn create(
        &self,
        namespace: &str,
        id: &str,
        labels: BTreeMap<String, String>,
        expires_at: Option<Timestamp>,
    ) -> Result<LeaseInfo> {
        let record = LeaseRecord {
            id: id.to_owned(),
            labels,
            created_at: Timestamp::now(),
            expires_at,
            resources: Vec::new(),
        };
        self.0
            .store
            .transaction(|tx| tx.insert::<table::Leases>((namespace, id), &record))?;
        Ok(record.into())
    }

    /// A recorded lease. `NotFound` when there is none.
    pub fn get(&self, namespace: &str, id: &str) -> Result<LeaseInfo> {
        let found = self.0.store.get::<table::Leases>((namespace, id))?;
        found
            .map(LeaseInfo::from)
            .ok_or_else(|| missing(namespace, id))
    }

    /// All leases of a namespace, in order of their ids.
    pub fn list(&self, namespace: &str) -> Result<Vec<LeaseInfo>> {
        let found = self.0.store.scan::<table::Leases>(namespace)?;
        Ok(found.into_iter().map(|(_, record)| record.into()).collect())
    }

    /// Ends a lease; garbage collection follows soon. `NotFound` when there is
    /// none.
    pub fn delete(&self, namespace: &str, id: &str) -> Result<()> {
        if !self
            .0
            .store
            .transaction(|tx| tx.delete::<table::Leases>((namespace, id)))?
        {
            return Err(missing(namespace, id));
        }
        self.garbage();
        Ok(())
    }

    /// Lists `resource` in a lease. `NotFound` when there is no such lease.
    pub fn add(&self, namespace: &str, id: &str, resource: &Resource) -> Result<()> {
        self.0
            .store
            .transaction(|tx| add_in(tx, namespace, id, resource))
    }

    /// Takes `resource` off a lease; one that it does not list is no error.
    pub fn drop_resource(&self, namespace: &str, id: &str, resource: &Resource) -> Result<()> {
        self.0
            .store
            .transaction(|tx| drop_in(tx, namespace, id, resource))?;
        self.garbage();
        Ok(())
    }

    /// Something may have become garbage: a collection runs soon.
    pub(crate) fn garbage(&self) {
        self.0.garbage.notify_one();
    }

    /// Waits until there may be garbage.
    pub(crate) async fn wait_for_garbage(&self) {
        self.0.garbage.notified().await;
    }

    pub(crate) fn holds(&self) -> MutexGuard<'_, Holds> {
        self.0.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(namespace: &str, id: &str) -> Error {
    Error::not_found(format!(
        "lease {id:?} does not exist in namespace {namespace:?}"
    ))
}

fn add_in(tx: &Tx<'_>, namespace: &str, id: &str, resource: &Resource) -> Result<()> {
    let Some(mut record) = tx.get::<table::Leases>((namespace, id))? else {
        return Err(missing(namespace, id));
    };
    let wanted = resource.to_record();
    if record.resources.contains(&wanted) {
        return Ok(());
    }
    record.resources.push(wanted);
    tx.put::<table::Leases>((namespace, id), &record)
}

fn drop_in(tx: &Tx<'_>, namespace: &str, id: &str, resource: &Resource) -> Result<()> {
    let Some(mut record) = tx.get::<table::Leases>((namespace, id))? else {
        return Err(missing(namespace, id));
    };
    let unwanted = resource.to_record();
    record.resources.retain(|one| *one != unwanted);
    tx.put::<table::Leases>((namespace, id), &record)
}

/// Work under way; see the module. Everything that it touches stays until its
/// last clone is dropped. Cheap to clone: all clones are one operation.
#[derive(Clone)]
pub struct Operation(Arc<Held>);

struct Held {
    leases: Leases,
    namespace: String,
    lease: Option<LeaseRef>,
    resources: Mutex<HashSet<Resource>>,
}

struct LeaseRef {
    id: String,
    /// Made for this operation, so it ends with it.
    own: bool,
}

impl Operation {
    /// The namespace that it works in.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Keeps `resource` alive from now on. Hold first, then look whether it
    /// exists, then refer to it.
    pub fn hold(&self, resource: Resource) {
        let mut mine = self
            .0
            .resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !mine.insert(resource.clone()) {
            return;
        }
        let key = (self.0.namespace.clone(), resource);
        let mut holds = self.0.leases.holds();
        if let Some(since) = &mut holds.since {
            since.push(key.clone());
        }
        *holds.active.entry(key).or_default() += 1;
    }

    /// Stops keeping `resource` alive before the operation ends: it was
    /// removed.
    pub fn release(&self, resource: &Resource) {
        let mut mine = self
            .0
            .resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if mine.remove(resource) {
            self.0
                .leases
                .holds()
                .let_go(&self.0.namespace, resource.clone());
        }
    }

    /// The id of the recorded lease, if there is one.
    pub fn lease(&self) -> Option<&str> {
        self.0.lease.as_ref().map(|lease| lease.id.as_str())
    }

    /// Lists `resource` in the recorded lease, if there is one, as part of the
    /// transaction that writes it.
    pub(crate) fn note(&self, tx: &Tx<'_>, resource: &Resource) -> Result<()> {
        match &self.0.lease {
            None => Ok(()),
            // Our own may have been removed by hand; a client's must be there.
            Some(lease) => match add_in(tx, &self.0.namespace, &lease.id, resource) {
                Err(error) if error.kind() == davit_store::Kind::NotFound && lease.own => Ok(()),
                other => other,
            },
        }
    }

    /// The work is done and what should stay is referred to by records: the
    /// recorded lease goes at once. Without this call (failure, crash) it
    /// stays until it expires, so that a second try finds what is there.
    pub fn done(self) -> Result<()> {
        self.end_lease()
    }

    /// The work failed for good (hostile or broken content): the recorded
    /// lease goes, and garbage collection is asked to run.
    pub fn discard(self) -> Result<()> {
        self.end_lease()?;
        self.0.leases.garbage();
        Ok(())
    }

    fn end_lease(&self) -> Result<()> {
        let Some(lease) = self.0.lease.as_ref().filter(|lease| lease.own) else {
            return Ok(());
        };
        let key = (self.0.namespace.as_str(), lease.id.as_str());
        self.0
            .leases
            .0
            .store
            .transaction(|tx| tx.delete::<table::Leases>(key))
            .map(drop)
    }
}

impl Holds {
    fn let_go(&mut self, namespace: &str, resource: Resource) {
        let key = (namespace.to_owned(), resource);
        if let Some(count) = self.active.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.active.remove(&key);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holds = self.leases.holds();
        let mine = self
            .resources
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for resource in mine.drain() {
            holds.let_go(&self.namespace, resource);
        }
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.own) {
            holds
                .leases
                .remove(&(self.namespace.clone(), lease.id.clone()));
        }
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Operation");
        text.field("namespace", &self.0.namespace)
            .field("lease", &self.lease())
            .finish()
    }
}
