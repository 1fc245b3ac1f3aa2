//! Transactions: one closure, all of its changes and events or none.
//!
//! There is one writer at a time, so a closure runs exactly once and sees
//! what it wrote itself. Its changes are kept aside and given to sled as one
//! batch when it returns `Ok`.

use crate::{
    Error, Key, Kind, Result,
    event::{EventRecord, NewEvent},
    event_log::Tail,
    key::{KeyOf, MAX_KEY, PrefixOf},
    record,
    store::Shared,
    table::{Meta, Table},
    values,
};
use jiff::Timestamp;
use std::{cell::RefCell, collections::BTreeMap, fmt, ops::Bound};

/// Bytes that one transaction may write.
pub const MAX_TRANSACTION: usize = 8 << 20;

/// Bytes that one event may have.
pub const MAX_EVENT: usize = 64 << 10;

/// What the closure of [`Store::transaction`](crate::Store::transaction)
/// reads and writes with.
pub struct Tx<'a> {
    shared: &'a Shared,
    changes: RefCell<Changes>,
}

/// What a transaction wrote so far.
pub(crate) struct Changes {
    /// By key; `None` deletes.
    pub(crate) values: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Events in order.
    pub(crate) events: Vec<(u64, EventRecord)>,
    /// Where the event log will end.
    pub(crate) tail: Tail,
    bytes: usize,
}

impl fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

impl<'a> Tx<'a> {
    pub(crate) fn new(shared: &'a Shared, tail: Tail) -> Self {
        let changes = Changes {
            values: BTreeMap::new(),
            events: Vec::new(),
            tail,
            bytes: 0,
        };
        Self {
            shared,
            changes: RefCell::new(changes),
        }
    }

    pub(crate) fn into_changes(self) -> Changes {
        self.changes.into_inner()
    }

    /// The record of `key`.
    pub fn get<T: Table>(&self, key: impl KeyOf<T::Key>) -> Result<Option<T::Record>> {
        let key = table_key::<T>(&key)?;
        self.read(&key)?
            .map(|value| decode::<T>(&value))
            .transpose()
    }

    /// Whether `key` has a record.
    pub fn contains<T: Table>(&self, key: impl KeyOf<T::Key>) -> Result<bool> {
        Ok(self.read(&table_key::<T>(&key)?)?.is_some())
    }

    /// Makes `record` the record of `key`, which may have had one.
    /// [`Kind::ResourceExhausted`] when it is too large.
    pub fn put<T: Table>(&self, key: impl KeyOf<T::Key>, record: &T::Record) -> Result<()> {
        let key = table_key::<T>(&key)?;
        let value = record::encode(T::NAME, record)?;
        self.write(key, Some(value))
    }

    /// Makes `record` the record of `key`, which must have none;
    /// [`Kind::AlreadyExists`] otherwise.
    pub fn insert<T: Table>(&self, key: impl KeyOf<T::Key>, record: &T::Record) -> Result<()> {
        let raw = table_key::<T>(&key)?;
        if self.read(&raw)?.is_some() {
            let name = T::NAME;
            return Err(Error::already_exists(format!(
                "{name}: there is a record of this key already"
            )));
        }
        self.write(raw, Some(record::encode(T::NAME, record)?))
    }

    /// Removes the record of `key` and says whether there was one.
    pub fn delete<T: Table>(&self, key: impl KeyOf<T::Key>) -> Result<bool> {
        let key = table_key::<T>(&key)?;
        let there = self.read(&key)?.is_some();
        if there {
            self.write(key, None)?;
        }
        Ok(there)
    }

    /// All records whose keys begin with `prefix`, in order.
    pub fn scan<T: Table>(
        &self,
        prefix: impl PrefixOf<T::Key>,
    ) -> Result<Vec<(T::Key, T::Record)>> {
        let prefix = table_prefix::<T>(&prefix);
        let mut found: BTreeMap<_, _> =
            values::scan(self.shared.backend()?.get(), &prefix, &prefix, usize::MAX)?
                .into_iter()
                .collect();
        let changes = self.changes.borrow();
        let range = (Bound::Included(prefix.clone()), Bound::Unbounded);
        for (key, value) in changes.values.range(range) {
            if !key.starts_with(&prefix) {
                break;
            }
            match value {
                Some(value) => drop(found.insert(key.clone(), value.clone())),
                None => drop(found.remove(key)),
            }
        }
        found
            .iter()
            .map(|(key, value)| decode_entry::<T>(key, value))
            .collect()
    }

    /// Takes the next number of the counter `name`: 1, 2, 3 and so on; a
    /// number is never given twice unless its transaction was aborted.
    pub fn next_number(&self, name: &str) -> Result<u64> {
        let key = format!("counter/{name}");
        let mut counter = self.get::<Meta>(&key)?.unwrap_or_default();
        counter.number += 1;
        self.put::<Meta>(&key, &counter)?;
        Ok(counter.number)
    }

