//! The task that owns one container. It alone changes the container's state;
//! everybody else sends it a [`Command`] or reads the [`View`] it publishes.
//!
//! ```text
//!            start                    process ends
//!  Created ────────► Running ───────────────────────► Exited ──► (Removing ──► gone)
//!                    │   ▲ ▲                            │ ▲              │
//!              pause │   │ └──────── Backoff ◄──policy──┘ │              └─► Dead ─► again
//!                    ▼   │ resume       └───── stop ──────┘
//!                   (paused)
//! ```

mod change;
mod end;
mod network;
mod remove;
mod start;
mod stop;

use std::{sync::Arc, time::Duration};

use davit_store::{
    options::NetworkAttachment,
    table::container::{ContainerRecord, Details},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    Result,
    events::Draft,
    health::Plan,
    index::Handle,
    model::{
        ContainerStatus, Health, KillOptions, RemoveOptions, StartResponse, StopOptions,
        StopResponse, UpdateContainerRequest,
    },
    session::Waiting,
    shared::Shared,
    shim::{Ending, Run},
    view::View,
};

pub(crate) use start::Revived;

/// Where the answer to a command goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What an actor is asked to do, or told.
#[derive(Debug)]
pub(crate) enum Command {
    Start(Reply<StartResponse>),
    Stop(StopOptions, Reply<StopResponse>),
    Restart(StopOptions, Reply<u32>),
    Kill(KillOptions, Reply<()>),
    Pause(Reply<()>),
    Resume(Reply<()>),
    Rename(String, Reply<()>),
    Update(Box<UpdateContainerRequest>, Reply<Vec<String>>),
    Remove(RemoveOptions, Reply<()>),
    /// Connects it to a network, by the network's name.
    Connect(String, Box<NetworkAttachment>, Reply<()>),
    /// Takes it off a network.
    Disconnect(String, Reply<()>),
    /// Wants the streams of the run that comes next.
    Attach(Waiting),
    /// An event about this container that changes nothing in it.
    Event(Draft),
    /// The run of this number ended.
    Ended(u64, Ending),
    /// A health check of this run found something; true when the status
    /// changed.
    Health(u64, Health, bool),
    /// Start it, as the policy wants it at the daemon's start.
    Boot,
}

/// What a container does; each state with what it needs.
#[derive(Debug)]
pub(crate) enum State {
    Created,
    Running(Running),
    /// Ended; it starts again at `until`.
    Backoff {
        until: Instant,
        pause: Duration,
    },
    Exited,
    Removing,
    /// Its removal failed; tried again at `retry`.
    Dead {
        retry: Instant,
        pause: Duration,
    },
}

/// A run under way.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) run: Arc<Run>,
    pub(crate) paused: bool,
    /// The pause before this start, when the policy made it.
    pub(crate) backoff: Option<Duration>,
    /// A stop under way.
    pub(crate) stopping: Option<Stopping>,
    /// Somebody asked for the end.
    pub(crate) by_hand: bool,
    /// What waits for the end.
    pub(crate) then: Vec<Then>,
    pub(crate) watchers: Watchers,
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stopping {
    /// The signal was sent; KILL follows.
    Asked { kill_at: Option<Instant> },
    /// KILL was sent.
    Killed { give_up_at: Instant },
}

/// What follows an end that somebody asked for.
#[derive(Debug)]
pub(crate) enum Then {
    Stopped(Reply<StopResponse>),
    Restart(Reply<u32>),
    Remove(RemoveOptions, Reply<()>),
}

/// Tasks that watch a run; they end with it.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Vec<JoinHandle<()>>);

