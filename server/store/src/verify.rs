//! Looking at everything in the store.

use crate::{
    Error, Kind, Result,
    backend::Backend,
    event::EventRecord,
    event_log::{Tail, number_of},
    record,
    seal::{self, Seal},
    table, values,
};
use std::collections::BTreeMap;

/// Entries that are looked at between two looks at the lock.
const STEP: usize = 256;

/// Problems that are told; more are only counted.
const MAX_PROBLEMS: usize = 100;

/// What [`Store::verify`](crate::Store::verify) found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records of each table that has any.
    pub records: BTreeMap<String, u64>,
    /// Events in the log.
    pub events: u64,
    /// Number of the oldest event; 0 without any.
    pub first_event: u64,
    /// Number of the newest event; 0 without any.
    pub last_event: u64,
    /// What is wrong, a sentence each (the first hundred).
    pub problems: Vec<String>,
    /// How many things are wrong.
    pub problem_count: u64,
}

impl Verified {
    pub(crate) fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        }
    }
}

/// Decodes every record and event, checks that event numbers follow each
/// other, and that everything adds up to the seal. Fails when sled itself does.
pub(crate) fn verify(backend: &Backend) -> Result<Verified> {
    let mut found = Verified::default();
    walk(backend, &mut found, check_entry)?;
    Ok(found)
}

/// Checks the seal and nothing else, for records of an older schema.
pub(crate) fn verify_seal(backend: &Backend) -> Result<Verified> {
    let mut found = Verified::default();
    walk(backend, &mut found, |_, _, _, _| ())?;
    Ok(found)
}

/// Gives each entry to `look`, and checks the seal.
fn walk(
    backend: &Backend,
    found: &mut Verified,
    look: fn(&Backend, &mut Verified, &[u8], Vec<u8>),
) -> Result<()> {
    let seal_key = seal::key();
    let mut sum = 0u128;
    let mut from = Vec::new();
    loop {
        let entries = backend.scan(&[], &from, STEP)?;
        let Some((last, _)) = entries.last() else {
            break;
        };
        from.clone_from(last);
        from.push(0);
        for (key, entry) in entries {
            if key == seal_key {
                continue;
            }
            sum = sum.wrapping_add(seal::hash(&key, &entry));
            look(backend, found, &key, entry);
        }
    }
    match Seal::read(backend)? {
        Some(seal) if seal.sum == sum => {}
        Some(_) => found.problem(
            "the sum of all entries is not the sealed one: some are old or missing".to_owned(),
        ),
        None => found.problem("there is no seal".to_owned()),
    }
    Ok(())
}

fn check_entry(backend: &Backend, found: &mut Verified, key: &[u8], entry: Vec<u8>) {
    let result = match key.first() {
        Some(&values::CHUNKS) => check_chunk(backend, key),
        Some(&values::EVENTS) => {
            values::whole(backend, key, entry).and_then(|value| check_event(found, key, &value))
        }
        Some(&values::RECORDS) => values::whole(backend, key, entry).and_then(|value| {
            let name = check_record(key, &value)?;
            *found.records.entry(name.to_owned()).or_default() += 1;
            Ok(())
        }),
        Some(&values::STORE) => values::whole(backend, key, entry).map(drop),
        _ => Err(Error::new(Kind::DataLoss, "an entry of no known kind")),
    };
    if let Err(e) = result {
        found.problem(format!("entry {}: {}", key.escape_ascii(), e.chain()));
    }
}

/// A chunk belongs to an entry.
fn check_chunk(backend: &Backend, key: &[u8]) -> Result<()> {
    let owner = key.get(1..key.len().saturating_sub(2)).unwrap_or_default();
    if backend.get(owner)?.is_some() {
        Ok(())
    } else {
        Err(Error::new(
            Kind::DataLoss,
            "a piece of a value that is gone",
        ))
    }
}

fn check_event(found: &mut Verified, key: &[u8], value: &[u8]) -> Result<()> {
    let number = number_of(key)
        .ok_or_else(|| Error::new(Kind::DataLoss, "the key of an event is damaged"))?;
    let event: EventRecord = record::decode(value)?;
    let expected = found.last_event + 1;
    let first = found.events == 0;
    found.events += 1;
    found.last_event = number;
    if first {
        found.first_event = number;
    } else if number != expected && !event.after_gap {
        found.problem(format!("events {expected} to {} are missing", number - 1));
    }
    Ok(())
}

/// Decodes a record's key and value; gives its table's name.
pub(crate) fn check_record<'k>(key: &'k [u8], value: &[u8]) -> Result<&'k str> {
    let (name, rest) = table_of(key)?;
    let check = table::ALL.iter().find(|(known, _)| *known == name);
    let (_, check) =
        check.ok_or_else(|| Error::new(Kind::DataLoss, format!("there is no table {name:?}")))?;
    check(rest, value)?;
    Ok(name)
}

/// Table name and key of a record's entry.
fn table_of(key: &[u8]) -> Result<(&str, &[u8])> {
    let damaged = || Error::new(Kind::DataLoss, "the key of a record is damaged");
    let rest = key.get(1..).ok_or_else(damaged)?;
    let end = rest.iter().position(|&b| b == 0).ok_or_else(damaged)?;
    let name = std::str::from_utf8(&rest[..end]).map_err(|_| damaged())?;
    Ok((name, &rest[end + 1..]))
}

/// The end of the event log as it lies in the store.
pub(crate) fn tail(backend: &Backend) -> Result<Tail> {
    let Some((key, entry)) = backend.last(values::EVENTS)? else {
        return Ok(Tail::default());
    };
    let value = values::whole(backend, &key, entry)?;
    let event: EventRecord = record::decode(&value)?;
    Ok(Tail {
        last: number_of(&key).unwrap_or_default(),
        time: event.time,
        offset: event.offset + value.len() as u64,
        gap: false,
    })
}
