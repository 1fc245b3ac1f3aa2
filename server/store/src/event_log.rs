//! The event log: numbered, kept for a while, replayed and then followed.
//!
//! Subscribers hold nothing but a position. A slow one reads from the store
//! what it has not seen yet, so nothing is dropped on its account; what the
//! log's bounds have taken away meanwhile it is told as [`Item::Lagged`].
//! A subscriber sees an event once a killed daemon could not forget it.

use crate::{
    Result, Store,
    event::{Event, EventRecord},
    record,
    store::{Shared, lock},
    sync::Done,
    transaction::event_key,
    values,
};
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;

/// Events that are kept decoded, so that many subscribers don't each decode
/// them.
const RECENT: usize = 256;

/// Bytes (of their attributes, about) that these may have.
const RECENT_BYTES: usize = 1 << 20;

/// Events that a stream reads at a time.
const STEP: usize = 64;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With what is committed from now on.
    New,
    /// After the event with this number; 0 for all that ever were.
    After(u64),
    /// With the first event of this time or later.
    Since(Timestamp),
    /// With the oldest event that is kept.
    Start,
}

/// What a subscription gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// The next event.
    Event(Arc<Event>),
    /// These numbers are not in the log any more, or never were: events that
    /// were asked for may be missing.
    Lagged {
        /// First number that is missing.
        first: u64,
        /// Last number that is missing.
        last: u64,
    },
}

/// The end of the log, which the next event is put after.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tail {
    /// Number of the last event.
    pub(crate) last: u64,
    /// Its time.
    pub(crate) time: Timestamp,
    /// Bytes of all events up to and with it.
    pub(crate) offset: u64,
    /// Whether numbers were skipped after it.
    pub(crate) gap: bool,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            last: 0,
            time: Timestamp::UNIX_EPOCH,
            offset: 0,
            gap: false,
        }
    }
}

/// What the log holds in memory.
#[derive(Default)]
pub(crate) struct Log {
    recent: Mutex<Recent>,
    watchers: AtomicUsize,
}

#[derive(Default)]
struct Recent {
    events: VecDeque<(Arc<Event>, usize)>,
    bytes: usize,
}

impl Log {
    /// Whether a subscriber waits for news.
    pub(crate) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) > 0
    }

    /// Keeps the events of a commit.
    pub(crate) fn remember(&self, events: Vec<(u64, EventRecord)>) {
        let mut recent = lock(&self.recent);
        for (number, record) in events {
            let event = record.into_event(number);
            let attributes = event.attributes.iter();
            let bytes = 128 + attributes.map(|(k, v)| k.len() + v.len()).sum::<usize>();
            recent.bytes += bytes;
            recent.events.push_back((Arc::new(event), bytes));
        }
        while recent.events.len() > RECENT || recent.bytes > RECENT_BYTES {
            let Some((_, bytes)) = recent.events.pop_front() else {
                break;
            };
            recent.bytes -= bytes;
        }
    }

    /// Events after `after`, if they are all in memory.
    fn recent_after(&self, after: u64, last: u64) -> Option<Vec<Arc<Event>>> {
        let recent = lock(&self.recent);
        let (first, _) = recent.events.front()?;
        if first.number > after + 1 {
            return None;
        }
        let events = recent.events.iter().map(|(event, _)| event);
        let wanted = events.filter(|event| event.number > after && event.number <= last);
        Some(wanted.take(STEP).cloned().collect())
    }
}

/// The event log of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventLog {
    store: Store,
}

impl EventLog {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Number of the last event that was committed; 0 when there was none.
    pub fn last_number(&self) -> u64 {
        lock(&self.store.shared.writer).tail.last
    }

    /// Number of the oldest event that is kept; one more than
    /// [`EventLog::last_number`] when there is none.
    pub fn first_number(&self) -> Result<u64> {
        let shared = &self.store.shared;
        match shared.next_event(0)? {
            Some((number, _)) => Ok(number),
            None => Ok(self.last_number() + 1),
        }
    }

    /// Begins a subscription. It holds the store open.
    pub fn subscribe(&self, from: From) -> Result<EventStream> {
        let shared = &self.store.shared;
        let done = shared.sync.watch();
        let last = self.last_number();
        let mut ready = VecDeque::new();
        let position = match from {
            From::New => last,
            From::After(number) => number.min(last),
            From::Start => shared.next_event(0)?.map_or(last, |(first, _)| first - 1),
            From::Since(time) => {
                if let Some(dropped) = shared.dropped()?
                    && time <= dropped.time
                {
                    ready.push_back(Item::Lagged {
                        first: 1,
                        last: dropped.number,
                    });
                }
                shared.position_of(time, last)?
            }
        };
        Ok(EventStream {
            store: self.store.clone(),
            done,
            position,
            ready,
        })
    }
}

