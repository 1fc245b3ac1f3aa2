//! A copy of all image names in a file of its own, so that they are found
//! again when the store was lost: digests can be read off the blobs, names
//! can't.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use davit_store::{
    Error, From as EventsFrom, Item, Result, Store,
    table::{ImageRecord, Images},
};
use serde::{Deserialize, Serialize};

use crate::content::{blocking, make_dir};

/// How long to wait for more changes before writing.
const GATHER: Duration = Duration::from_millis(500);

/// The file: `<root>/images/names.json`.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    path: PathBuf,
    store: Store,
}

/// One name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    #[serde(flatten)]
    pub(crate) record: ImageRecord,
}

#[derive(Default, Serialize, Deserialize)]
struct Document {
    names: Vec<Name>,
}

impl Names {
    pub(crate) fn at(root: &Path, store: Store) -> Result<Self> {
        let dir = root.join("images");
        make_dir(&dir)?;
        Ok(Self {
            path: dir.join("names.json"),
            store,
        })
    }

    /// What the file says; nothing when there is none or it makes no sense.
    pub(crate) fn read(&self) -> Vec<Name> {
        let Ok(text) = fs::read(&self.path) else {
            return Vec::new();
        };
        match serde_json::from_slice::<Document>(&text) {
            Ok(document) => document.names,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the copy of the image names can't be read");
                Vec::new()
            }
        }
    }

    /// What the store says.
    pub(crate) fn recorded(&self) -> Result<Vec<Name>> {
        let found = self.store.scan::<Images>(())?;
        Ok(found
            .into_iter()
            .map(|((namespace, name), record)| Name {
                namespace,
                record: ImageRecord { name, ..record },
            })
            .collect())
    }

    /// Brings the file up to date, durably. Blocks.
    pub(crate) fn write(&self) -> Result<()> {
        let names = self.recorded()?;
        if self.path.exists() && self.read() == names {
            return Ok(());
        }
        let fail = |error: io::Error| Error::io(format!("writing {}", self.path.display()), error);
        let text =
            serde_json::to_vec_pretty(&Document { names }).map_err(|error| fail(error.into()))?;
        let aside = self.path.with_extension("new");
        let mut file = File::create(&aside).map_err(fail)?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .map_err(fail)?;
        fs::rename(&aside, &self.path).map_err(fail)
    }

    /// Writes the file after each change of an image; runs until it is dropped.
    pub(crate) async fn write_forever(self) {
        let mut events = match self.store.events().subscribe(EventsFrom::New) {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(error = error.chain(), "image names are not copied");
                return;
            }
        };
        loop {
            let this = self.clone();
            if let Err(error) = blocking(move || this.write()).await {
                tracing::warn!(
                    error = error.chain(),
                    "copying the image names; trying again with the next change"
                );
            }
            loop {
                match events.next().await {
                    None => return,
                    Some(Item::Event(event)) if event.kind != "image" => {}
                    Some(Item::Event(_) | Item::Lagged { .. }) => break,
                }
            }
            tokio::time::sleep(GATHER).await;
        }
    }
}
