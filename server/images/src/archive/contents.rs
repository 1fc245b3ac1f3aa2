//! What an archive holds: its files as blobs, and its few documents.

use std::collections::HashMap;

use bytes::Bytes;
use davit_store::{Error, Kind, Result};
use tokio::sync::mpsc;

use super::reader::Piece;
use crate::{
    Digest, Images,
    content::{Expected, Labels, Opened, Writer},
    image::facts::MAX_DOCUMENT,
    lease::Operation,
    unpack::tar::{Entry, EntryKind},
};

/// Entries in one archive.
const MAX_ENTRIES: usize = 200_000;
/// Links that lead to links.
const MAX_LINKS: usize = 8;

/// A file of an archive, in the content store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// An archive, taken apart. Paths are cleaned.
#[derive(Debug, Default)]
pub(super) struct Contents {
    documents: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, Stored>,
    links: HashMap<String, String>,
}

impl Contents {
    /// A document at the top of the archive, "index.json".
    pub(super) fn document(&self, name: &str) -> Option<&[u8]> {
        self.documents.get(name).map(Vec::as_slice)
    }

    /// The file at a path that a document names, through links.
    pub(super) fn blob(&self, path: &str) -> Result<&Stored> {
        let mut at = clean(path)?;
        for _ in 0..MAX_LINKS {
            if let Some(stored) = self.blobs.get(&at) {
                return Ok(stored);
            }
            match self.links.get(&at) {
                Some(to) => at.clone_from(to),
                None => break,
            }
        }
        Err(Error::invalid(format!(
            "the archive names a file {path:?} that it does not have"
        )))
    }
}

/// Where the bytes of the present entry go.
enum Open {
    Nowhere,
    Document(String, Vec<u8>),
    Blob(String, Guarded),
    /// The blob is here already.
    Known(String, Stored),
}

/// A writer that is thrown away unless it is taken: a stream does not come a
/// second time, so there is nothing to go on from.
struct Guarded(Option<Writer>);

impl Drop for Guarded {
    fn drop(&mut self) {
        if let (Some(writer), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                if let Err(error) = writer.abort().await {
                    tracing::debug!(error = error.chain(), "throwing a part of an archive away");
                }
            });
        }
    }
}

impl Images {
    /// Puts the files of an archive into the content store as they come.
    pub(super) async fn take_in(
        &self,
        op: &Operation,
        mut pieces: mpsc::Receiver<Result<Piece>>,
    ) -> Result<Contents> {
        let mut contents = Contents::default();
        let mut open = Open::Nowhere;
        let mut count = 0;
        loop {
            let cut_off = || Error::internal("the archive's reader ended without a word");
            match pieces.recv().await.ok_or_else(cut_off)?? {
                Piece::Data(bytes) => feed(&mut open, bytes).await?,
                Piece::Entry(entry) => {
                    close(&mut contents, std::mem::replace(&mut open, Open::Nowhere)).await?;
                    count += 1;
                    if count > MAX_ENTRIES {
                        return Err(Error::new(
                            Kind::ResourceExhausted,
                            format!("the archive has more than {MAX_ENTRIES} entries"),
                        ));
                    }
                    open = self.open_entry(op, &mut contents, &entry).await?;
                }
                Piece::End => {
                    close(&mut contents, open).await?;
                    return Ok(contents);
                }
            }
        }
    }

    async fn open_entry(
        &self,
        op: &Operation,
        contents: &mut Contents,
        entry: &Entry,
    ) -> Result<Open> {
        let path = text(&entry.path)?;
        let path = clean(path)?;
        match entry.kind {
            EntryKind::File if entry.sparse.is_none() => {}
            EntryKind::Symlink => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target = clean(&format!("{folder}/{}", text(&entry.link)?))?;
                contents.links.insert(path, target);
                return Ok(Open::Nowhere);
            }
            EntryKind::HardLink => {
                let target = clean(text(&entry.link)?)?;
                contents.links.insert(path, target);
                return Ok(Open::Nowhere);
            }
            EntryKind::Directory => return Ok(Open::Nowhere),
            EntryKind::File
            | EntryKind::Char
            | EntryKind::Block
            | EntryKind::Fifo
            | EntryKind::Unknown(_) => {
                return Err(Error::invalid(format!(
                    "the archive has an entry {path:?} that is no plain file"
                )));
            }
        }
        if is_document(&path) {
            if entry.size > MAX_DOCUMENT {
                return Err(Error::new(
                    Kind::ResourceExhausted,
                    format!("{path} in the archive has {} bytes", entry.size),
                ));
            }
            return Ok(Open::Document(path, Vec::new()));
        }
        if is_of_old(&path) {
            return Ok(Open::Nowhere);
        }
        self.open_blob(op, path, entry.size).await
    }

    async fn open_blob(&self, op: &Operation, path: String, size: u64) -> Result<Open> {
        let digest = promised(&path)?;
        let reference = format!("import-{}", uuid::Uuid::new_v4());
        let expected = Expected {
            digest,
            size: Some(size),
        };
        Ok(
            match self.content().writer(op, &reference, expected).await? {
                Opened::Writer(writer) => Open::Blob(path, Guarded(Some(writer))),
                Opened::Exists(info) => {
                    if info.size != size {
                        return Err(Error::invalid(format!(
                            "{path} in the archive has {size} bytes, but that blob has {}",
                            info.size
                        )));
                    }
                    Open::Known(
                        path,
                        Stored {
                            digest: info.digest,
                            size,
                        },
                    )
                }
            },
        )
    }
}

