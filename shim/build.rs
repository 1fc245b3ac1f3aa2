//! Links the shim at a fixed address.
//!
//! A position-independent program has the loader write some 300 KiB of pointers, which no two processes share; there
//! are as many shims as containers.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
