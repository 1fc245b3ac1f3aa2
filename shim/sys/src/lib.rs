//! davit-sys: the only crate of davit with `unsafe` code.
//!
//! Small safe wrappers over the system calls that neither std, nix nor rustix offers in a safe form. It knows nothing
//! of containers. One file a topic:
//!
//! - [`bpf`]: device rules of cgroup v2
//! - [`child`]: what a process does to itself between `clone` and `exec`
//! - [`clone`]: new processes in new namespaces, going on in this program
//! - [`init`]: the program that containers run as process 1 when they ask for one
//! - [`memory`]: makes glibc's allocator give memory back (idle size of a shim)
//! - [`mount`]: mounts as values, put on a directory or on nothing but a descriptor
//! - [`mount_attr`]: changes to mounts that are there, recursively and in one step
//! - [`process`]: descriptors inherited by number, and children that leave the spawner's session
//! - [`protect`]: runs a binary so that a container cannot overwrite it (CVE-2019-5736)
//! - [`ready`]: descriptors in an event loop
//! - [`seccomp`]: loading a filter
//! - [`writeback`]: starting writeback early

#![allow(unsafe_code)]

pub mod bpf;
pub mod child;
pub mod clone;
pub mod init;
pub mod memory;
pub mod mount;
pub mod mount_attr;
pub mod process;
pub mod protect;
pub mod ready;
pub mod seccomp;
pub mod writeback;
