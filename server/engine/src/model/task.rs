//! Running containers as callers ask for and see them.

use bytes::Bytes;
pub use davit_store::options::{ExecOptions, TerminalSize};
use jiff::Timestamp;
use tokio::sync::mpsc;

/// See `davit.v1.StartResponse`.
#[derive(Debug, Clone, Copy)]
pub struct StartResponse {
    pub pid: u32,
    pub already_running: bool,
}

/// How Stop and Restart stop.
#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// By name or number; the container's when empty.
    pub signal: String,
    /// Seconds before KILL; the container's when None; negative: for ever.
    pub timeout: Option<i32>,
}

/// See `davit.v1.StopResponse`.
#[derive(Debug, Clone, Copy)]
pub struct StopResponse {
    pub already_stopped: bool,
}

/// See `davit.v1.KillRequest`.
#[derive(Debug, Clone, Default)]
pub struct KillOptions {
    /// By name ("KILL", "SIGKILL") or number; KILL when empty.
    pub signal: String,
    /// To all processes of the container.
    pub all: bool,
    /// To this exec instead, when not empty.
    pub exec_id: String,
}

/// When a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    #[default]
    NotRunning,
    NextExit,
    Removed,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitStatus {
    pub exit_code: i32,
    pub exited_at: Option<Timestamp>,
    pub error: String,
    pub oom_killed: bool,
}

/// See `davit.v1.ExecDetails`.
#[derive(Debug, Clone)]
pub struct ExecDetails {
    pub id: String,
    pub container_id: String,
    pub options: ExecOptions,
    pub running: bool,
    pub started: bool,
    /// Some once it has ended (or could not be started: 126, 127).
    pub exit_code: Option<i32>,
    pub pid: Option<u32>,
    pub error: String,
}

/// Which exec to start with its streams.
#[derive(Debug, Clone)]
pub enum ExecTarget {
    /// One that create_exec made.
    Prepared(String),
    /// Prepare and run one in this container.
    New {
        container: String,
        options: ExecOptions,
    },
}

/// See `davit.v1.AttachStart`.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// What is in the log first, then the live stream without a gap.
    pub logs: bool,
    /// Follow the live stream.
    pub stream: bool,
    /// "ctrl-p,ctrl-q"; looked for only when given and with a terminal.
    pub detach_keys: String,
}

/// What a caller sends into an attached container or exec.
#[derive(Debug, Clone)]
pub enum Input {
    Stdin(Bytes),
    /// Half-close: no more input, output goes on.
    CloseStdin,
    Resize(TerminalSize),
}

/// What comes out of an attached container or exec.
#[derive(Debug, Clone)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The process ended; all output was sent before.
    Exit(ExitStatus),
    /// The detach keys were typed, or the caller's half-close ended the
    /// session (stdin kept open for others).
    Detached,
}

/// The streams of a container or an exec. Dropping it detaches; the process
/// goes on.
#[derive(Debug)]
pub struct Session {
    /// Id of the exec; empty for Attach.
    pub exec_id: String,
    /// Process id of the exec; None for Attach.
    pub pid: Option<u32>,
    /// Whether there is a terminal (stdout carries both streams).
    pub tty: bool,
    /// Bounded: a full one means that the process does not read its stdin.
    /// Dropping it without `CloseStdin` leaves stdin open.
    pub input: mpsc::Sender<Input>,
    /// Ends after `Exit` or `Detached`, or with an error.
    pub output: mpsc::Receiver<davit_store::Result<Output>>,
}

/// See `davit.v1.LogsRequest`.
#[derive(Debug, Clone, Default)]
pub struct LogsRequest {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// The last n lines; None for all.
    pub tail: Option<u64>,
    /// Go on after this position; 0 for the beginning.
    pub after: u64,
}

/// Which stream a log entry came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// See `davit.v1.LogEntry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub stream: LogStream,
    pub time: Timestamp,
    /// A line with its newline, or a part of a long line.
    pub line: Bytes,
    /// Grows, also across rotation.
    pub position: u64,
    pub partial: bool,
}
