//! Task events to containerd: `Forward` on its ttrpc socket, in order, tried again until they are taken.
//!
//! Under davitd there is no such socket: it keeps a `Wait` open and reads the exit records.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::{events, topics};
use jiff::Timestamp;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use tokio::sync::Notify;

use crate::diag;

/// Kept while containerd is away; the oldest go first. Each is a few hundred bytes.
const MAX_QUEUED: usize = 1024;
/// For one `Forward`.
const DEADLINE: Duration = Duration::from_secs(5);
/// An idle connection is dropped after this.
const IDLE: Duration = Duration::from_secs(10);

/// A cheap handle. Without an address, publishing does nothing.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    address: String,
    namespace: String,
    queue: Mutex<VecDeque<Envelope>>,
    changed: Notify,
    sent: Notify,
}

impl Publisher {
    /// Publishes to the ttrpc socket at `address`, or nowhere when it is empty.
    pub(crate) fn start(address: &str, namespace: &str) -> Publisher {
        if address.is_empty() {
            return Publisher { shared: None };
        }
        let address = if address.starts_with("unix://") {
            address.to_owned()
        } else {
            format!("unix://{address}")
        };
        let shared = Arc::new(Shared {
            address,
            namespace: namespace.to_owned(),
            queue: Mutex::default(),
            changed: Notify::new(),
            sent: Notify::new(),
        });
        tokio::spawn(deliver(shared.clone()));
        Publisher {
            shared: Some(shared),
        }
    }

    /// Whether anybody gets the events.
    pub(crate) fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// Queues a message of the package `containerd.events`; never waits.
    pub(crate) fn publish<M: Message>(&self, topic: &str, event: &M) {
        let Some(shared) = &self.shared else { return };
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(Timestamp::now())),
            namespace: shared.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(pack("containerd.events", event)),
            ..Default::default()
        };
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= MAX_QUEUED {
            queue.pop_front();
            diag::warn(format_args!(
                "more than {MAX_QUEUED} events wait for containerd; the oldest is dropped"
            ));
        }
        queue.push_back(envelope);
        drop(queue);
        shared.changed.notify_one();
    }

    /// Waits until all queued events are delivered, at most `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        let Some(shared) = &self.shared else { return };
        let emptied = async {
            loop {
                let sent = shared.sent.notified();
                if shared
                    .queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .is_empty()
                {
                    return;
                }
                sent.await;
            }
        };
        if tokio::time::timeout(limit, emptied).await.is_err() {
            diag::warn("containerd did not take the last events in time");
        }
    }
}

/// A message as containerd's typeurl wants it: the bare full name, no `type.googleapis.com/`. (The name could be had
/// by reflection, but that would parse and keep all of the package's descriptors.)
pub(crate) fn pack<M: Message>(package: &str, message: &M) -> Any {
    Any {
        type_url: format!("{package}.{}", M::NAME),
        // Only a message with a missing required field fails, and proto3 has none.
        value: message.write_to_bytes().unwrap_or_default(),
        ..Default::default()
    }
}

/// A point in time for the wire.
pub(crate) fn timestamp(at: Timestamp) -> protobuf::well_known_types::timestamp::Timestamp {
    let mut wire = protobuf::well_known_types::timestamp::Timestamp::new();
    wire.seconds = at.as_second();
    wire.nanos = at.subsec_nanosecond();
    wire
}

/// The exit event of one process.
pub(crate) fn exit_event(
    container: &str,
    id: &str,
    exit: &crate::exits::Exit,
) -> (&'static str, events::task::TaskExit) {
    let event = events::task::TaskExit {
        container_id: container.to_owned(),
        id: id.to_owned(),
        pid: u32::try_from(exit.pid).unwrap_or(0),
        exit_status: exit.code,
        exited_at: MessageField::some(timestamp(exit.at)),
        ..Default::default()
    };
    (topics::TASK_EXIT_EVENT_TOPIC, event)
}

async fn deliver(shared: Arc<Shared>) {
    let mut client: Option<EventsClient> = None;
    let mut pause = Duration::from_millis(50);
    loop {
        let head = shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .front()
            .cloned();
        let Some(head) = head else {
            if client.is_none() {
                shared.changed.notified().await;
            } else if tokio::time::timeout(IDLE, shared.changed.notified())
                .await
                .is_err()
            {
                client = None;
            }
            continue;
        };
        let result = match &client {
            Some(client) => forward(client, head).await,
            None => match Client::connect(&shared.address).await {
                Ok(connection) => forward(client.insert(EventsClient::new(connection)), head).await,
                Err(error) => Err(error),
            },
        };
        match result {
            Ok(()) => {
                shared
                    .queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front();
                shared.sent.notify_waiters();
                pause = Duration::from_millis(50);
            }
            Err(error) => {
                client = None;
                if pause >= Duration::from_secs(1) {
                    diag::warn(format_args!(
                        "containerd takes no events at {}: {error}",
                        shared.address
                    ));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }
}

async fn forward(client: &EventsClient, envelope: Envelope) -> ttrpc::Result<()> {
    let request = ForwardRequest {
        envelope: MessageField::some(envelope),
        ..Default::default()
    };
    let deadline = i64::try_from(DEADLINE.as_nanos()).unwrap_or(i64::MAX);
    client
        .forward(ttrpc::context::with_timeout(deadline), &request)
        .await
        .map(drop)
}
