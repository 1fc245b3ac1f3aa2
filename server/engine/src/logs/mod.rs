//! Reading what containers wrote: docker's json-file format, over rotation,
//! by position.
//!
//! A position is an entry's time in nanoseconds: it grows through rotation
//! and restarts, and the shim never gives two entries of a log the same time.

mod entry;
mod files;
mod stream;
mod watch;

pub(crate) use stream::read;
pub(crate) use watch::LogWatch;

/// Bytes of a container's log files, rotated ones too.
pub(crate) fn size(log_path: &std::path::Path) -> u64 {
    files::all(log_path)
        .into_iter()
        .map(|path| path.metadata().map_or(0, |meta| meta.len()))
        .sum()
}