async fn feed(open: &mut Open, bytes: Bytes) -> Result<()> {
    match open {
        Open::Nowhere | Open::Known(..) => {}
        Open::Document(_, text) => text.extend_from_slice(&bytes),
        Open::Blob(_, Guarded(Some(writer))) => writer.write(bytes).await?,
        Open::Blob(_, Guarded(None)) => return Err(Error::internal("an entry without a writer")),
    }
    Ok(())
}

async fn close(contents: &mut Contents, open: Open) -> Result<()> {
    match open {
        Open::Nowhere => {}
        Open::Document(path, text) => {
            contents.documents.insert(path, text);
        }
        Open::Known(path, stored) => {
            contents.links.remove(&path);
            contents.blobs.insert(path, stored);
        }
        Open::Blob(path, mut guarded) => {
            let writer = guarded.0.take();
            let writer = writer.ok_or_else(|| Error::internal("an entry without a writer"))?;
            let info = writer.commit(Labels::new()).await.map_err(|error| {
                Error::new(
                    Kind::InvalidArgument,
                    format!("{path} in the archive: {error}"),
                )
            })?;
            contents.links.remove(&path);
            contents.blobs.insert(
                path,
                Stored {
                    digest: info.digest,
                    size: info.size,
                },
            );
        }
    }
    Ok(())
}

/// What is read at the end, out of memory.
fn is_document(path: &str) -> bool {
    matches!(
        path,
        "index.json" | "manifest.json" | "oci-layout" | "repositories"
    )
}

/// Files of docker before 1.10, which `docker save` went on to write.
fn is_of_old(path: &str) -> bool {
    matches!(path.rsplit_once('/'), Some((folder, "json" | "VERSION")) if !folder.contains('/'))
}

/// The digest that a file's name promises: "blobs/sha256/<hex>", and docker's
/// "<hex>.json" for configs.
fn promised(path: &str) -> Result<Option<Digest>> {
    if let Some(rest) = path.strip_prefix("blobs/") {
        let text = rest.replacen('/', ":", 1);
        let digest = Digest::parse(&text)
            .map_err(|error| error.context(format!("{path:?} in the archive")))?;
        return Ok(Some(digest));
    }
    let config = path.strip_suffix(".json").filter(|name| name.len() == 64);
    Ok(config.and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok()))
}

fn text(path: &[u8]) -> Result<&str> {
    std::str::from_utf8(path).map_err(|_| {
        Error::invalid(format!(
            "the archive has a name that is no text: {:?}",
            String::from_utf8_lossy(path)
        ))
    })
}

/// A path within the archive. It never touches a disk; it is refused all the
/// same when it would leave the archive, as only attackers write such.
fn clean(path: &str) -> Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(Error::invalid(format!("{path:?} in the archive leaves it")));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_within() {
        assert_eq!(clean("./a//b/../c").unwrap(), "a/c");
        assert_eq!(clean("/a").unwrap(), "a");
        assert!(clean("../a").is_err());
        assert!(clean("a/../../b").is_err());
    }

    #[test]
    fn names_promise_digests() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(promised(&format!("blobs/sha256/{hex}")).unwrap().is_some());
        assert!(promised(&format!("{hex}.json")).unwrap().is_some());
        assert!(promised("x/layer.tar").unwrap().is_none());
        assert!(promised("blobs/sha256/x").is_err());
        assert!(promised("blobs/md5/d41d8cd98f00b204e9800998ecf8427e").is_err());
        assert!(is_of_old("abc/json") && is_of_old("abc/VERSION") && !is_of_old("a/b/json"));
    }
}
