//! Events as they are recorded. What they say is docker's vocabulary; the
//! store looks at nothing but number and time.

use crate::record::is_default;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Something that happened, before it has a number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewEvent {
    /// Namespace of what changed; empty for the daemon's own.
    pub namespace: String,
    /// What changed: "container", "image", "volume", "network", "daemon".
    pub kind: String,
    /// What happened, in docker's words.
    pub action: String,
    /// Id of what changed.
    pub id: String,
    /// Labels, name, image, exitCode, signal and the like.
    pub attributes: BTreeMap<String, String>,
}

/// Something that happened: [`NewEvent`] with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Position in the log; the first one is 1, the next one is one more. No
    /// number is ever used for two events, whatever happens to the store.
    pub number: u64,
    /// When it was recorded; never before the event with a lower number.
    pub time: Timestamp,
    /// Namespace of what changed; empty for the daemon's own.
    pub namespace: String,
    /// What changed.
    pub kind: String,
    /// What happened.
    pub action: String,
    /// Id of what changed.
    pub id: String,
    /// Labels, name, image, exitCode, signal and the like.
    pub attributes: BTreeMap<String, String>,
}

/// An event as it is stored; its number is the key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EventRecord {
    pub(crate) time: Timestamp,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) namespace: String,
    pub(crate) kind: String,
    pub(crate) action: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) id: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) attributes: BTreeMap<String, String>,
    /// Bytes of all events before this one since the log began, so that the
    /// size of the log is a difference of two of these.
    pub(crate) offset: u64,
    /// Numbers were skipped between the event before this one and this one:
    /// after a power cut, or when the store was made anew.
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) after_gap: bool,
}

impl EventRecord {
    pub(crate) fn into_event(self, number: u64) -> Event {
        Event {
            number,
            time: self.time,
            namespace: self.namespace,
            kind: self.kind,
            action: self.action,
            id: self.id,
            attributes: self.attributes,
        }
    }
}
