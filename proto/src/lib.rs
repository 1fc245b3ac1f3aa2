//! The wire types of davit's gRPC API, generated from the `.proto` files
//! beside this crate. No logic lives here.

/// The engine's own API, package `davit.v1`.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("davit.v1");
}

/// The compiled descriptors of all files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/davit.bin"));

/// Request metadata key that names the namespace of a davit.v1 call.
pub const NAMESPACE_KEY: &str = "davit-namespace";

/// The namespace of a call that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
