//! Garbage collection: removes what no image, container, lease or running
//! operation holds, and frees the disk.
//!
//! Mark reads the records, without stopping anybody. Sweep deletes records in
//! small transactions, referrers before what they refer to, and files after
//! them. What an operation takes hold of while a collection runs is looked at
//! again before each transaction, under the lock that taking hold needs; so
//! whoever holds, then reads, then refers never refers to something that is
//! swept away.

mod graph;

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use davit_store::{
    NewEvent, Result, Store, Tx,
    table::{Blobs, Images, Ingests, Leases as LeaseTable, Snapshots as SnapshotTable},
};
use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::{
    Content, Digest, Leases, Snapshots,
    content::{blocking, labels},
};
use graph::{Graph, Node};

/// Records deleted in one transaction.
const STEP: usize = 64;
/// How long to wait for more garbage before a collection that nobody waits for.
const GATHER: Duration = Duration::from_millis(500);
/// A collection runs at least this often, for what expires by itself.
const AT_LEAST: Duration = Duration::from_secs(3600);

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs taken from a namespace, as (namespace, digest).
    pub blobs: Vec<(String, String)>,
    /// Snapshots, as (namespace, snapshotter, key).
    pub snapshots: Vec<(String, String, String)>,
    /// Partial downloads that had expired, as (namespace, reference).
    pub ingests: Vec<(String, String)>,
    /// Leases that had expired, as (namespace, id).
    pub leases: Vec<(String, String)>,
    /// Image names that had expired, as (namespace, name).
    pub images: Vec<(String, String)>,
    /// Bytes of blobs freed on disk.
    pub bytes: u64,
}

/// The garbage collector. Cheap to clone.
#[derive(Clone)]
pub struct Collector(Arc<Inner>);

struct Inner {
    store: Store,
    leases: Leases,
    content: Content,
    snapshots: Vec<Snapshots>,
    /// Calls so far.
    asked: AtomicU64,
    last: Mutex<Last>,
    /// Files without records are looked for once after the start.
    looked_for_orphans: AtomicBool,
}

/// The last collection.
#[derive(Default)]
struct Last {
    /// Number of calls when it began: it serves all of them.
    serves: u64,
    collected: Collected,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

impl Collector {
    pub(crate) fn new(
        store: Store,
        leases: Leases,
        content: Content,
        snapshots: Vec<Snapshots>,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            leases,
            content,
            snapshots,
            asked: AtomicU64::new(0),
            last: Mutex::default(),
            looked_for_orphans: AtomicBool::new(false),
        }))
    }

    /// Runs one full collection and waits until the disk is free. Calls that
    /// come while one runs share the next.
    pub async fn run(&self) -> Result<Collected> {
        let ticket = self.0.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut last = self.0.last.lock().await;
        if last.serves >= ticket {
            return Ok(last.collected.clone());
        }
        let serves = self.0.asked.load(Ordering::Acquire);
        let collected = self.collect().await?;
        *last = Last {
            serves,
            collected: collected.clone(),
        };
        Ok(collected)
    }

    /// Asks for a collection soon; returns at once.
    pub fn soon(&self) {
        self.0.leases.garbage();
    }

    /// Collects whenever there may be garbage, and now and then; runs until
    /// it is dropped.
    pub(crate) async fn run_forever(self) {
        loop {
            if let Err(error) = self.run().await {
                tracing::warn!(
                    error = error.chain(),
                    "collecting garbage; trying again with the next"
                );
            }
            // Either it is time or there is garbage.
            let _ = tokio::time::timeout(AT_LEAST, self.0.leases.wait_for_garbage()).await;
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn collect(&self) -> Result<Collected> {
        let mut run = Run::begin(&self.0);
        let (held, live) = run.began_with();
        let (store, now) = (self.0.store.clone(), Timestamp::now());
        let names: Vec<&'static str> = self.0.snapshots.iter().map(Snapshots::name).collect();
        let (mut graph, garbage, expired) = blocking(move || {
            let mut graph = Graph::read(&store, &live, now)?;
            graph.mark_roots(held);
            let garbage = graph.garbage(&names);
            let expired = graph.expired.clone();
            Ok((graph, garbage, expired))
        })
        .await?;
        let mut collected = Collected::default();
        for step in expired.chunks(STEP).chain(garbage.chunks(STEP)) {
            let deleted = run.delete(&mut graph, step)?;
            for node in deleted {
                self.free(node, &mut collected).await?;
            }
            tokio::task::yield_now().await;
        }
        drop(run);
        if !self.0.looked_for_orphans.swap(true, Ordering::AcqRel) {
            self.sweep_orphans(&mut collected).await?;
        }
        if collected != Collected::default() {
            tracing::debug!(
                blobs = collected.blobs.len(),
                snapshots = collected.snapshots.len(),
                ingests = collected.ingests.len(),
                bytes = collected.bytes,
                "garbage collected"
            );
        }
        Ok(collected)
    }

    /// Frees what a deleted record stood for.
    async fn free(&self, deleted: Deleted, collected: &mut Collected) -> Result<()> {
        match deleted.node {
            Node::Blob(namespace, digest) => {
                if let Ok(parsed) = Digest::parse(&digest) {
                    collected.bytes += self.0.content.sweep(&parsed).await?;
                }
                collected.blobs.push((namespace, digest));
            }
            Node::Snapshot(namespace, name, key) => {
                if let Some(snapshots) = self.0.snapshots.iter().find(|one| one.name() == name) {
                    snapshots.free(deleted.dir).await?;
                }
                collected.snapshots.push((namespace, name, key));
            }
            Node::Ingest(namespace, reference) => {
                self.0.content.free_ingest(&namespace, &reference).await?;
                collected.ingests.push((namespace, reference));
            }
            Node::Lease(namespace, id) => collected.leases.push((namespace, id)),
            Node::Image(namespace, name) => collected.images.push((namespace, name)),
            Node::Container(..) => {}
        }
        Ok(())
    }

    async fn sweep_orphans(&self, collected: &mut Collected) -> Result<()> {
        let (count, bytes) = self.0.content.sweep_orphans().await?;
        collected.bytes += bytes;
        for snapshots in &self.0.snapshots {
            let snapshots = snapshots.clone();
            let removed = blocking(move || snapshots.sweep_orphans()).await?;
            if !removed.is_empty() {
                tracing::info!(
                    directories = removed.len(),
                    "removed snapshots that no record knows"
                );
            }
        }
        if count > 0 {
            tracing::info!(blobs = count, bytes, "removed blobs that no record knows");
        }
        Ok(())
    }
}

/// What running operations hold, and the recorded leases (namespace, id) whose operations run.
type Held = (Vec<Node>, HashSet<(String, String)>);

/// A collection under way: what is held is noted from its begin to its end.
struct Run<'a> {
    inner: &'a Inner,
    began_with: Option<Held>,
}

