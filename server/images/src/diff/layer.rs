//! Writes differences as a layer: a tar with whiteouts, compressed and stored
//! as it is made.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use davit_store::{Error, Result};
use flate2::{Compression as Level, GzBuilder};
use rustix::fs::{FileType, Stat};
use tokio::sync::mpsc;

use super::{
    ChangeKind, Compression,
    compare::{Found, Trees, compare, opaque_in, open, whiteout_of},
};
use crate::{
    Digest,
    digest::{Algorithm, Hasher},
    tarball::TreeWriter,
};

/// Bytes that are handed on at once.
const BLOCK: usize = 256 << 10;
/// Blocks that wait for the disk.
const QUEUE: usize = 4;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// What comes out of [`produce`].
pub(super) struct Produced {
    /// The layer's bytes; they end early when the work failed.
    pub(super) blocks: mpsc::Receiver<Bytes>,
    /// Digest of the uncompressed tar, or why there is none.
    pub(super) done: tokio::task::JoinHandle<Result<Digest>>,
}

/// Starts writing the layer on a thread of its own.
pub(super) fn produce(
    trees: Trees,
    compression: Compression,
    skip: Vec<PathBuf>,
    what: String,
) -> Produced {
    let (sender, blocks) = mpsc::channel(QUEUE);
    let done = tokio::task::spawn_blocking(move || {
        let out = Blocks {
            sender,
            buffer: BytesMut::with_capacity(BLOCK),
        };
        write(&trees, compression, &skip, out)
            .map_err(|error| Error::io(format!("writing the changes of {what} as a layer"), error))
    });
    Produced { blocks, done }
}

fn write(
    trees: &Trees,
    compression: Compression,
    skip: &[PathBuf],
    mut out: Blocks,
) -> io::Result<Digest> {
    let digest = match compression {
        Compression::None => tar(trees, skip, &mut out)?,
        Compression::Gzip => {
            // No name, no time: the same changes give the same bytes.
            let mut gzip = GzBuilder::new().mtime(0).write(&mut out, Level::default());
            let digest = tar(trees, skip, &mut gzip)?;
            gzip.finish()?;
            digest
        }
        Compression::Zstd => {
            let mut zstd = zstd::stream::write::Encoder::new(&mut out, ZSTD_LEVEL)?;
            let digest = tar(trees, skip, &mut zstd)?;
            zstd.finish()?;
            digest
        }
    };
    out.flush()?;
    Ok(digest)
}

fn tar(trees: &Trees, skip: &[PathBuf], out: &mut dyn Write) -> io::Result<Digest> {
    let mut tree = Layer {
        upper: trees.upper.as_fd(),
        tar: TreeWriter::new(Hashing {
            out,
            hasher: Hasher::new(Algorithm::Sha256),
        }),
        skip,
    };
    compare(trees, &mut |found| tree.take(found))?;
    Ok(tree.tar.finish()?.hasher.finish())
}

struct Layer<'a, W: Write> {
    upper: BorrowedFd<'a>,
    tar: TreeWriter<W>,
    skip: &'a [PathBuf],
}

impl<W: Write> Layer<'_, W> {
    fn take(&mut self, found: &Found) -> io::Result<()> {
        let Some(stat) = &found.stat else {
            // In an opaque directory nothing is left to hide, and overlayfs
            // would show the whiteout itself.
            return if found.covered {
                Ok(())
            } else {
                self.tar.marker(&whiteout_of(&found.path))
            };
        };
        if self.is_skipped(found, stat)? {
            return Ok(());
        }
        let dir = open(self.upper, found.path.parent().unwrap_or(Path::new("")))?;
        let name = found.path.file_name().unwrap_or_default();
        match self.tar.add(dir.as_fd(), name, &found.path, stat) {
            // Removed by the running container meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        if found.opaque {
            self.tar.marker(&opaque_in(&found.path))?;
        }
        Ok(())
    }

    /// Empty files and directories that were only made to mount something on.
    fn is_skipped(&self, found: &Found, stat: &Stat) -> io::Result<bool> {
        if found.kind != ChangeKind::Added || !self.skip.contains(&found.path) {
            return Ok(false);
        }
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => stat.st_size == 0,
            FileType::Directory => {
                let dir = open(self.upper, &found.path)?;
                let mut rest = false;
                for entry in rustix::fs::Dir::read_from(&dir)? {
                    let name = entry?.file_name().to_bytes().to_vec();
                    let place = found.path.join(OsStr::from_bytes(&name));
                    rest |= name != b"." && name != b".." && !self.skip.contains(&place);
                }
                !rest
            }
            _ => false,
        })
    }
}

/// Hashes what goes through.
struct Hashing<'a> {
    out: &'a mut dyn Write,
    hasher: Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Hands bytes to the async side in blocks.
struct Blocks {
    sender: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = bytes.len().min(BLOCK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..take]);
        if self.buffer.len() == BLOCK {
            self.flush()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(BLOCK)).freeze();
        self.sender.blocking_send(block).map_err(|_| {
            io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes the layer any more")
        })
    }
}
