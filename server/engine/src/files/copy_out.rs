//! Reading: stat, a path as a tar, and the whole file system as a tar.

use std::{os::fd::AsFd, path::Path};

use davit_store::{Error, Result};
use rustix::fs::OFlags;

use super::{Root, place::Place, stream, walk::Walk};
use crate::model::{PathStat, TarStream};

/// What is at `path`. Blocks.
///
/// # Errors
/// `NotFound` in docker's words.
pub fn stat_path(root: &Root, path: &str) -> Result<PathStat> {
    Place::find(root, path)?.to_stat(root, path)
}

/// What is at `path`, and it with everything below as a tar whose entries
/// begin with the path's last component. Found at once; read as the stream is.
///
/// # Errors
/// `NotFound` in docker's words; the stream fails when a file can't be read.
pub async fn copy_out(root: Root, path: &str) -> Result<(PathStat, TarStream)> {
    let path = path.to_owned();
    let find = tokio::task::spawn_blocking(move || {
        let place = Place::find(&root, &path)?;
        let stat = place.to_stat(&root, &path)?;
        Ok((root, place, path, stat))
    });
    let (root, place, path, stat) = find.await.map_err(|panic| {
        Error::internal("looking at a path panicked; this is a bug").with_source(panic)
    })??;
    let tar = stream::produce(move |out| {
        let mut walk = Walk::new(out);
        // From here on names are the archive's, which begin with this one.
        let called = if place.called == "." {
            Path::new("./")
        } else {
            Path::new(&place.called)
        };
        let parent = place.parent.as_fd();
        walk.add(parent, &place.name, called, 0)
            .and_then(|()| walk.finish())
            .map_err(|error| {
                Error::io(
                    format!("reading {path} of container {}", root.name()),
                    error,
                )
            })
    });
    Ok((stat, tar))
}

/// All files below `root`, with paths from the root on ("bin/sh").
pub fn export(root: Root) -> TarStream {
    stream::produce(move |out| {
        let mut walk = Walk::new(out);
        root.open(Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(|dir| walk.children(&dir, Path::new(""), 1))
            .and_then(|()| walk.finish())
            .map_err(|error| Error::io(format!("exporting container {}", root.name()), error))
    })
}
