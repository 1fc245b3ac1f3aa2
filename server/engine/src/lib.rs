//! The engine: containers and what they run.
//!
//! It owns each container's life: one task (actor) a container, its state an
//! enum whose variants carry their data. It knows no wire format; doors convert
//! to and from [`model`].
#![allow(unused_variables, dead_code)] // skeleton; goes with the first filling

mod config;
mod containers;
pub mod files;
pub mod init;
pub mod model;
pub mod processes;
pub mod spec;
mod tasks;
pub mod usage;

pub use config::EngineConfig;
pub use containers::Containers;
pub use davit_store::{Error, Kind, Result};
pub use tasks::{Tasks, Waiter};

/// A handle on the engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {}

impl Engine {
    /// Containers: what is to run, and the files it has.
    pub fn containers(&self) -> Containers {
        Containers::new(self.clone())
    }

    /// Tasks: what containers run.
    pub fn tasks(&self) -> Tasks {
        Tasks::new(self.clone())
    }
}
