//! The test harness: starts the real binaries in temporary roots with private
//! sockets, gives them a real registry and real images, and checks afterwards
//! that nothing is left behind.

mod binary;
mod daemon;
mod image;
mod reference;
mod registry;
mod residue;
mod wait;

pub use binary::{Output, binary, command, run, run_ok, workspace_root};
pub use daemon::{Daemon, DaemonBuilder};
pub use image::{ImageSpec, busybox_layout};
pub use reference::api_reference;
pub use registry::Registry;
pub use residue::Residue;
pub use wait::{eventually, eventually_async, until};
