//! A log as a stream of entries, with docker's bounds, and on with follow.

use std::{path::Path, sync::Arc};

use async_stream::try_stream;
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};

use super::{
    entry,
    files::{Cursor, From},
    watch::Watch,
};
use crate::{
    Error, Kind, Result,
    index::Handle,
    log_options::LogOptions,
    model::{LogEntry, LogStream, LogsRequest},
    shared::Shared,
};

/// Reads a container's log. `Unimplemented` when it keeps none.
pub(crate) fn read(
    shared: &Arc<Shared>,
    handle: Handle,
    request: LogsRequest,
) -> Result<BoxStream<'static, Result<LogEntry>>> {
    let view = handle.now();
    let details = view.details().cloned().unwrap_or_default();
    if details.log_path.is_empty()
        || LogOptions::of(&shared.config, &details.options.log)? == LogOptions::None
    {
        return Err(Error::new(
            Kind::Unimplemented,
            format!(
                "container {} keeps no log: configured logging driver does not support reading",
                handle.id
            ),
        ));
    }
    let path = std::path::PathBuf::from(&details.log_path);
    let watch = match (request.follow, path.parent()) {
        (true, Some(directory)) => Some(shared.logs.watch(directory)?),
        (true, None) | (false, _) => None,
    };
    Ok(Box::pin(entries(handle, path, watch, request)))
}

fn entries(
    handle: Handle,
    path: std::path::PathBuf,
    mut watch: Option<Watch>,
    request: LogsRequest,
) -> impl futures::Stream<Item = Result<LogEntry>> + Send {
    try_stream! {
        let mut view = handle.view.clone();
        let (mut cursor, mut done) = (open(&path, &request).await?, false);
        // Without follow the log ends where it ends now, even if the
        // container writes faster than the caller reads.
        let until = match (request.until, request.follow) {
            (None, false) => Some(Timestamp::now()),
            (until, _) => until,
        };
        while !done {
            // Looked at before reading: what was written before the end is read.
            let ended = !view.borrow_and_update().may_write();
            loop {
                let (back, batch) = next(cursor, &path).await?;
                cursor = back;
                if batch.is_empty() {
                    break;
                }
                for entry in batch {
                    if until.is_some_and(|until| entry.time > until) {
                        done = true;
                        break;
                    }
                    if wanted(&entry, &request) {
                        yield entry;
                    }
                }
                if done {
                    break;
                }
            }
            match &mut watch {
                Some(_) if ended => done = true,
                Some(watch) if !done => {
                    tokio::select! {
                        () = watch.changed() => {}
                        changed = view.changed() => if changed.is_err() { done = true; },
                        () = sleep_until(until) => done = true,
                    }
                }
                Some(_) | None => done = true,
            }
        }
    }
}

fn wanted(entry: &LogEntry, request: &LogsRequest) -> bool {
    let stream = match entry.stream {
        LogStream::Stdout => request.stdout,
        LogStream::Stderr => request.stderr,
    };
    stream
        && entry.position > request.after
        && request.since.is_none_or(|since| entry.time >= since)
}

async fn open(path: &Path, request: &LogsRequest) -> Result<Cursor> {
    let since = request.since.map_or(0, entry::position);
    let position = since.max(request.after);
    let from = match request.tail {
        Some(count) => From::Tail(count),
        None if position > 0 => From::Position(position),
        None => From::Beginning,
    };
    let owned = path.to_owned();
    blocking(path, move || Cursor::open(&owned, from)).await
}

async fn next(mut cursor: Cursor, path: &Path) -> Result<(Cursor, Vec<LogEntry>)> {
    blocking(path, move || {
        let batch = cursor.next()?;
        Ok((cursor, batch))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|panic| {
            Error::internal("reading a log panicked; this is a bug").with_source(panic)
        })?
        .map_err(|error| Error::io(format!("cannot read the log {}", path.display()), error))
}

async fn sleep_until(until: Option<Timestamp>) {
    match until {
        Some(until) => {
            let left = until
                .duration_since(Timestamp::now())
                .max(SignedDuration::ZERO);
            tokio::time::sleep(left.try_into().unwrap_or_default()).await;
        }
        None => std::future::pending().await,
    }
}
