//! Commands that do the same to several objects: each is tried, failures are
//! told, and the exit code says whether all went well.

use std::{future::Future, io::Write};

use crate::error::Outcome;

/// Runs `action` for each name in turn.
pub(crate) async fn each<F>(names: &[String], mut action: impl FnMut(String) -> F) -> Outcome
where
    F: Future<Output = Outcome<()>>,
{
    let mut code = 0;
    for name in names {
        if let Err(failure) = action(name.clone()).await {
            if !failure.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "davit: {}", failure.message);
            }
            code = failure.code;
        }
    }
    Ok(code)
}