/// A record that is gone.
struct Deleted {
    node: Node,
    /// Directory number of a snapshot.
    dir: u64,
}

impl<'a> Run<'a> {
    fn begin(inner: &'a Inner) -> Self {
        let (held, live) = inner.leases.holds().begin();
        let held = held
            .into_iter()
            .map(|(namespace, resource)| Node::of(&namespace, &resource))
            .collect();
        Self {
            inner,
            began_with: Some((held, live)),
        }
    }

    fn began_with(&mut self) -> Held {
        self.began_with.take().unwrap_or_default()
    }

    /// Deletes the records of `nodes` in one transaction, except for what was
    /// taken hold of meanwhile.
    fn delete(&self, graph: &mut Graph, nodes: &[Node]) -> Result<Vec<Deleted>> {
        let mut holds = self.inner.leases.holds();
        for (namespace, resource) in holds.taken() {
            graph.mark(Node::of(&namespace, &resource));
        }
        let deleted = self.inner.store.transaction(|tx| {
            let mut deleted = Vec::new();
            for node in nodes {
                if !graph.is_marked(node)
                    && let Some(dir) = delete(tx, node)?
                {
                    deleted.push(Deleted {
                        node: node.clone(),
                        dir,
                    });
                }
            }
            Ok(deleted)
        })?;
        drop(holds);
        fail::fail_point!("images.gc.after-delete");
        Ok(deleted)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.inner.leases.holds().end();
    }
}

/// Deletes one record; gives the directory of a snapshot, 0 for others, and
/// `None` when it must stay after all.
fn delete(tx: &Tx<'_>, node: &Node) -> Result<Option<u64>> {
    let gone = match node {
        Node::Blob(namespace, digest) => tx.delete::<Blobs>((namespace, digest))?,
        Node::Snapshot(namespace, name, key) => {
            let Some(record) = tx.get::<SnapshotTable>((namespace, name, key))? else {
                return Ok(None);
            };
            tx.delete::<SnapshotTable>((namespace, name, key))?;
            return Ok(Some(record.dir));
        }
        Node::Ingest(namespace, reference) => tx.delete::<Ingests>((namespace, reference))?,
        Node::Lease(namespace, id) => {
            // Its client may have given it more time since it was read.
            let now = Timestamp::now();
            match tx.get::<LeaseTable>((namespace, id))? {
                Some(record) if graph::is_over(&record, now) => {
                    tx.delete::<LeaseTable>((namespace, id))?
                }
                _ => false,
            }
        }
        Node::Image(namespace, name) => expire_image(tx, namespace, name)?,
        Node::Container(..) => false,
    };
    Ok(gone.then_some(0))
}

/// Deletes an image name that has expired, unless its label was changed.
fn expire_image(tx: &Tx<'_>, namespace: &str, name: &str) -> Result<bool> {
    let Some(record) = tx.get::<Images>((namespace, name))? else {
        return Ok(false);
    };
    if !graph::is_past(record.labels.get(labels::GC_EXPIRE), Timestamp::now()) {
        return Ok(false);
    }
    tx.delete::<Images>((namespace, name))?;
    tx.event(NewEvent {
        namespace: namespace.to_owned(),
        kind: "image".into(),
        action: "delete".into(),
        id: record.target.digest,
        attributes: [("name".to_owned(), name.to_owned())].into(),
    })?;
    Ok(true)
}
