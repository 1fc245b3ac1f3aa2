//! davit's metadata: typed tables and the numbered event log, on sled.
//!
//! ```no_run
//! # async fn example() -> davit_store::Result<()> {
//! use davit_store::{From, Item, NewEvent, Options, Store, table::{ImageRecord, Images}};
//!
//! let store = Store::open("/var/lib/davit/store", Options::default())?.store;
//! let number = store.transaction(|tx| {
//!     tx.put::<Images>(("default", "busybox"), &ImageRecord::default())?;
//!     tx.event(NewEvent { kind: "image".into(), action: "pull".into(), ..NewEvent::default() })
//! })?;
//! store.durable().await?;
//! let mut events = store.events().subscribe(From::After(number - 1))?;
//! while let Some(Item::Event(event)) = events.next().await {
//!     println!("{} {}", event.number, event.action);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing outside this crate knows that it is sled. All tables and the log
//! share one of its trees, so that one of its batches changes any of them
//! together:
//!
//! | key begins with | is |
//! | --- | --- |
//! | `r` table name, 0 | a record ([`table`]) |
//! | `e` number | an event |
//! | `c` another key | a piece of a value that is longer than 4 KiB |
//! | `s` | the store's own facts: schema version, seal, end of trimming |
//!
//! Beside sled's directory lie `lock` and `state.json`.

mod backend;
pub mod descriptor;
mod dir_lock;
pub mod error;
mod event;
mod event_log;
mod headroom;
pub mod image_config;
mod key;
mod migrate;
mod open;
pub mod options;
#[cfg(test)]
mod power_cut;
pub mod record;
mod salvage;
mod seal;
mod state;
mod stats;
mod store;
mod sync;
pub mod table;
mod transaction;
mod trim;
mod values;
mod verify;

pub use error::{Error, Kind, Result};
pub use event::{Event, NewEvent};
pub use event_log::{EventLog, EventStream, From, Item};
pub use key::{Key, KeyOf, MAX_KEY, PrefixOf};
pub use open::{Condition, Opened, Options, Previous, check};
pub use record::MAX_RECORD;
pub use stats::Stats;
pub use store::Store;
pub use table::Table;
pub use transaction::{MAX_EVENT, MAX_TRANSACTION, Tx};
pub use verify::Verified;
