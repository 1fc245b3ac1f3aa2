//! The content store's files: where blobs and ingests lie, and how a file
//! becomes a blob for good.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use davit_store::{Error, Result};

use crate::{Digest, digest::Algorithm};

/// The directories of the content store.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    /// Makes the directories below `root` where they are missing.
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        let files = Self { root };
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            make_dir(&files.blob_dir(algorithm))?;
        }
        make_dir(&files.ingest_root())?;
        Ok(files)
    }

    pub(crate) fn blob_dir(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.name())
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blob_dir(digest.algorithm()).join(digest.hex())
    }

    pub(crate) fn ingest_root(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// The directory name of an ingest: references are free text.
    pub(crate) fn ingest_name(namespace: &str, reference: &str) -> String {
        Digest::of(format!("{namespace}\0{reference}").as_bytes()).hex()[..40].to_owned()
    }

    pub(crate) fn ingest_data(&self, dir: &str) -> PathBuf {
        self.ingest_root().join(dir).join("data")
    }

    /// Size of a blob's file, if there is one.
    pub(crate) fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match fs::symlink_metadata(self.blob(digest)) {
            Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
            Ok(_) => Err(Error::internal(format!(
                "{} is no file",
                self.blob(digest).display()
            ))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("looking for blob {digest}"), error)),
        }
    }

    /// Makes the complete and checked file `from` the blob `digest`: on disk
    /// under its name, for good, before this returns.
    pub(crate) fn adopt(&self, file: &File, from: &Path, digest: &Digest) -> Result<()> {
        let fail = |error: io::Error| Error::io(format!("making blob {digest} durable"), error);
        file.sync_all().map_err(fail)?;
        fail::fail_point!("images.content.after-fsync");
        fs::rename(from, self.blob(digest)).map_err(fail)?;
        fail::fail_point!("images.content.after-rename");
        sync_dir(&self.blob_dir(digest.algorithm())).map_err(fail)
    }

    /// Writes small content aside and makes it a blob.
    pub(crate) fn write_small(&self, bytes: &[u8], digest: &Digest) -> Result<()> {
        let path = self
            .ingest_root()
            .join(format!("put-{}", uuid::Uuid::new_v4().simple()));
        let written = new_file(&path).and_then(|mut file| file.write_all(bytes).map(|()| file));
        let result = match written {
            Ok(file) => self.adopt(&file, &path, digest),
            Err(error) => Err(Error::io(format!("writing blob {digest}"), error)),
        };
        if result.is_err() {
            // Best effort: what is left is swept at the next start.
            let _ = fs::remove_file(&path);
        }
        result
    }

    /// Removes a blob's file. One that is not there is no error.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<u64> {
        let size = self.size(digest)?.unwrap_or(0);
        match fs::remove_file(self.blob(digest)) {
            Ok(()) => Ok(size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(Error::io(format!("removing blob {digest}"), error)),
        }
    }

    /// Removes an ingest's directory.
    pub(crate) fn remove_ingest(&self, dir: &str) -> Result<()> {
        let path = self.ingest_root().join(dir);
        crate::unpack::remove::remove_path(&path)
            .map_err(|error| Error::io(format!("removing the ingest {}", path.display()), error))
    }

    /// Digests of all files in the blob directories; files with other names
    /// are not ours and left alone.
    pub(crate) fn all_blobs(&self) -> Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.blob_dir(algorithm);
            for name in names(&dir)? {
                digests.extend(Digest::parse(&format!("{}:{name}", algorithm.name())));
            }
        }
        Ok(digests)
    }

    /// Names in the ingest directory.
    pub(crate) fn all_ingests(&self) -> Result<Vec<String>> {
        names(&self.ingest_root())
    }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let fail = |error: io::Error| Error::io(format!("reading {}", dir.display()), error);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        names.extend(entry.map_err(fail)?.file_name().into_string());
    }
    Ok(names)
}

/// Makes a directory, and those above it, that only we may look into.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::io(format!("making the directory {}", path.display()), error))
}

/// Makes a new file that only we may read.
fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Makes names in a directory durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
