//! davit-sys: the only crate of davit with `unsafe` code.
//!
//! Small safe wrappers over the system calls that neither std, nix nor rustix offers in a safe form. It knows nothing
//! of containers. One file a topic:
//!
//! - [`memory`]: makes glibc's allocator give memory back (idle size of a shim)
//! - [`mount`]: mounts as values, put on a directory or on nothing but a descriptor
//! - [`process`]: descriptors inherited by number, and children that leave the spawner's session
//! - [`protect`]: runs a binary so that a container cannot overwrite it (CVE-2019-5736)

#![allow(unsafe_code)]

pub mod memory;
pub mod mount;
pub mod process;
pub mod protect;
