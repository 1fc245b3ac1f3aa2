//! Who holds whom: the records as a graph, and what can't be reached in it
//! from the roots. The labels are containerd's.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use davit_store::{
    Result, Store,
    table::{Blobs, ContainerRecord, Containers, Images, Ingests, LeaseRecord, Leases, Snapshots},
};
use jiff::Timestamp;

use crate::{
    Resource,
    content::labels::{
        GC_BACK_REF, GC_EXPIRE, GC_FLAT, GC_REF_CONTENT, GC_REF_IMAGE, GC_REF_SNAPSHOT, GC_ROOT,
        Labels,
    },
};

/// A record, by its table and key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Node {
    Image(String, String),
    Container(String, String),
    Lease(String, String),
    Ingest(String, String),
    Snapshot(String, String, String),
    Blob(String, String),
}

impl Node {
    pub(super) fn of(namespace: &str, resource: &Resource) -> Self {
        let namespace = namespace.to_owned();
        match resource {
            Resource::Blob(digest) => Self::Blob(namespace, digest.to_string()),
            Resource::Snapshot { snapshotter, key } => {
                Self::Snapshot(namespace, snapshotter.clone(), key.clone())
            }
            Resource::Ingest(reference) => Self::Ingest(namespace, reference.clone()),
            Resource::Image(name) => Self::Image(namespace, name.clone()),
        }
    }
}

/// What a record refers to.
#[derive(Debug, Default)]
struct Edges {
    /// By what it is: a snapshot's parent, an image's target.
    strong: Vec<Node>,
    /// By its labels.
    labels: Vec<Node>,
}

/// All records and what they refer to.
#[derive(Debug, Default)]
pub(super) struct Graph {
    edges: BTreeMap<Node, Edges>,
    roots: Vec<Node>,
    /// Kept with what they are made of, but without what their labels say.
    flat_roots: Vec<Node>,
    /// Leases and images whose time is over.
    pub(super) expired: Vec<Node>,
    marked: BTreeSet<Node>,
    marked_flat: BTreeSet<Node>,
}

/// Whether an RFC 3339 time is over; one that makes no sense never is.
pub(super) fn is_past(time: Option<&String>, now: Timestamp) -> bool {
    time.and_then(|text| text.parse::<Timestamp>().ok())
        .is_some_and(|time| time <= now)
}

/// Whether a lease holds nothing any more.
pub(super) fn is_over(lease: &LeaseRecord, now: Timestamp) -> bool {
    lease.expires_at.is_some_and(|at| at <= now) || is_past(lease.labels.get(GC_EXPIRE), now)
}

impl Graph {
    /// Reads all tables. `live` are the leases of operations that run.
    pub(super) fn read(
        store: &Store,
        live: &HashSet<(String, String)>,
        now: Timestamp,
    ) -> Result<Self> {
        let mut graph = Self::default();
        graph.read_leases(store, live, now)?;
        for ((namespace, name), record) in store.scan::<Images>(())? {
            let node = Node::Image(namespace.clone(), name);
            graph.label_edges(&namespace, &node, &record.labels);
            graph.strong(&node, Node::Blob(namespace, record.target.digest));
            let list = match is_past(record.labels.get(GC_EXPIRE), now) {
                true => &mut graph.expired,
                false => &mut graph.roots,
            };
            list.push(node);
        }
        for ((namespace, id), record) in store.scan::<Containers>(())? {
            graph.add_container(namespace, id, &record);
        }
        for ((namespace, digest), record) in store.scan::<Blobs>(())? {
            graph.add_labelled(
                &namespace,
                Node::Blob(namespace.clone(), digest),
                &record.labels,
            );
        }
        for ((namespace, snapshotter, key), record) in store.scan::<Snapshots>(())? {
            let node = Node::Snapshot(namespace.clone(), snapshotter.clone(), key);
            graph.add_labelled(&namespace, node.clone(), &record.labels);
            if !record.parent.is_empty() {
                graph.strong(&node, Node::Snapshot(namespace, snapshotter, record.parent));
            }
        }
        for ((namespace, reference), record) in store.scan::<Ingests>(())? {
            let node = Node::Ingest(namespace.clone(), reference);
            graph.edges.entry(node.clone()).or_default();
            if !record.expected.is_empty() {
                graph.strong(&node, Node::Blob(namespace, record.expected));
            }
            if record.expires_at.is_none_or(|at| at > now) {
                graph.roots.push(node);
            }
        }
        Ok(graph)
    }

