//! `binary://`: a program that gets stdout as descriptor 3, stderr as 4, and says on 5 when it is ready.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::target::Binary;
use crate::error::{Error, Kind, Result};

/// For the logger to say that it is ready.
const READY: Duration = Duration::from_secs(10);

/// The writing ends that the logger reads.
pub(crate) struct Logger {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts the logger and waits until it is ready. It ends when both pipes do.
pub(crate) async fn start(binary: &Binary, container: &str, namespace: &str) -> Result<Logger> {
    let failed = |error: io::Error| {
        Error::because(
            format_args!("starting the logger {}", binary.path.display()),
            error,
        )
    };
    let (stdout, out) = io::pipe().map_err(failed)?;
    let (stderr, err) = io::pipe().map_err(failed)?;
    let (ready, say) = io::pipe().map_err(failed)?;
    let mut command = Command::new(&binary.path);
    command
        .args(&binary.args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .env("CONTAINER_ID", container)
        .env("CONTAINER_NAMESPACE", namespace);
    davit_sys::process::inherit(
        &mut command,
        vec![(stdout.into(), 3), (stderr.into(), 4), (say.into(), 5)],
    );
    // Reaped like any other child; its end is seen on the pipes.
    let mut child = command.spawn().map_err(failed)?;
    drop(command);
    let mut pipe = pipe::Receiver::from_owned_fd(ready.into()).map_err(failed)?;
    let mut byte = [0];
    let problem = match tokio::time::timeout(READY, pipe.read(&mut byte)).await {
        Ok(Ok(0)) if binary.must_say_ready => {
            "it closed its ready pipe (descriptor 5) without a byte"
        }
        Ok(Ok(_)) => {
            return Ok(Logger {
                stdout: out.into(),
                stderr: err.into(),
            });
        }
        Ok(Err(_)) => "its ready pipe (descriptor 5) failed",
        Err(_) => "it was not ready within 10 s (a byte on descriptor 5)",
    };
    // Gone already is as good.
    let _ = child.kill();
    Err(Error::new(
        Kind::Unknown,
        format!("logger {}: {problem}", binary.path.display()),
    ))
}
