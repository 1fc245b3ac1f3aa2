//! What a layer that was unpacked apart still takes from the layers below:
//! owner, mode, xattrs and times of directories that none of its entries
//! describes.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};

use crate::snapshots::copy::take_after;

/// Gives the directories `implicit` of `layer` what they have in `below`, the
/// merged tree of the layers under it. `false` when one of them is no plain
/// directory there: the layer's path went through a link of a lower layer and
/// has to be unpacked onto it.
pub(crate) fn apply(
    layer: &OwnedFd,
    implicit: &BTreeSet<Vec<u8>>,
    below: &OwnedFd,
) -> io::Result<bool> {
    for path in implicit {
        let name: &[u8] = if path.is_empty() { b"." } else { path };
        let lower = match open(below, name) {
            Ok(lower) => lower,
            Err(Errno::NOENT) => continue,
            Err(Errno::LOOP | Errno::NOTDIR) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mine = match open(layer, name) {
            Ok(mine) => mine,
            // A later entry took its place.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => continue,
            Err(error) => return Err(error.into()),
        };
        take_after(lower.as_fd(), mine.as_fd())?;
    }
    Ok(true)
}

fn open(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
}
