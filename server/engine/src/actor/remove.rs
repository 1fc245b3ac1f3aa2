//! Removing a container: the intent first, then its name is free, then what
//! it has on disk goes, then the record.

use std::time::Duration;

use davit_store::table::container::Phase;
use tokio::time::Instant;

use super::{Actor, Reply, State, Then};
use crate::{
    Error, Kind, Result,
    events::Draft,
    model::RemoveOptions,
    policy::{self, Call},
    volumes,
};

/// Longest pause between two tries of a removal.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Actor {
    pub(super) async fn remove_on_call(&mut self, options: RemoveOptions, reply: Reply<()>) {
        if let Err(error) = policy::admit(
            Call::Remove {
                force: options.force,
            },
            self.status(),
            &self.id,
        ) {
            let _ = reply.send(Err(error));
            return;
        }
        match &self.state {
            State::Running(_) => self.kill_for_removal(options, reply).await,
            State::Created
            | State::Exited
            | State::Backoff { .. }
            | State::Dead { .. }
            | State::Removing => {
                self.remove_for(vec![Then::Remove(options, reply)]).await;
            }
        }
    }

    /// Removes it for callers, who are answered.
    pub(super) async fn remove_for(&mut self, removes: Vec<Then>) {
        let with_volumes = removes
            .iter()
            .any(|then| matches!(then, Then::Remove(options, _) if options.volumes));
        let result = self.remove(with_volumes).await;
        for then in removes {
            if let Then::Remove(_, reply) = then {
                let answer = match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(Error::new(error.kind(), error.chain())),
                };
                let _ = reply.send(answer);
            }
        }
    }

    /// Removes it since it was made with auto_remove.
    pub(super) async fn remove_by_itself(&mut self) {
        if let Err(error) = self.remove(false).await {
            tracing::warn!(container = %self.id, error = %error.chain(), "cannot remove it now; trying again");
        }
    }

    /// Tries a removal that failed once more.
    pub(super) async fn remove_again(&mut self, pause: Duration) {
        if let Err(error) = self.remove(false).await {
            tracing::warn!(container = %self.id, error = %error.chain(), "still cannot remove it");
            let pause = (pause * 2).min(LONGEST_PAUSE);
            self.state = State::Dead {
                retry: Instant::now() + pause,
                pause,
            };
        }
    }

    /// Removes it; its anonymous volumes too when that is wanted, was wanted by
    /// an earlier call, or it was made to go by itself.
    async fn remove(&mut self, with_volumes: bool) -> Result<()> {
        if self.removed {
            return Ok(());
        }
        let name = self.details().name;
        self.state = State::Removing;
        self.commit(
            |record| {
                if let Some(details) = record.details.as_deref_mut() {
                    details.state.phase = Phase::Removing;
                    details.remove_volumes |= with_volumes || details.options.auto_remove;
                }
            },
            Vec::new(),
        )?;
        self.shared.index.release_name(&self.ns, &name, &self.id);
        self.publish();
        match self.erase().await {
            Ok(()) => Ok(()),
            Err(error) => {
                let text = error.chain();
                self.note(
                    |details| {
                        details.state.phase = Phase::Dead;
                        details.state.error = text;
                    },
                    Vec::new(),
                );
                let pause = policy::FIRST_BACKOFF;
                self.state = State::Dead {
                    retry: Instant::now() + pause,
                    pause,
                };
                self.publish();
                Err(error.context(format!(
                    "cannot remove container {}; it is tried again",
                    self.id
                )))
            }
        }
    }

    async fn erase(&mut self) -> Result<()> {
        let shared = &self.shared;
        // The tombstone must be known before anything goes.
        shared.store.written().await?;
        fail::fail_point!("engine.remove.after-intent");
        if let Some(run) = &self.run {
            shared.retire(run, true).await;
            self.run = None;
        }
        volumes::release(shared, &self.ns, &self.id).await;
        let snapshots = shared.images.snapshots(&self.record.snapshotter)?;
        match snapshots.remove(&self.ns, &self.record.snapshot_key).await {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
        for mount in self.details().mounts {
            if mount.snapshot_key.is_empty() {
                continue;
            }
            match snapshots.remove(&self.ns, &mount.snapshot_key).await {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        fail::fail_point!("engine.remove.after-snapshot");
        let dir = self.details().dir;
        if !dir.is_empty() {
            match tokio::fs::remove_dir_all(&dir).await {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(format!("cannot remove {dir}"), error)),
            }
        }
        fail::fail_point!("engine.remove.after-dir");
        let (event, doomed) = shared.forget(
            &self.ns,
            &self.record,
            Draft::new("destroy").about(&self.ns, &self.record),
        )?;
        self.event = event;
        shared.store.durable().await?;
        fail::fail_point!("engine.remove.after-record");
        self.removed = true;
        self.waiting.clear();
        shared.index.remove(&self.ns, &self.id);
        shared.execs.forget(&self.id);
        volumes::finish_doomed(shared, &self.ns, &doomed).await;
        self.publish();
        Ok(())
    }

    pub(super) fn gone(&self) -> Error {
        Error::not_found(format!("No such container: {}", self.id))
    }
}