    fn read_leases(
        &mut self,
        store: &Store,
        live: &HashSet<(String, String)>,
        now: Timestamp,
    ) -> Result<()> {
        for ((namespace, id), record) in store.scan::<Leases>(())? {
            let node = Node::Lease(namespace.clone(), id.clone());
            if is_over(&record, now) && !live.contains(&(namespace.clone(), id)) {
                self.expired.push(node);
                continue;
            }
            let flat = record.labels.contains_key(GC_FLAT);
            for resource in record.resources.iter().filter_map(Resource::of_record) {
                let held = Node::of(&namespace, &resource);
                if flat {
                    self.flat_roots.push(held)
                } else {
                    self.roots.push(held)
                }
            }
            self.label_edges(&namespace, &node, &record.labels);
            self.roots.push(node);
        }
        Ok(())
    }

    fn add_container(&mut self, namespace: String, id: String, record: &ContainerRecord) {
        let node = Node::Container(namespace.clone(), id);
        self.label_edges(&namespace, &node, &record.labels);
        if !record.snapshot_key.is_empty() {
            let (snapshotter, key) = (record.snapshotter.clone(), record.snapshot_key.clone());
            self.strong(&node, Node::Snapshot(namespace.clone(), snapshotter, key));
        }
        // Views of images that it mounts.
        let mounts = record.details.iter().flat_map(|details| &details.mounts);
        for mount in mounts.filter(|mount| !mount.snapshot_key.is_empty()) {
            let (snapshotter, key) = (record.snapshotter.clone(), mount.snapshot_key.clone());
            self.strong(&node, Node::Snapshot(namespace.clone(), snapshotter, key));
        }
        // Its image's content stays as long as it does, also without a name:
        // commit needs it, and so does unpacking again after a power cut.
        let manifest = record
            .details
            .as_ref()
            .and_then(|details| details.image_manifest.as_ref());
        if let Some(manifest) = manifest {
            self.strong(&node, Node::Blob(namespace, manifest.digest.clone()));
        }
        self.roots.push(node);
    }

    fn add_labelled(&mut self, namespace: &str, node: Node, labels: &Labels) {
        self.edges.entry(node.clone()).or_default();
        self.label_edges(namespace, &node, labels);
        if labels.contains_key(GC_ROOT) {
            self.roots.push(node);
        }
    }

    fn strong(&mut self, from: &Node, to: Node) {
        self.edges.entry(from.clone()).or_default().strong.push(to);
    }

    fn label_edges(&mut self, namespace: &str, node: &Node, labels: &Labels) {
        let own = |text: &String| (namespace.to_owned(), text.clone());
        for (key, value) in labels {
            if let Some(back) = key.strip_prefix(GC_BACK_REF) {
                if let Some(keeper) = back_reference(back, own(value)) {
                    self.edges
                        .entry(keeper)
                        .or_default()
                        .labels
                        .push(node.clone());
                }
                continue;
            }
            let (namespace, value) = own(value);
            let target = if suffix(key, GC_REF_CONTENT).is_some() {
                Node::Blob(namespace, value)
            } else if suffix(key, GC_REF_IMAGE).is_some() {
                Node::Image(namespace, value)
            } else if let Some(rest) = suffix(key, GC_REF_SNAPSHOT) {
                let Some(name) = snapshotter(rest) else {
                    continue;
                };
                Node::Snapshot(namespace, name, value)
            } else {
                continue;
            };
            self.edges
                .entry(node.clone())
                .or_default()
                .labels
                .push(target);
        }
    }

    /// Marks all roots, those that running operations hold among them.
    pub(super) fn mark_roots(&mut self, held: Vec<Node>) {
        for node in std::mem::take(&mut self.roots).into_iter().chain(held) {
            self.mark(node);
        }
        for node in std::mem::take(&mut self.flat_roots) {
            self.mark_flat(node);
        }
    }

