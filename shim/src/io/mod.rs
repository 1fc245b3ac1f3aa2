//! A process's stdin, stdout and stderr: pipes or a terminal on one side, whatever the caller asked for on the other.

pub(crate) mod attach;
mod copy;
pub(crate) mod frame;
pub(crate) mod hub;
pub(crate) mod input;
pub(crate) mod json_log;
mod logger;
pub(crate) mod scratch;
mod spool;
pub(crate) mod target;
pub(crate) mod terminal;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use davit_sys::ready::watch as watched;
use tokio::io::Interest;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::copy::{Outflow, Sink};
use self::hub::Hub;
use self::input::Input;
use self::json_log::JsonLog;
use self::target::{Output, Source, StdioRequest};
use self::terminal::Terminal;
use crate::error::{Error, Result};
use crate::exits::Exit;
use crate::runtime::ProcessIo;

/// Which of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout = 0,
    Stderr = 1,
}

/// For output that a terminal's other end has been given but this end cannot read yet.
const TTY_DRAIN: Duration = Duration::from_millis(200);

/// This side of a process's stdio.
#[derive(Debug)]
pub(crate) struct Stdio {
    /// Under davitd only.
    pub(crate) hub: Option<Arc<Hub>>,
    pub(crate) input: Arc<Input>,
    pub(crate) terminal: Arc<Terminal>,
    tty: bool,
    waiting: Mutex<Waiting>,
    flows: Mutex<Vec<Arc<Outflow>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// How many outputs have not ended.
    open: watch::Sender<usize>,
    over: watch::Sender<bool>,
}

/// What [`Stdio::start`] will use: nothing is read before the process exists.
#[derive(Debug, Default)]
struct Waiting {
    outputs: Vec<(Option<OwnedFd>, Sink)>,
    stdin: Option<OwnedFd>,
    fifo: Option<OwnedFd>,
}

/// Opens a process's stdio: the process's side and ours.
///
/// # Errors
/// A bad request, or the system's.
pub(crate) async fn open(
    request: &StdioRequest,
    container: &str,
    namespace: &str,
    spill: &Path,
) -> Result<(ProcessIo, Stdio)> {
    let (source, output) = request.parse()?;
    let input = Arc::new(if source == Source::Null {
        Input::closed()
    } else {
        Input::pending()
    });
    let terminal = Arc::new(Terminal::default());
    let hub = match &output {
        Output::Davit(log) => Some(Arc::new(davit_hub(
            request.terminal,
            log.clone(),
            &input,
            &terminal,
            spill,
        )?)),
        Output::Null | Output::Fifos { .. } | Output::File(_) | Output::Binary(_) => None,
    };
    let mut waiting = Waiting::default();
    if let Source::Fifo(path) = &source {
        let (fifo, keeper) = open_stdin_fifo(path).map_err(|error| failed(path, &error))?;
        waiting.fifo = Some(fifo);
        input.keep(keeper);
    }
    let mut sinks = Sinks::open(&output, hub.as_ref(), container, namespace).await?;
    let io = if request.terminal {
        waiting
            .outputs
            .push((None, sinks.take(Stream::Stdout, true)?));
        ProcessIo::Console
    } else {
        let stdin = pipe_in(source != Source::Null, &mut waiting)?;
        let stdout = sinks.child(Stream::Stdout, &mut waiting)?;
        let stderr = sinks.child(Stream::Stderr, &mut waiting)?;
        ProcessIo::Fds {
            stdin,
            stdout,
            stderr,
        }
    };
    let stdio = Stdio {
        hub,
        input,
        terminal,
        tty: request.terminal,
        waiting: Mutex::new(waiting),
        flows: Mutex::default(),
        tasks: Mutex::default(),
        open: watch::Sender::new(0),
        over: watch::Sender::new(false),
    };
    Ok((io, stdio))
}

