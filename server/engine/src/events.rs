//! Events about containers, in docker's words.

use std::collections::BTreeMap;

use davit_store::{NewEvent, table::container::ContainerRecord};

/// An event before it is known whom it is about.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    action: String,
    attributes: BTreeMap<String, String>,
    /// The volume that it is about instead of the container.
    volume: Option<String>,
}

impl Draft {
    /// An event of this action.
    pub(crate) fn new(action: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            attributes: BTreeMap::new(),
            volume: None,
        }
    }

    /// An event about a volume, which belongs to a change of a container.
    pub(crate) fn of_volume(volume: &str, action: &str) -> Self {
        Self {
            volume: Some(volume.to_owned()),
            ..Self::new(action)
        }
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.attributes.insert(key.to_owned(), value.to_string());
        self
    }

    /// The event: labels, image and name of the container are attributes too.
    pub(crate) fn about(self, ns: &str, record: &ContainerRecord) -> NewEvent {
        if let Some(volume) = self.volume {
            return NewEvent {
                namespace: ns.to_owned(),
                kind: "volume".to_owned(),
                action: self.action,
                id: volume,
                attributes: self.attributes,
            };
        }
        let mut attributes = record.labels.clone();
        attributes.insert("image".to_owned(), record.image.clone());
        if let Some(details) = record.details.as_deref() {
            attributes.insert("name".to_owned(), details.name.clone());
        }
        attributes.extend(self.attributes);
        NewEvent {
            namespace: ns.to_owned(),
            kind: "container".to_owned(),
            action: self.action,
            id: record.id.clone(),
            attributes,
        }
    }
}
