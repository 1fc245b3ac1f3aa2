//! Trimming: the event log stays within its bounds, in small steps.

use crate::{
    Result, record,
    stats::Counters,
    store::{Shared, lock},
    transaction::event_key,
    values,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Events that one step takes away.
const STEP: u64 = 64;

/// The last event that left the log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Dropped {
    pub(crate) number: u64,
    pub(crate) time: Timestamp,
}

fn dropped_key() -> Vec<u8> {
    let mut key = vec![values::STORE];
    key.extend_from_slice(b"events-dropped");
    key
}

impl Shared {
    /// The last event that left the log, if one did.
    pub(crate) fn dropped(&self) -> Result<Option<Dropped>> {
        match values::get(self.backend()?.get(), &dropped_key())? {
            Some(value) => record::decode(&value).map(Some),
            None => Ok(None),
        }
    }

    /// Takes away events beyond the bounds, until the log is within them. The
    /// last event always stays: it holds the number that the next one follows.
    pub(crate) fn trim(&self) -> Result<()> {
        while self.trim_step()? {}
        Ok(())
    }

    /// One step; whether there may be more to do.
    fn trim_step(&self) -> Result<bool> {
        let tail = lock(&self.writer).tail.clone();
        let Some((first, oldest)) = self.next_event(0)? else {
            return Ok(false);
        };
        let options = &self.options;
        let count = (tail.last + 1).saturating_sub(first);
        let bytes = tail.offset.saturating_sub(oldest.offset);
        let keep_since = Timestamp::now()
            .checked_sub(jiff::SignedDuration::try_from(options.event_max_age).unwrap_or_default())
            .unwrap_or(Timestamp::MIN);
        let too_many = count > options.event_max_count.saturating_add(STEP);
        let too_large = bytes > options.event_max_bytes;
        let too_old = oldest.time < keep_since;
        if !(too_many || too_large || too_old) || first >= tail.last {
            return Ok(false);
        }
        let excess = count.saturating_sub(options.event_max_count);
        let end = (first + STEP).min(tail.last);
        self.transaction(|tx| {
            let mut dropped = None;
            for number in first..end {
                let Some(value) = tx.read(&event_key(number))? else {
                    continue;
                };
                let event: crate::event::EventRecord = record::decode(&value)?;
                let bytes = tail.offset.saturating_sub(event.offset);
                let beyond = number - first < excess
                    || bytes > options.event_max_bytes
                    || event.time < keep_since;
                if !beyond {
                    break;
                }
                tx.write(event_key(number), None)?;
                Counters::add(&self.counters.events_trimmed, 1);
                dropped = Some(Dropped {
                    number,
                    time: event.time,
                });
            }
            match dropped {
                Some(dropped) => {
                    let value = record::encode("event log", &dropped)?;
                    tx.write(dropped_key(), Some(value))?;
                    Ok(true)
                }
                // The log begins with a gap; the next event is the first.
                None => Ok(false),
            }
        })
    }
}