    /// Adds an event to the log and gives its number.
    /// [`Kind::ResourceExhausted`] when it is larger than [`MAX_EVENT`].
    pub fn event(&self, event: NewEvent) -> Result<u64> {
        let mut changes = self.changes.borrow_mut();
        let tail = &mut changes.tail;
        let record = EventRecord {
            time: Timestamp::now().max(tail.time),
            namespace: event.namespace,
            kind: event.kind,
            action: event.action,
            id: event.id,
            attributes: event.attributes,
            offset: tail.offset,
            after_gap: tail.gap,
        };
        let value = record::encode("event", &record)?;
        if value.len() > MAX_EVENT {
            let (kind, action, id) = (&record.kind, &record.action, &record.id);
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "event {kind} {action} of {id}: its attributes have more than {MAX_EVENT} bytes; use fewer or shorter labels"
                ),
            ));
        }
        let number = tail.last + 1;
        *tail = Tail {
            last: number,
            time: record.time,
            offset: tail.offset + value.len() as u64,
            gap: false,
        };
        changes.events.push((number, record));
        drop(changes);
        self.write(event_key(number), Some(value))?;
        Ok(number)
    }

    /// Reads a value below the tables, for migrations.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.changes.borrow().values.get(key) {
            return Ok(value.clone());
        }
        values::get(self.shared.backend()?.get(), key)
    }

    /// Writes a value below the tables.
    pub(crate) fn write(&self, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<()> {
        let mut changes = self.changes.borrow_mut();
        changes.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        if changes.bytes > MAX_TRANSACTION {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("a transaction would write more than {MAX_TRANSACTION} bytes"),
            ));
        }
        changes.values.insert(key, value);
        Ok(())
    }
}

/// Bytes that the keys of table `T` begin with.
fn table_start<T: Table>() -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.push(values::RECORDS);
    key.extend_from_slice(T::NAME.as_bytes());
    key.push(0);
    key
}

/// The entry key of `key` in table `T`; [`Kind::InvalidArgument`] when it is
/// too long.
pub(crate) fn table_key<T: Table>(key: &impl KeyOf<T::Key>) -> Result<Vec<u8>> {
    let mut bytes = table_start::<T>();
    key.encode_key(&mut bytes);
    if bytes.len() > MAX_KEY {
        let (name, length) = (T::NAME, bytes.len());
        return Err(Error::invalid(format!(
            "{name}: the name or id is too long: with its namespace {length} bytes, of which the store takes {MAX_KEY}"
        )));
    }
    Ok(bytes)
}

/// The bytes that entry keys of table `T` with `prefix` begin with.
pub(crate) fn table_prefix<T: Table>(prefix: &impl PrefixOf<T::Key>) -> Vec<u8> {
    let mut bytes = table_start::<T>();
    prefix.encode_prefix(&mut bytes);
    bytes
}

/// The entry key of event `number`.
pub(crate) fn event_key(number: u64) -> Vec<u8> {
    let mut key = vec![values::EVENTS];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The record that `value` is in table `T`.
pub(crate) fn decode<T: Table>(value: &[u8]) -> Result<T::Record> {
    record::decode(value).map_err(|e| e.context(T::NAME))
}

/// Key and record of an entry of table `T`.
pub(crate) fn decode_entry<T: Table>(key: &[u8], value: &[u8]) -> Result<(T::Key, T::Record)> {
    Ok((decode_key::<T>(key)?, decode::<T>(value)?))
}

/// Key of an entry of table `T`.
pub(crate) fn decode_key<T: Table>(key: &[u8]) -> Result<T::Key> {
    let rest = key.get(T::NAME.len() + 2..).unwrap_or_default();
    T::Key::decode(rest).map_err(|e| e.context(T::NAME))
}

/// Record of an entry of table `T`.
pub(crate) fn decode_value<T: Table>(value: &[u8]) -> Result<T::Record> {
    decode::<T>(value)
}

#[cfg(test)]
mod tests {
    use crate::{Kind, Options, Store, table::Containers};

    #[test]
    fn one_damaged_record_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store"), Options::default())
            .unwrap()
            .store;
        let key = super::table_key::<Containers>(&("ns", "bad")).unwrap();
        store
            .transaction(|tx| {
                tx.put::<Containers>(("ns", "good"), &Default::default())?;
                tx.write(key, Some(vec![0xc1, 1, 2]))
            })
            .unwrap();
        assert_eq!(
            store.scan::<Containers>(()).unwrap_err().kind(),
            Kind::DataLoss
        );
        let each = store.scan_each::<Containers>(()).unwrap();
        let found = each
            .iter()
            .map(|((_, id), record)| (id.as_str(), record.is_ok()));
        assert_eq!(found.collect::<Vec<_>>(), [("bad", false), ("good", true)]);
    }
}