impl Stdio {
    /// Begins to copy: the process exists. `console` is the terminal's master, if there is one.
    ///
    /// # Errors
    /// The system's, when a descriptor cannot be watched.
    pub(crate) fn start(&self, console: Option<OwnedFd>) -> io::Result<()> {
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let master = match console {
            Some(console) => Some(Arc::new(watched(
                console,
                Interest::READABLE.add(Interest::WRITABLE),
            )?)),
            None => None,
        };
        if let Some(master) = &master {
            self.terminal.open(master.clone());
            self.input.open(master.clone(), true);
        } else if let Some(stdin) = waiting.stdin {
            self.input
                .open(Arc::new(watched(stdin, Interest::WRITABLE)?), false);
        }
        if let Some(fifo) = waiting.fifo {
            let fifo = watched(fifo, Interest::READABLE)?;
            self.task(tokio::spawn(copy::feed(fifo, self.input.clone())));
        }
        for (fd, sink) in waiting.outputs {
            let source = match (fd, &master) {
                (Some(fd), _) => Arc::new(watched(fd, Interest::READABLE)?),
                (None, Some(master)) => master.clone(),
                (None, None) => continue,
            };
            self.flow(Arc::new(Outflow {
                source,
                tty: self.tty,
                sink,
            }));
        }
        Ok(())
    }

    fn flow(&self, flow: Arc<Outflow>) {
        self.flows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(flow.clone());
        self.open.send_modify(|open| *open += 1);
        let (open, over) = (self.open.clone(), self.over.subscribe());
        self.task(tokio::spawn(async move {
            flow.run(over).await;
            open.send_modify(|open| *open -= 1);
        }));
    }

    fn task(&self, task: JoinHandle<()>) {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(task);
    }

    /// The process has ended: takes what it wrote (others that hold its pipes may go on writing), so that the log has
    /// it before anybody is told.
    pub(crate) async fn settle(&self) {
        self.over.send_replace(true);
        if self.tty && self.hub.is_some() {
            // The kernel passes a terminal's output on in the background.
            self.drained(TTY_DRAIN).await;
        }
        let flows = self
            .flows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for flow in flows {
            flow.drain();
        }
    }

    /// Tells attached clients how the process ended. Call it after [`Stdio::settle`].
    pub(crate) fn finish(&self, exit: &Exit) {
        if let Some(hub) = &self.hub {
            hub.finish(exit);
        }
    }

    /// Waits until all outputs have ended, at most `limit`.
    pub(crate) async fn drained(&self, limit: Duration) {
        let mut open = self.open.subscribe();
        // Whoever still holds the pipes is not waited for longer.
        let _ = tokio::time::timeout(limit, open.wait_for(|open| *open == 0)).await;
    }

    /// Stops copying and closes everything.
    pub(crate) fn close(&self) {
        for task in self
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            task.abort();
        }
        self.flows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Waiting::default();
        self.input.end();
        self.terminal.close();
        if let Some(hub) = &self.hub {
            hub.abandon();
        }
        scratch::touch();
    }

    /// The caller writes no more to stdin.
    pub(crate) fn close_stdin(&self) {
        // A FIFO ends by itself when its other writers have closed it; what it still holds must arrive.
        if !self.input.release() && self.hub.is_some() {
            self.input.close();
        }
    }
}

fn davit_hub(
    tty: bool,
    log: Option<json_log::LogOptions>,
    input: &Arc<Input>,
    terminal: &Arc<Terminal>,
    spill: &Path,
) -> Result<Hub> {
    // A backlog belongs on a disk, and the log's is known to be one.
    let spill = log
        .as_ref()
        .and_then(|log| log.path.parent())
        .unwrap_or(spill)
        .to_owned();
    let log = match log {
        Some(options) => {
            let path = options.path.clone();
            Some(JsonLog::open(options).map_err(|error| failed(&path, &error))?)
        }
        None => None,
    };
    Ok(Hub::new(tty, input.clone(), terminal.clone(), log, &spill))
}

/// The far sides of both outputs.
enum Sinks {
    Null,
    Hub(Arc<Hub>),
    Fifos {
        stdout: Option<Sink>,
        stderr: Option<Sink>,
    },
    File(Arc<File>),
    /// A logger reads the process's pipes itself.
    Logger {
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    },
}