    /// Marks a node and all that it reaches.
    pub(super) fn mark(&mut self, node: Node) {
        let mut todo = vec![node];
        while let Some(node) = todo.pop() {
            if !self.marked.insert(node.clone()) {
                continue;
            }
            if let Some(edges) = self.edges.get(&node) {
                todo.extend(edges.strong.iter().chain(&edges.labels).cloned());
            }
        }
    }

    /// Marks a node with what it is made of: parents, target.
    fn mark_flat(&mut self, node: Node) {
        let mut todo = vec![node];
        while let Some(node) = todo.pop() {
            if !self.marked_flat.insert(node.clone()) {
                continue;
            }
            if let Some(edges) = self.edges.get(&node) {
                todo.extend(edges.strong.iter().cloned());
            }
        }
    }

    pub(super) fn is_marked(&self, node: &Node) -> bool {
        self.marked.contains(node) || self.marked_flat.contains(node)
    }

    /// Everything unmarked that can be deleted, referrers first. Snapshots of
    /// other snapshotters than `snapshotters` are left alone.
    pub(super) fn garbage(&self, snapshotters: &[&str]) -> Vec<Node> {
        let candidates: BTreeSet<&Node> = self
            .edges
            .keys()
            .filter(|node| !self.is_marked(node))
            .filter(|node| match node {
                Node::Blob(..) | Node::Ingest(..) => true,
                Node::Snapshot(_, name, _) => snapshotters.contains(&name.as_str()),
                // These go by themselves, or by being expired.
                Node::Image(..) | Node::Container(..) | Node::Lease(..) => false,
            })
            .collect();
        let mut referrers: BTreeMap<&Node, usize> =
            candidates.iter().map(|node| (*node, 0)).collect();
        for node in &candidates {
            for to in self.out(node) {
                if let Some(count) = referrers.get_mut(to) {
                    *count += 1;
                }
            }
        }
        let mut free: Vec<&Node> = referrers
            .iter()
            .filter(|(_, count)| **count == 0)
            .map(|(node, _)| *node)
            .collect();
        let mut ordered = Vec::with_capacity(candidates.len());
        while let Some(node) = free.pop() {
            ordered.push(node.clone());
            for to in self.out(node) {
                if let Some(count) = referrers.get_mut(to) {
                    *count -= 1;
                    if *count == 0 {
                        free.push(to);
                    }
                }
            }
        }
        // Labels may go round in circles; those come last, in any order.
        let done: BTreeSet<Node> = ordered.iter().cloned().collect();
        ordered.extend(
            candidates
                .into_iter()
                .filter(|node| !done.contains(node))
                .cloned(),
        );
        ordered
    }

    fn out(&self, node: &Node) -> impl Iterator<Item = &Node> {
        self.edges
            .get(node)
            .into_iter()
            .flat_map(|edges| edges.strong.iter().chain(&edges.labels))
    }
}

/// What follows `label` in `key`: nothing, or something after `.` or `/`.
fn suffix<'a>(key: &'a str, label: &str) -> Option<&'a str> {
    let rest = key.strip_prefix(label)?;
    (rest.is_empty() || rest.starts_with(['.', '/'])).then_some(rest)
}

/// The snapshotter in ".<snapshotter>" or ".<snapshotter>/<anything>".
fn snapshotter(rest: &str) -> Option<String> {
    let name = rest.strip_prefix('.')?.split('/').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Who keeps an object with the back reference ".<kind>[…]" to a key alive.
fn back_reference(rest: &str, (namespace, key): (String, String)) -> Option<Node> {
    Some(if suffix(rest, ".content").is_some() {
        Node::Blob(namespace, key)
    } else if suffix(rest, ".image").is_some() {
        Node::Image(namespace, key)
    } else if suffix(rest, ".container").is_some() {
        Node::Container(namespace, key)
    } else {
        Node::Snapshot(namespace, snapshotter(suffix(rest, ".snapshot")?)?, key)
    })
}