impl Watchers {
    pub(crate) fn add(&mut self, task: JoinHandle<()>) {
        self.0.push(task);
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// One container.
#[derive(Debug)]
pub(crate) struct Actor {
    shared: Arc<Shared>,
    ns: Arc<str>,
    id: Arc<str>,
    record: Arc<ContainerRecord>,
    state: State,
    health: Option<Health>,
    /// The shim, until what the run left is cleaned up.
    run: Option<Arc<Run>>,
    ends: u64,
    event: u64,
    removed: bool,
    /// Sessions that wait for the next run.
    waiting: Vec<Waiting>,
    files: Arc<tokio::sync::Mutex<()>>,
    mailbox: mpsc::Receiver<Command>,
    /// For the tasks that watch a run; weak, so that the actor ends with the
    /// last handle.
    myself: mpsc::WeakSender<Command>,
    view: watch::Sender<Arc<View>>,
}

/// Starts the actor of a container and gives the way to it.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    ns: &str,
    record: ContainerRecord,
    found: Revived,
) -> Handle {
    let (sender, mailbox) = mpsc::channel(64);
    let id: Arc<str> = record.id.as_str().into();
    let ns: Arc<str> = ns.into();
    let record = Arc::new(record);
    let files = Arc::default();
    let (view, receiver) = watch::channel(Arc::new(View::blank(Arc::clone(&record))));
    let mut actor = Actor {
        shared: Arc::clone(shared),
        ns: Arc::clone(&ns),
        id: Arc::clone(&id),
        record,
        state: State::Created,
        health: None,
        run: None,
        ends: 0,
        event: 0,
        removed: false,
        waiting: Vec::new(),
        files: Arc::clone(&files),
        mailbox,
        myself: sender.downgrade(),
        view,
    };
    actor.revive(found);
    actor.publish();
    shared.spawn_actor(actor.serve());
    Handle {
        ns,
        id,
        mailbox: sender,
        view: receiver,
        files,
    }
}

enum Wake {
    Command(Command),
    Timer,
    Nobody,
}

impl Actor {
    async fn serve(mut self) {
        while !self.removed {
            let deadline = self.deadline();
            let timer = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let wake = tokio::select! {
                command = self.mailbox.recv() => command.map_or(Wake::Nobody, Wake::Command),
                () = timer => Wake::Timer,
                () = self.shared.closing() => Wake::Nobody,
            };
            match wake {
                // Boxed: the idle actor stays small, whatever its work needs.
                Wake::Command(command) => Box::pin(self.obey(command)).await,
                Wake::Timer => Box::pin(self.alarm()).await,
                Wake::Nobody => return,
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Start(reply) => {
                let answer = self.start_by_hand().await;
                let _ = reply.send(answer);
            }
            Command::Stop(options, reply) => self.stop(options, Then::Stopped(reply)).await,
            Command::Restart(options, reply) => self.stop(options, Then::Restart(reply)).await,
            Command::Kill(options, reply) => {
                let answer = self.kill(&options).await;
                let _ = reply.send(answer);
            }
            Command::Pause(reply) => {
                let answer = self.pause().await;
                let _ = reply.send(answer);
            }
            Command::Resume(reply) => {
                let answer = self.resume().await;
                let _ = reply.send(answer);
            }
            Command::Rename(name, reply) => {
                let answer = self.rename(&name).await;
                let _ = reply.send(answer);
            }
            Command::Update(request, reply) => {
                let answer = self.update(*request).await;
                let _ = reply.send(answer);
            }
            Command::Remove(options, reply) => self.remove_on_call(options, reply).await,
            Command::Connect(network, attachment, reply) => {
                let answer = self.connect(&network, *attachment).await;
                let _ = reply.send(answer);
            }
            Command::Disconnect(network, reply) => {
                let answer = self.disconnect(&network).await;
                let _ = reply.send(answer);
            }
            Command::Attach(waiting) => self.attach(waiting),
            Command::Event(draft) => self.tell(draft),
            Command::Ended(number, ending) => self.ended(number, ending).await,
            Command::Health(number, health, changed) => self.healthy(number, health, changed),
            Command::Boot => self.boot().await,
        }
    }

    /// When the next thing is due without anybody asking.
    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Running(running) => match running.stopping? {
                Stopping::Asked { kill_at } => kill_at,
                Stopping::Killed { give_up_at } => Some(give_up_at),
            },
            State::Backoff { until, .. } => Some(*until),
            State::Dead { retry, .. } => Some(*retry),
            State::Created | State::Exited | State::Removing => None,
        }
    }

