//! Which containers use an image.

use davit_store::{
    Result,
    table::{ContainerRecord, Containers, container::Phase},
};

use crate::Images;

/// A container, as far as images care.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    /// Image id, or empty when the container was made by name only.
    image_id: String,
    /// Image as it was asked for.
    image: String,
    pub(crate) running: bool,
}

impl User {
    /// Whether it was made from the image with this id and these names.
    pub(crate) fn uses(&self, image_id: &str, names: &[String]) -> bool {
        if self.image_id.is_empty() {
            return names.contains(&self.image);
        }
        self.image_id == image_id
    }

    fn of(record: ContainerRecord) -> Self {
        let details = record.details.unwrap_or_default();
        let running = matches!(
            details.state.phase,
            Phase::Running | Phase::Paused | Phase::Restarting
        );
        Self {
            id: record.id,
            image_id: details.image_id,
            image: record.image,
            running,
        }
    }
}

impl Images {
    /// The containers of a namespace.
    pub(crate) fn users(&self, namespace: &str) -> Result<Vec<User>> {
        let records = self.store().scan::<Containers>(namespace)?;
        Ok(records
            .into_iter()
            .map(|(_, record)| User::of(record))
            .collect())
    }
}

/// The first twelve digits of an id, as docker shows it.
pub(crate) fn short(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}
