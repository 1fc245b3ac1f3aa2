//! Compiles `davit/v1/*.proto` with protox, a compiler in Rust, so that a
//! build needs no `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: &[&str] = &[
    "davit/v1/types.proto",
    "davit/v1/images.proto",
    "davit/v1/containers.proto",
    "davit/v1/tasks.proto",
    "davit/v1/events.proto",
    "davit/v1/networks.proto",
    "davit/v1/system.proto",
    "davit/v1/volumes.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("davit.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        // Channels are the client crate's; and Networks has a Connect of its own.
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
