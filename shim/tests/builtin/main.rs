//! The built-in runtime with real containers on the real kernel. Where runc has to do the same, the same bundle is run
//! by runc too, and its answer counts.
//!
//! A program of its own, because containers are forked from it: it has one thread and waits for its own children.
//! `cargo test -p davit-shim --test builtin -- [part of a name]`

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used
)]

#[path = "../../src/cgroup/mod.rs"]
mod cgroup;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/reaper.rs"]
mod reaper;
#[path = "../../src/runtime/mod.rs"]
mod runtime;

mod bundle;
mod errors;
mod files;
mod life;
mod limits;
mod namespaces;
mod privileges;
mod security;

use std::panic::catch_unwind;
use std::process::ExitCode;

/// A test and its name.
type Test = (&'static str, fn());

/// Names functions by themselves.
macro_rules! tests {
    ($($name:ident),* $(,)?) => { pub(crate) const TESTS: &[crate::Test] = &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*]; };
}
pub(crate) use tests;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    if std::env::args().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    let all = [
        life::TESTS,
        errors::TESTS,
        files::TESTS,
        limits::TESTS,
        namespaces::TESTS,
        privileges::TESTS,
        security::TESTS,
    ];
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, test) in all.into_iter().flatten() {
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        match catch_unwind(test) {
            Ok(()) => passed += 1,
            Err(_) => failed.push(*name),
        }
        println!(
            "test {name} ... {}",
            if failed.last() == Some(name) {
                "FAILED"
            } else {
                "ok"
            }
        );
    }
    bundle::remove_parents();
    println!(
        "\ntest result: {passed} passed; {} failed: {failed:?}",
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
