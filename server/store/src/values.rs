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

/// Adds to `batch` what makes `value` the value of `key`. Chunks that stay
/// the same are not written again.
pub(crate) fn put(backend: &Backend, batch: &mut Batch, key: &[u8], value: &[u8]) -> Result<()> {
    let old = chunks_of(backend, key)?;
    let mut new = 0;
    if value.len() <= CHUNK {
        let mut entry = Vec::with_capacity(value.len() + 1);
        entry.push(WHOLE);
        entry.extend_from_slice(value);
        batch.put(key, entry);
    } else {
        for chunk in value.chunks(CHUNK) {
            let chunk_key = chunk_key(key, new);
            if new >= old || backend.get(&chunk_key)?.as_deref() != Some(chunk) {
                batch.put(&chunk_key, chunk.to_vec());
            }
            new = new.checked_add(1).ok_or_else(too_long)?;
        }
        let length = u32::try_from(value.len()).map_err(|_| too_long())?;
        let mut entry = vec![CUT];
        entry.extend_from_slice(&new.to_be_bytes());
        entry.extend_from_slice(&length.to_be_bytes());
        batch.put(key, entry);
    }
    for index in new..old {
        batch.delete(&chunk_key(key, index));
    }
    Ok(())
}

/// Adds to `batch` what removes the value of `key`.
pub(crate) fn delete(backend: &Backend, batch: &mut Batch, key: &[u8]) -> Result<()> {
    for index in 0..chunks_of(backend, key)? {
        batch.delete(&chunk_key(key, index));
    }
    batch.delete(key);
    Ok(())
}

fn chunks_of(backend: &Backend, key: &[u8]) -> Result<u16> {
    Ok(match backend.get(key)? {
        Some(entry) => match head(&entry)? {
            Head::Whole => 0,
            Head::Cut { chunks, .. } => chunks,
        },
        None => 0,
    })
}

fn too_long() -> Error {
    Error::new(Kind::ResourceExhausted, "a value is too long for the store")
}
