//! Writers: bytes come in, are hashed and land in a file; optionally they go
//! on to whoever unpacks them, in the same step.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc::SyncSender},
};

use bytes::{Bytes, BytesMut};
use davit_store::{Error, Kind, Result};
use tokio::sync::{mpsc, oneshot};

use super::{BlobInfo, Content, Expected, Labels};
use crate::{
    Digest, Operation, Resource,
    digest::{Algorithm, Hasher},
    single_flight::Flight,
    unpack::chunks::Block,
};

/// Where a writer's bytes go on to, besides the file.
pub(crate) type Tee = SyncSender<Block<Bytes>>;

/// Bytes that go to hash, file and tee in one step.
const STEP: usize = 256 << 10;
/// Steps that wait for the disk at most.
const QUEUE: usize = 16;
/// Bytes after which the kernel is told to begin writing them to disk, so
/// that the fsync at the end finds little to do.
const WRITEBACK: u64 = 8 << 20;

enum Command {
    Data(Bytes),
    Restart(Option<Tee>, oneshot::Sender<Result<()>>),
    /// All bytes are here: answers with their digest and number.
    Finish(oneshot::Sender<Result<(Digest, u64)>>),
}

/// Takes the bytes of one blob. Dropping it keeps what has arrived for a
/// later writer of the same reference; [`Writer::abort`] throws it away.
#[derive(Debug)]
pub struct Writer {
    commands: mpsc::Sender<Command>,
    failure: Arc<Mutex<Option<Error>>>,
    offset: u64,
    place: Place,
}

/// What a writer writes and on whose behalf.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) content: Content,
    pub(super) op: Operation,
    pub(super) reference: String,
    pub(super) dir: String,
    pub(super) path: PathBuf,
    pub(super) expected: Expected,
    pub(super) locks: Arc<Locks>,
}

/// What keeps others out, until writer and thread are both gone.
#[derive(Debug)]
pub(super) struct Locks {
    /// Of the reference. It goes first: who waits for the digest takes the
    /// reference next, without waiting.
    pub(super) _reference: Flight,
    /// Of the expected digest, if there is one.
    pub(super) digest: Option<Flight>,
}

impl Writer {
    /// Starts a writer on `file`, which holds the first `offset` bytes; they
    /// are hashed (and sent to `tee`) before anything else.
    pub(super) fn start(place: Place, file: File, offset: u64, tee: Option<Tee>) -> Result<Self> {
        let (commands, mut queue) = mpsc::channel(QUEUE);
        let failure = Arc::new(Mutex::new(None));
        let algorithm = place
            .expected
            .digest
            .as_ref()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let mut sink = Sink {
            file,
            hasher: Hasher::new(algorithm),
            algorithm,
            written: 0,
            hinted: 0,
            limit: place.expected.size,
            tee,
            name: place.reference.clone(),
        };
        let (shared, locks) = (failure.clone(), place.locks.clone());
        std::thread::Builder::new()
            .name("davit-write".into())
            .spawn(move || {
                if let Err(error) = sink.run(&mut queue, offset) {
                    if error.kind() == Kind::ResourceExhausted {
                        // On a full disk what could be resumed some day must not take the space of what is in use.
                        let _ = sink.file.set_len(0);
                    }
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
                // After the reason is there: that the queue is closed is what tells of a failure.
                drop(queue);
                drop((sink, locks));
            })
            .map_err(|error| Error::io("starting a writer thread", error))?;
        Ok(Self {
            commands,
            failure,
            offset,
            place,
        })
    }

    /// Bytes taken so far, those of earlier tries among them: the next byte to
    /// bring.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What was expected when it was opened.
    pub fn expected(&self) -> &Expected {
        &self.place.expected
    }

    /// Takes the next bytes. Waits while the disk is behind.
    /// `FailedPrecondition` when there are more than expected.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        if let Some(size) = self.place.expected.size
            && self.offset.saturating_add(bytes.len() as u64) > size
        {
            return Err(mismatch(
                &self.place,
                format!("more than the expected {size} bytes came in"),
            ));
        }
        while !bytes.is_empty() {
            let step = bytes.split_to(bytes.len().min(STEP));
            let length = step.len() as u64;
            self.send(Command::Data(step)).await?;
            self.offset += length;
        }
        Ok(())
    }

