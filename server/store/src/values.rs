//! Values of any size on entries of bounded size.
//!
//! sled keeps up to 17 entries in one page, and moves a page of more than a
//! quarter segment (128 KiB) into a file of its own, which no `fdatasync` of
//! its log reaches. So no entry is larger than [`CHUNK`]: a longer value is
//! cut into chunks under keys of their own, and its entry says how many.
//!
//! An entry begins with 0 and the value, or with 1, the number of chunks (two
//! bytes) and the length of the value (four bytes).

use crate::{
    Error, Kind, Result,
    backend::{Backend, Batch},
};

/// Bytes of a value in one entry.
const CHUNK: usize = 4096;

/// First byte of the keys of chunks.
pub(crate) const CHUNKS: u8 = b'c';
/// First byte of the keys of events.
pub(crate) const EVENTS: u8 = b'e';
/// First byte of the keys of records.
pub(crate) const RECORDS: u8 = b'r';
/// First byte of the keys of the store's own facts.
pub(crate) const STORE: u8 = b's';

const WHOLE: u8 = 0;
const CUT: u8 = 1;

enum Head {
    Whole,
    Cut { chunks: u16, length: usize },
}

fn head(entry: &[u8]) -> Result<Head> {
    match entry {
        [WHOLE, ..] => Ok(Head::Whole),
        [CUT, a, b, rest @ ..] if rest.len() == 4 => Ok(Head::Cut {
            chunks: u16::from_be_bytes([*a, *b]),
            length: u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize,
        }),
        _ => Err(damaged()),
    }
}

fn damaged() -> Error {
    Error::new(Kind::DataLoss, "an entry of the store is damaged")
}

fn chunk_key(key: &[u8], index: u16) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(key.len() + 3);
    chunk.push(CHUNKS);
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(&index.to_be_bytes());
    chunk
}

/// The value of which `entry` under `key` is all or the beginning.
pub(crate) fn whole(backend: &Backend, key: &[u8], entry: Vec<u8>) -> Result<Vec<u8>> {
    match head(&entry)? {
        Head::Whole => {
            let mut value = entry;
            value.remove(0);
            Ok(value)
        }
        Head::Cut { chunks, length } => {
            let mut value = Vec::with_capacity(length.min(1 << 20));
            for index in 0..chunks {
                let chunk = backend.get(&chunk_key(key, index))?.ok_or_else(damaged)?;
                value.extend_from_slice(&chunk);
            }
            if value.len() == length {
                Ok(value)
            } else {
                Err(damaged())
            }
        }
    }
}

/// Reads the value under `key`.
pub(crate) fn get(backend: &Backend, key: &[u8]) -> Result<Option<Vec<u8>>> {
    match backend.get(key)? {
        Some(entry) => whole(backend, key, entry).map(Some),
        None => Ok(None),
    }
}

/// Reads the values whose keys begin with `prefix` and are not below `from`,
/// in order, at most `limit`.
pub(crate) fn scan(
    backend: &Backend,
    prefix: &[u8],
    from: &[u8],
    limit: usize,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    backend
        .scan(prefix, from, limit)?
        .into_iter()
        .map(|(key, entry)| {
            let value = whole(backend, &key, entry)?;
            Ok((key, value))
        })
        .collect()
}

/// The batch that gives each key of `changes` its value, or takes it away.
pub(crate) fn batch<'a>(
    backend: &Backend,
    changes: impl IntoIterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>,
) -> Result<Batch> {
    let mut batch = Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => put(backend, &mut batch, key, value)?,
            None => delete(backend, &mut batch, key)?,
        }
    }
    Ok(batch)
}

/// Adds to `batch` what makes `value` the value of `key`. Chunks that stay
/// the same are not written again.
fn put(backend: &Backend, batch: &mut Batch, key: &[u8], value: &[u8]) -> Result<()> {
    let old = backend.get(key)?;
    let old_chunks = chunks_of(old.as_deref())?;
    let mut chunks = 0;
    if value.len() <= CHUNK {
        let mut entry = Vec::with_capacity(value.len() + 1);
        entry.push(WHOLE);
        entry.extend_from_slice(value);
        batch.put(key, entry, old.as_deref());
    } else {
        for chunk in value.chunks(CHUNK) {
            let chunk_key = chunk_key(key, chunks);
            let old = match chunks < old_chunks {
                true => backend.get(&chunk_key)?,
                false => None,
            };
            if old.as_deref() != Some(chunk) {
                batch.put(&chunk_key, chunk.to_vec(), old.as_deref());
            }
            chunks = chunks.checked_add(1).ok_or_else(too_long)?;
        }
        let length = u32::try_from(value.len()).map_err(|_| too_long())?;
        let mut entry = vec![CUT];
        entry.extend_from_slice(&chunks.to_be_bytes());
        entry.extend_from_slice(&length.to_be_bytes());
        if old.as_deref() != Some(entry.as_slice()) {
            batch.put(key, entry, old.as_deref());
        }
    }
    delete_chunks(backend, batch, key, chunks, old_chunks)
}

/// Adds to `batch` what removes the value of `key`.
fn delete(backend: &Backend, batch: &mut Batch, key: &[u8]) -> Result<()> {
    let Some(old) = backend.get(key)? else {
        return Ok(());
    };
    delete_chunks(backend, batch, key, 0, chunks_of(Some(&old))?)?;
    batch.delete(key, Some(&old));
    Ok(())
}

fn delete_chunks(
    backend: &Backend,
    batch: &mut Batch,
    key: &[u8],
    from: u16,
    to: u16,
) -> Result<()> {
    for index in from..to {
        let chunk_key = chunk_key(key, index);
        let old = backend.get(&chunk_key)?;
        batch.delete(&chunk_key, old.as_deref());
    }
    Ok(())
}

fn chunks_of(entry: Option<&[u8]>) -> Result<u16> {
    match entry.map(head).transpose()? {
        Some(Head::Cut { chunks, .. }) => Ok(chunks),
        Some(Head::Whole) | None => Ok(0),
    }
}

fn too_long() -> Error {
    Error::new(Kind::ResourceExhausted, "a value is too long for the store")
}
