//! The Docker door: serves the Docker Engine API (REST over a Unix socket) by
//! calling davit.v1. It is a gRPC client like any other and keeps no state, so
//! it can be stopped and started while containers run.
//!
//! ```text
//! server.rs    connections: accept, HTTP/1.1, limits, shutdown
//! router.rs    which handler a path belongs to; routes.rs is the table
//! request.rs   what a handler gets; body.rs, fields.rs, filters.rs read it
//! reply.rs     what it gives back; failure.rs is the one error table
//! hijack.rs    upgraded connections: raw bytes both ways, half-close, frames
//! convert/     docker's JSON from and to davit.v1, each conversion once
//! containers/ exec.rs images/ system/ …   one file a resource, thin handlers
//! ```

mod body;
mod build;
mod containers;
mod convert;
mod distribution;
mod exec;
mod failure;
mod fields;
mod filters;
mod gateway;
mod hijack;
mod images;
mod networks;
mod plugins;
mod reply;
mod request;
mod router;
mod routes;
mod server;
mod socket;
mod swarm;
mod system;
mod version;
mod volumes;

pub use gateway::Config;
pub use server::serve;
pub use socket::bind;
pub use version::{MAX_API_VERSION, MIN_API_VERSION};

/// Where the gateway listens unless it is told otherwise.
pub const DEFAULT_ADDRESS: &str = "/run/davit/docker.sock";