    /// Forgets everything taken so far: the source can't continue at
    /// [`Writer::offset`].
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_into(None).await
    }

    pub(crate) async fn restart_into(&mut self, tee: Option<Tee>) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Restart(tee, reply)).await?;
        self.answer(answer).await?;
        self.offset = 0;
        Ok(())
    }

    /// Checks size and digest, makes the blob durable and records it.
    /// `FailedPrecondition` on a mismatch with what was expected when the
    /// writer was opened; the partial data is gone then.
    pub async fn commit(self, labels: Labels) -> Result<BlobInfo> {
        super::labels::check(&labels)?;
        self.finish().await?.adopt(labels).await
    }

    /// Ends the stream and checks size and digest, as [`Self::commit`] does.
    pub(crate) async fn finish(self) -> Result<Checked> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Finish(reply)).await?;
        let found = self.answer(answer).await?;
        let place = self.place;
        if let Err(error) = check(&place, &found) {
            place.content.drop_ingest(&place).await?;
            return Err(error);
        }
        Ok(Checked { place, found })
    }

    /// Throws away what has arrived.
    pub async fn abort(self) -> Result<()> {
        // The thread holds the file; it is gone when the channel is.
        let place = self.place;
        drop(self.commands);
        place.content.drop_ingest(&place).await
    }

    async fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| self.failed())
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        answer.await.unwrap_or_else(|_| Err(self.failed()))
    }

    fn failed(&self) -> Error {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            // Asked for again by who tries to go on.
            Some(error) => Error::new(error.kind(), error.chain()),
            None => Error::internal(format!("the writer of {:?} is gone", self.place.reference)),
        }
    }
}

/// Bytes that are all here and are what was expected, but no blob yet.
#[derive(Debug)]
pub(crate) struct Checked {
    place: Place,
    found: (Digest, u64),
}

impl Checked {
    /// Makes them a blob.
    pub(crate) async fn adopt(self, labels: Labels) -> Result<BlobInfo> {
        let content = self.place.content.clone();
        content.adopt(self.place, self.found, labels).await
    }

    /// Throws them away.
    pub(crate) async fn abort(self) -> Result<()> {
        self.place.content.drop_ingest(&self.place).await
    }
}

fn mismatch(place: &Place, why: String) -> Error {
    let what = match &place.expected.digest {
        Some(digest) => format!("blob {digest}"),
        None => format!("ingest {:?}", place.reference),
    };
    Error::new(
        Kind::FailedPrecondition,
        format!("{what} is refused: {why}"),
    )
}

fn check(place: &Place, (digest, size): &(Digest, u64)) -> Result<()> {
    if let Some(expected) = place.expected.size
        && expected != *size
    {
        return Err(mismatch(
            place,
            format!("{size} bytes came in, {expected} were expected"),
        ));
    }
    if let Some(expected) = &place.expected.digest
        && expected != digest
    {
        return Err(mismatch(
            place,
            format!("its bytes have the digest {digest}"),
        ));
    }
    Ok(())
}

/// The thread's side: hash, file, tee.
struct Sink {
    file: File,
    hasher: Hasher,
    algorithm: Algorithm,
    written: u64,
    hinted: u64,
    limit: Option<u64>,
    tee: Option<Tee>,
    name: String,
}

