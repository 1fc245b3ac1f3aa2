//! Unpacking a tar into a directory of a container.
//!
//! The archive may be anybody's and the container may be running and change
//! its directories meanwhile: every name is looked up beneath the container's
//! root by the kernel, files are made anew and never written through, and
//! nothing is left open longer than its entry.

mod unpack;

use std::io::{self, BufReader};

use davit_images::tarball::{Inflate, Tar};
use davit_store::{Error, Kind, Result};
use rustix::{fs::OFlags, io::Errno};

use super::{
    Root, place,
    root::read_only,
    stream::{self, Reader},
};
use crate::model::{CopyInOptions, TarStream};
use unpack::Unpack;

/// Bytes that tell a compression.
const MAGIC: usize = 8;

/// Bytes of the decompressed stream that are held.
const BUFFER: usize = 128 << 10;

/// Unpacks `tar` (plain, gzip or zstd) into the directory `options.path`.
/// Owners are those of the archive.
///
/// # Errors
/// `NotFound` when the directory is not there, `InvalidArgument` when it is
/// none or the archive is broken, `PermissionDenied` when it is read-only.
/// What was unpacked before the error stays, as with tar(1).
pub async fn copy_in(root: Root, options: CopyInOptions, tar: TarStream) -> Result<()> {
    stream::consume(tar, move |reader| run(&root, &options, reader)).await
}

fn run(root: &Root, options: &CopyInOptions, mut reader: Reader) -> Result<()> {
    let path = options.path.as_str();
    if path.is_empty() || path.contains('\0') {
        return Err(Error::invalid(
            "the path to unpack at is empty or contains a NUL byte",
        ));
    }
    let base = place::resolve(root, path)?;
    root.open(&base, OFlags::PATH | OFlags::DIRECTORY).map_err(
        |error| match Errno::from_io_error(&error) {
            Some(Errno::NOTDIR) => Error::invalid("extraction point is not a directory"),
            _ => root.refuse(path, error),
        },
    )?;
    if root.is_read_only() {
        return Err(Error::new(
            Kind::PermissionDenied,
            read_only(path, root.name()),
        ));
    }
    let broken = |error: io::Error| archive_error(root, path, error);
    reader.gather(MAGIC).map_err(broken)?;
    let mut tar = Tar::new(BufReader::with_capacity(
        BUFFER,
        Inflate::new(reader).map_err(broken)?,
    ));
    let mut unpack = Unpack::new(root, base, options.no_overwrite_dir_non_dir);
    while let Some(entry) = tar.next_entry().map_err(broken)? {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let in_entry = |error: io::Error| entry_error(root, path, &name, error);
        unpack
            .entry(&entry, &mut |sink| tar.data(sink))
            .map_err(in_entry)?;
    }
    unpack.finish().map_err(|error| root.refuse(path, error))?;
    tar.drain().map_err(broken)
}

/// A stream that is no archive, or ends early.
fn archive_error(root: &Root, path: &str, error: io::Error) -> Error {
    let text = format!(
        "the archive for {path} of container {} can't be read",
        root.name()
    );
    let kind = match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            Kind::InvalidArgument
        }
        _ => Kind::Internal,
    };
    Error::new(kind, text).with_source(error)
}

fn entry_error(root: &Root, path: &str, name: &str, error: io::Error) -> Error {
    let context = format!("unpacking entry {name:?} at {path}");
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            archive_error(root, path, error).context(context)
        }
        _ => root.refuse(path, error).context(context),
    }
}

#[cfg(test)]
mod tests;
