//! The daemon's side of a shim: its bundle on disk, the program, the calls to
//! it, and the streams of what it runs. Nothing here decides anything.

mod bundle;
mod client;
mod launch;
mod process;
mod run;
mod streams;
mod unix;

pub(crate) use bundle::{Bundle, RunFile};
pub(crate) use client::{Client, CreateTask, Deadlines, ExecTask, Exit, RootMount};
pub(crate) use launch::Launcher;
pub(crate) use run::{Ending, NewRun, Run};
pub(crate) use streams::{Connect, Frame, FrameReader, FrameWriter, connect as connect_streams};