impl Sink {
    fn run(&mut self, queue: &mut mpsc::Receiver<Command>, offset: u64) -> Result<()> {
        self.replay(offset)?;
        let mut next = queue.blocking_recv();
        while let Some(command) = next.take() {
            match command {
                Command::Data(bytes) => {
                    let (bytes, after) = gather(bytes, queue);
                    self.take(bytes)?;
                    next = after;
                }
                Command::Restart(tee, reply) => {
                    self.tee = tee;
                    // Nobody waits any more: nothing to tell.
                    let _ = reply.send(self.reset());
                }
                Command::Finish(reply) => {
                    if let Some(tee) = self.tee.take() {
                        let _ = tee.send(Block::End);
                    }
                    let fresh = Hasher::new(self.algorithm);
                    let digest = std::mem::replace(&mut self.hasher, fresh).finish();
                    let _ = reply.send(Ok((digest, self.written)));
                    return Ok(());
                }
            }
            if next.is_none() {
                next = queue.blocking_recv();
            }
        }
        Ok(())
    }

    /// Takes in what an earlier try left in the file.
    fn replay(&mut self, offset: u64) -> Result<()> {
        let mut file = self.file.try_clone().map_err(|error| self.io(error))?;
        let mut source = file.by_ref().take(offset);
        while self.written < offset {
            let mut block = vec![0; STEP];
            let mut filled = 0;
            while filled < STEP {
                match source
                    .read(&mut block[filled..])
                    .map_err(|error| self.io(error))?
                {
                    0 => break,
                    n => filled += n,
                }
            }
            if filled == 0 {
                return Err(Error::internal(format!(
                    "the partial data of {:?} shrank",
                    self.name
                )));
            }
            block.truncate(filled);
            self.hasher.update(&block);
            self.written += filled as u64;
            self.hinted = self.written;
            self.hand_on(block.into());
        }
        Ok(())
    }

    fn take(&mut self, bytes: Bytes) -> Result<()> {
        let end = self.written + bytes.len() as u64;
        if self.limit.is_some_and(|limit| end > limit) {
            return Err(Error::precondition(format!(
                "more bytes than expected for {:?}",
                self.name
            )));
        }
        self.hasher.update(&bytes);
        self.file
            .write_all_at(&bytes, self.written)
            .map_err(|error| self.io(error))?;
        self.written = end;
        if self.written - self.hinted >= WRITEBACK {
            // Only a hint; the fsync at the end is what counts.
            let _ =
                davit_sys::writeback::begin(&self.file, self.hinted, self.written - self.hinted);
            self.hinted = self.written;
        }
        self.hand_on(bytes);
        Ok(())
    }

    /// Sends bytes on. Who unpacks may have failed; it tells so itself.
    fn hand_on(&mut self, bytes: Bytes) {
        if let Some(tee) = &self.tee
            && tee.send(Block::Data(bytes)).is_err()
        {
            self.tee = None;
        }
    }

    fn reset(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(|error| self.io(error))?;
        self.hasher = Hasher::new(self.algorithm);
        (self.written, self.hinted) = (0, 0);
        Ok(())
    }

    fn io(&self, error: std::io::Error) -> Error {
        Error::io(format!("writing the ingest {:?}", self.name), error)
    }
}

/// Puts small pieces that wait in the queue together, so that each step is
/// worth its system call.
fn gather(first: Bytes, queue: &mut mpsc::Receiver<Command>) -> (Bytes, Option<Command>) {
    if first.len() >= STEP / 2 {
        return (first, None);
    }
    let mut all = BytesMut::with_capacity(STEP);
    all.extend_from_slice(&first);
    loop {
        match queue.try_recv() {
            Ok(Command::Data(more)) => {
                all.extend_from_slice(&more);
                if all.len() >= STEP / 2 {
                    return (all.freeze(), None);
                }
            }
            Ok(other) => return (all.freeze(), Some(other)),
            // Four bytes are what tells a compression by; see `Inflate`.
            Err(_) if all.len() < 4 => match queue.blocking_recv() {
                Some(Command::Data(more)) => all.extend_from_slice(&more),
                other => return (all.freeze(), other),
            },
            Err(_) => return (all.freeze(), None),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is partial stays alive by its own record, not by us.
        self.op.release(&Resource::Ingest(self.reference.clone()));
    }
}