    async fn alarm(&mut self) {
        match self.state {
            State::Running(_) => self.escalate().await,
            State::Backoff { pause, .. } => self.start_again(pause).await,
            State::Dead { pause, .. } => self.remove_again(pause).await,
            State::Created | State::Exited | State::Removing => {}
        }
    }

    fn status(&self) -> ContainerStatus {
        match &self.state {
            State::Created => ContainerStatus::Created,
            State::Running(running) if running.paused => ContainerStatus::Paused,
            State::Running(_) => ContainerStatus::Running,
            State::Backoff { .. } => ContainerStatus::Restarting,
            State::Exited => ContainerStatus::Exited,
            State::Removing => ContainerStatus::Removing,
            State::Dead { .. } => ContainerStatus::Dead,
        }
    }

    /// davit's part of the record; an actor is made only for records with it.
    fn details(&self) -> Details {
        self.record.details.as_deref().cloned().unwrap_or_default()
    }

    fn plan(&self) -> Option<Plan> {
        let details = self.record.details.as_deref()?;
        Plan::new(details.config.healthcheck.as_ref()?, &details.config.shell)
    }

    /// Writes the record, changed by `change`, with its events, in one
    /// transaction.
    fn commit(
        &mut self,
        change: impl FnOnce(&mut ContainerRecord),
        drafts: Vec<Draft>,
    ) -> Result<()> {
        let mut record = (*self.record).clone();
        change(&mut record);
        record.updated_at = jiff::Timestamp::now();
        self.write(record, drafts)
    }

    /// As [`Actor::commit`] for what has happened already: a store that
    /// refuses can't undo it, so memory has the truth and the log the error.
    fn note(&mut self, change: impl FnOnce(&mut Details), drafts: Vec<Draft>) {
        let mut record = (*self.record).clone();
        if let Some(details) = record.details.as_deref_mut() {
            change(details);
        }
        record.updated_at = jiff::Timestamp::now();
        if let Err(error) = self.write(record.clone(), drafts) {
            tracing::error!(container = %self.id, error = %error.chain(), "cannot record a change of state");
            self.record = Arc::new(record);
        }
    }

    fn write(&mut self, record: ContainerRecord, drafts: Vec<Draft>) -> Result<()> {
        let events = drafts
            .into_iter()
            .map(|draft| draft.about(&self.ns, &record))
            .collect();
        if let Some(number) = self.shared.write(&self.ns, &record, events)? {
            self.event = number;
        }
        self.record = Arc::new(record);
        Ok(())
    }

    /// An event that changes nothing.
    fn tell(&mut self, draft: Draft) {
        match self.shared.event(draft.about(&self.ns, &self.record)) {
            Ok(number) => self.event = number,
            Err(error) => {
                tracing::error!(container = %self.id, error = %error.chain(), "cannot record an event");
            }
        }
    }

    /// Lets everybody see the state as it is now.
    fn publish(&mut self) {
        self.view.send_replace(Arc::new(View {
            record: Arc::clone(&self.record),
            status: self.status(),
            run: self.run.clone(),
            health: self.health.clone(),
            ends: self.ends,
            removed: self.removed,
            event: self.event,
        }));
    }

    fn healthy(&mut self, number: u64, health: Health, changed: bool) {
        if !matches!(&self.state, State::Running(running) if running.run.number == number) {
            return;
        }
        if changed {
            self.tell(Draft::new(format!(
                "health_status: {}",
                health.status.as_str()
            )));
        }
        self.health = Some(health);
        self.publish();
    }

    fn attach(&mut self, waiting: Waiting) {
        match &self.state {
            State::Running(running) => drop(waiting.go(Arc::clone(&running.run))),
            State::Created | State::Exited | State::Backoff { .. } => {
                self.waiting.retain(|waiting| !waiting.is_gone());
                self.waiting.push(waiting);
            }
            State::Removing | State::Dead { .. } => drop(waiting),
        }
    }
}
