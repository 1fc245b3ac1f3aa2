//! Writes docs/api.md: davit.v1's services, messages and fields with the
//! comments of the .proto files. `make doc` runs it; a test compares.

use std::{fs, process::ExitCode};

use davit_tests::{api_reference, workspace_root};

fn main() -> ExitCode {
    let path = workspace_root().join("docs/api.md");
    match fs::write(&path, api_reference()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