/// A subscription.
#[derive(Debug)]
pub struct EventStream {
    store: Store,
    done: watch::Receiver<Done>,
    /// Number of the last event that was put into `ready`.
    position: u64,
    ready: VecDeque<Item>,
}

impl EventStream {
    /// The next item; waits for it. `None` when the store is closed or
    /// failed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.try_next() {
                return Some(item);
            }
            if self.done.borrow_and_update().over {
                return None;
            }
            let watching = Watching::new(&self.store.shared.log);
            // Committed before anybody watched: have it written now.
            self.store.shared.want_written();
            if self.done.borrow().event <= self.position && self.done.changed().await.is_err() {
                return None;
            }
            drop(watching);
        }
    }

    /// The next item if there is one already.
    pub fn try_next(&mut self) -> Option<Item> {
        if self.ready.is_empty() {
            let visible = self.done.borrow_and_update().event;
            if visible > self.position
                && let Err(e) = self.read(visible)
            {
                tracing::error!(
                    error = e.chain(),
                    "an event stream ends: the log can't be read"
                );
                return None;
            }
        }
        self.ready.pop_front()
    }

    /// Number of the last event that was given (or that lies behind); a later
    /// subscription with [`From::After`] goes on from there.
    pub fn position(&self) -> u64 {
        match self.ready.front() {
            Some(Item::Event(event)) => event.number - 1,
            Some(Item::Lagged { first, .. }) => first - 1,
            None => self.position,
        }
    }

    /// Gets the next few events up to `visible`.
    fn read(&mut self, visible: u64) -> Result<()> {
        let shared = &self.store.shared;
        let events = match shared.log.recent_after(self.position, visible) {
            Some(events) => events,
            None => shared.events_after(self.position, visible)?,
        };
        if events.is_empty() {
            // Everything up to there is gone.
            self.lag_to(visible);
        }
        for event in events {
            if event.number > self.position + 1 {
                self.lag_to(event.number - 1);
            }
            self.position = event.number;
            self.ready.push_back(Item::Event(event));
        }
        Ok(())
    }

    fn lag_to(&mut self, last: u64) {
        self.ready.push_back(Item::Lagged {
            first: self.position + 1,
            last,
        });
        self.position = last;
    }
}

/// Says that somebody waits for events, as long as it lives.
struct Watching<'a>(&'a Log);

impl<'a> Watching<'a> {
    fn new(log: &'a Log) -> Self {
        log.watchers.fetch_add(1, Ordering::SeqCst);
        Self(log)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Number of the event under an entry key.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    let number = key.strip_prefix(&[values::EVENTS])?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

impl Shared {
    /// The first event with this number or a higher one.
    pub(crate) fn next_event(&self, number: u64) -> Result<Option<(u64, EventRecord)>> {
        let backend = self.backend()?;
        let from = event_key(number);
        let found = values::scan(backend.get(), &[values::EVENTS], &from, 1)?;
        match found.first() {
            Some((key, value)) => Ok(Some((
                number_of(key).unwrap_or_default(),
                record::decode(value)?,
            ))),
            None => Ok(None),
        }
    }

    fn events_after(&self, after: u64, last: u64) -> Result<Vec<Arc<Event>>> {
        let backend = self.backend()?;
        let from = event_key(after + 1);
        let mut events = Vec::new();
        for (key, value) in values::scan(backend.get(), &[values::EVENTS], &from, STEP)? {
            let number = number_of(&key).unwrap_or_default();
            if number > last {
                break;
            }
            let record: EventRecord = record::decode(&value)?;
            events.push(Arc::new(record.into_event(number)));
        }
        Ok(events)
    }

    /// Number before the first event of `time` or later, not above `last`.
    /// Times never go back, so halving finds it.
    fn position_of(&self, time: Timestamp, last: u64) -> Result<u64> {
        let Some((first, _)) = self.next_event(0)? else {
            return Ok(last);
        };
        let (mut low, mut high) = (first, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.next_event(middle)? {
                Some((number, event)) if number < high => {
                    if event.time >= time {
                        high = middle;
                    } else {
                        low = number + 1;
                    }
                }
                // A gap up to `high`.
                _ => high = middle,
            }
        }
        Ok(low - 1)
    }
}
