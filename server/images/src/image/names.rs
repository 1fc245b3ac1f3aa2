//! Image names: records that point to manifests, changed together with the
//! event that tells of it.

use davit_store::{
    NewEvent, Result, Tx,
    descriptor::Descriptor,
    table::{ImageRecord, Images as Table, NamespaceRecord, Namespaces},
};
use jiff::Timestamp;

use super::DANGLING_LABEL;
use crate::{Images, Reference, content::Labels};

/// What records of images without a name are called, before the digest.
const DANGLING_PREFIX: &str = "dangling@";
/// Label of the image that one was committed from.
pub(crate) const PARENT_LABEL: &str = "davit/parent";

/// Whether a record only keeps an image without a name.
pub(crate) fn is_dangling(record: &ImageRecord) -> bool {
    record.labels.contains_key(DANGLING_LABEL) || record.name.starts_with(DANGLING_PREFIX)
}

/// The name of the record that keeps an image without a name.
pub(crate) fn dangling_name(digest: &str) -> String {
    format!("{DANGLING_PREFIX}{digest}")
}

/// A name as people write it; of a dangling image its digest.
pub(crate) fn familiar(name: &str) -> String {
    match name.strip_prefix(DANGLING_PREFIX) {
        Some(digest) => digest.to_owned(),
        None => Reference::parse(name)
            .map_or_else(|_| name.to_owned(), |reference| reference.familiar()),
    }
}

/// A name that is to point to an image.
#[derive(Debug, Clone)]
pub(crate) struct Pointing<'a> {
    pub(crate) namespace: &'a str,
    /// Full name; empty to keep the image without one.
    pub(crate) name: &'a str,
    pub(crate) target: &'a Descriptor,
    /// Image id of the target.
    pub(crate) image_id: &'a str,
    /// Labels to add to the record.
    pub(crate) labels: Labels,
    /// What to tell about it.
    pub(crate) event: NewEvent,
}

impl Images {
    /// Points a name to an image. An image that lost its last name by that is
    /// kept as a dangling one. One transaction, durable when it
    /// returns. Gives the record as it was before.
    pub(crate) async fn point(&self, pointing: Pointing<'_>) -> Result<Option<ImageRecord>> {
        let namespace = pointing.namespace;
        let before = loop {
            let seen = match pointing.name {
                "" => None,
                name => self.store().get::<Table>((namespace, name))?,
            };
            let keep = match &seen {
                Some(old) if old.target.digest != pointing.target.digest => {
                    // The same image in another index is not an old one.
                    self.id_of(namespace, &old.target).await != pointing.image_id
                }
                _ => false,
            };
            let outcome = self.store().transaction(|tx| {
                let before = match pointing.name {
                    "" => None,
                    name => tx.get::<Table>((namespace, name))?,
                };
                let digest =
                    |record: &Option<ImageRecord>| record.as_ref().map(|r| r.target.digest.clone());
                if digest(&before) != digest(&seen) {
                    return Ok(None);
                }
                point_in(tx, &pointing, before.as_ref(), keep)?;
                Ok(Some(before))
            })?;
            if let Some(before) = outcome {
                break before;
            }
        };
        fail::fail_point!("images.names.after-point");
        self.store().durable().await?;
        Ok(before)
    }

    /// The image id of a target, or its own digest when it can't be read.
    pub(crate) async fn id_of(&self, namespace: &str, target: &Descriptor) -> String {
        let wanted = crate::platform::Wanted::new(None);
        match self.facts(namespace, target, &wanted).await {
            Ok(facts) => facts.config.digest.clone(),
            Err(_) => target.digest.clone(),
        }
    }
}

fn point_in(
    tx: &Tx<'_>,
    pointing: &Pointing<'_>,
    before: Option<&ImageRecord>,
    keep: bool,
) -> Result<()> {
    let namespace = pointing.namespace;
    ensure_namespace(tx, namespace)?;
    let now = Timestamp::now();
    if let Some(old) = before.filter(|_| keep) {
        keep_nameless(tx, namespace, pointing.name, old, now)?;
    }
    let dangling = dangling_name(&pointing.target.digest);
    let mut labels = pointing.labels.clone();
    let name = match pointing.name {
        "" => {
            labels.insert(DANGLING_LABEL.to_owned(), "true".to_owned());
            &dangling
        }
        name => {
            // It has a name now.
            tx.delete::<Table>((namespace, &dangling))?;
            name
        }
    };
    let mut record = before.cloned().unwrap_or_else(|| ImageRecord {
        name: name.to_owned(),
        created_at: now,
        ..ImageRecord::default()
    });
    if record.target.digest != pointing.target.digest {
        record.labels.remove(PARENT_LABEL);
        record.updated_at = now;
    }
    record.target = pointing.target.clone();
    record.labels.extend(labels);
    tx.put::<Table>((namespace, name), &record)?;
    tx.event(pointing.event.clone()).map(drop)
}

/// Keeps the image that `name` pointed to, unless another name does.
fn keep_nameless(
    tx: &Tx<'_>,
    namespace: &str,
    name: &str,
    old: &ImageRecord,
    now: Timestamp,
) -> Result<()> {
    let others = tx.scan::<Table>(namespace)?;
    if others
        .iter()
        .any(|(_, other)| other.name != name && other.target.digest == old.target.digest)
    {
        return Ok(());
    }
    let dangling = dangling_name(&old.target.digest);
    let mut labels = old.labels.clone();
    labels.insert(DANGLING_LABEL.to_owned(), "true".to_owned());
    let record = ImageRecord {
        name: dangling.clone(),
        target: old.target.clone(),
        labels,
        created_at: old.created_at,
        updated_at: now,
    };
    tx.put::<Table>((namespace, &dangling), &record)
}

/// Records a namespace with the first thing that is put into it.
fn ensure_namespace(tx: &Tx<'_>, name: &str) -> Result<()> {
    if tx.contains::<Namespaces>(name)? {
        return Ok(());
    }
    let now = Timestamp::now();
    let record = NamespaceRecord {
        name: name.to_owned(),
        created_at: now,
        updated_at: now,
        ..NamespaceRecord::default()
    };
    tx.put::<Namespaces>(name, &record)
}

/// An event about an image, in docker's form: `id` is the image id or the
/// name as people write it, `name` says which name it was.
pub(crate) fn event(namespace: &str, action: &str, id: &str, name: &str) -> NewEvent {
    let mut attributes = Labels::new();
    if !name.is_empty() {
        attributes.insert("name".to_owned(), name.to_owned());
    }
    NewEvent {
        namespace: namespace.to_owned(),
        kind: "image".to_owned(),
        action: action.to_owned(),
        id: id.to_owned(),
        attributes,
    }
}