impl Sinks {
    async fn open(
        output: &Output,
        hub: Option<&Arc<Hub>>,
        container: &str,
        namespace: &str,
    ) -> Result<Sinks> {
        let fifo = |path: &Option<std::path::PathBuf>| match path {
            Some(path) => open_out(path)
                .map(Some)
                .map_err(|error| failed(path, &error)),
            None => Ok(None),
        };
        Ok(match (output, hub) {
            (Output::Davit(_), Some(hub)) => Sinks::Hub(hub.clone()),
            (Output::Null | Output::Davit(_), _) => Sinks::Null,
            (Output::Fifos { stdout, stderr }, _) => Sinks::Fifos {
                stdout: fifo(stdout)?,
                stderr: fifo(stderr)?,
            },
            (Output::File(path), _) => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(|error| failed(path, &error))?;
                }
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o644)
                    .open(path);
                Sinks::File(Arc::new(file.map_err(|error| failed(path, &error))?))
            }
            (Output::Binary(binary), _) => {
                let logger::Logger { stdout, stderr } =
                    logger::start(binary, container, namespace).await?;
                Sinks::Logger {
                    stdout: Some(stdout),
                    stderr: Some(stderr),
                }
            }
        })
    }

    /// The sink of one stream, for copying to it.
    fn take(&mut self, stream: Stream, tty: bool) -> Result<Sink> {
        let is_stdout = stream == Stream::Stdout;
        Ok(match self {
            Sinks::Null => Sink::Null,
            Sinks::Hub(hub) => Sink::Hub(hub.clone(), stream),
            Sinks::File(file) => Sink::File(file.clone()),
            Sinks::Fifos { stdout, stderr } => {
                let one = if is_stdout {
                    stdout.take()
                } else {
                    stderr.take()
                };
                // A terminal has one output; a client may have given either name.
                one.or_else(|| if tty { stderr.take() } else { None })
                    .unwrap_or(Sink::Null)
            }
            Sinks::Logger { stdout, stderr } => match if is_stdout {
                stdout.take()
            } else {
                stderr.take()
            } {
                Some(fd) => Sink::Fd(
                    watched(fd, Interest::WRITABLE)
                        .map_err(|error| Error::because("logger's pipe", error))?,
                ),
                None => Sink::Null,
            },
        })
    }

    /// The process's end of one stream; ours, if there is something to copy, is put into `waiting`.
    fn child(&mut self, stream: Stream, waiting: &mut Waiting) -> Result<OwnedFd> {
        if let Sinks::Logger { stdout, stderr } = self {
            let end = if stream == Stream::Stdout {
                stdout.take()
            } else {
                stderr.take()
            };
            return end.map_or_else(null, Ok);
        }
        match self.take(stream, false)? {
            Sink::Null => null(),
            sink => {
                let (read, write) =
                    io::pipe().map_err(|error| Error::because("making a pipe", error))?;
                waiting.outputs.push((Some(read.into()), sink));
                Ok(write.into())
            }
        }
    }
}

fn pipe_in(open: bool, waiting: &mut Waiting) -> Result<OwnedFd> {
    if !open {
        return null();
    }
    let (read, write) = io::pipe().map_err(|error| Error::because("making a pipe", error))?;
    waiting.stdin = Some(write.into());
    Ok(read.into())
}

fn null() -> Result<OwnedFd> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from)
        .map_err(|error| Error::because("opening /dev/null", error))
}

/// Opens an output FIFO so that neither a reader that is not there yet nor one that goes away is an error; what is no
/// FIFO is appended to.
fn open_out(path: &Path) -> io::Result<Sink> {
    if !fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        return Ok(Sink::File(Arc::new(file)));
    }
    let fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nonblock())
        .open(path)?;
    Ok(Sink::Fd(watched(fifo.into(), Interest::WRITABLE)?))
}

/// The FIFO to read, and a writing end that keeps it from ending while no client has it open.
fn open_stdin_fifo(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let read = OpenOptions::new()
        .read(true)
        .custom_flags(nonblock())
        .open(path)?;
    if !read.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "stdin is no FIFO",
        ));
    }
    let keep = OpenOptions::new()
        .write(true)
        .custom_flags(nonblock())
        .open(path)?;
    Ok((read.into(), keep.into()))
}

fn nonblock() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0)
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::because(format_args!("opening {}", path.display()), error)
}
