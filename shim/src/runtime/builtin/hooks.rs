//! Hooks: programs that the spec wants run around the container's life, with its state on stdin.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Spec};

use crate::error::{Error, Kind, Result};

/// What a hook hears about the container (OCI runtime spec, "State").
#[derive(Debug, Clone, Copy)]
pub(super) struct State<'a> {
    pub(super) id: &'a str,
    pub(super) bundle: &'a Path,
    pub(super) spec: &'a Spec,
}

impl State<'_> {
    /// The state as JSON; `pid` 0 is left out.
    pub(super) fn json(&self, status: &str, pid: i32) -> String {
        let mut state = serde_json::json!({
            "ociVersion": self.spec.version(),
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        });
        if pid != 0 {
            state["pid"] = pid.into();
        }
        if let Some(annotations) = self.spec.annotations() {
            state["annotations"] = serde_json::json!(annotations);
        }
        state.to_string()
    }
}

/// Runs `hooks` in order.
///
/// # Errors
/// The first hook that can't be started, fails, or takes longer than its timeout.
pub(super) fn run(name: &str, hooks: Option<&Vec<Hook>>, state: &str) -> Result<()> {
    for (at, hook) in hooks.into_iter().flatten().enumerate() {
        run_one(hook, state).map_err(|e| {
            Error::new(
                Kind::Unknown,
                format!(
                    "error running {name} hook #{at}: {}: {e}",
                    hook.path().display()
                ),
            )
        })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &str) -> std::io::Result<()> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(hook.path());
    let mut args = hook.args().iter().flatten();
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.envs(
        hook.env()
            .iter()
            .flatten()
            .filter_map(|e| e.split_once('=')),
    );
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _ = stdin.write_all(state.as_bytes());
    }
    let timeout = hook
        .timeout()
        .and_then(|s| u64::try_from(s).ok())
        .filter(|s| *s > 0)
        .map(Duration::from_secs);
    wait(&mut child, timeout)
}

fn wait(child: &mut Child, timeout: Option<Duration>) -> std::io::Result<()> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let (Some(deadline), Some(pid)) = (deadline, pid) {
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        let left = deadline.saturating_duration_since(Instant::now());
        let left = rustix::event::Timespec::try_from(left).map_err(std::io::Error::other)?;
        let mut poll = [rustix::event::PollFd::new(
            &fd,
            rustix::event::PollFlags::IN,
        )];
        if rustix::event::poll(&mut poll, Some(&left))? == 0 {
            child.kill()?;
            child.wait()?;
            return Err(std::io::Error::other("took longer than its timeout"));
        }
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    Err(std::io::Error::other(format!(
        "{status}, stderr: {}",
        said(child)
    )))
}

/// The first part of what it said, without waiting for what it may have left behind with its stderr.
fn said(child: &mut Child) -> String {
    let Some(stderr) = child.stderr.take() else {
        return String::new();
    };
    if rustix::io::ioctl_fionbio(&stderr, true).is_err() {
        return String::new();
    }
    let mut text = vec![0u8; 4096];
    let count = rustix::io::read(&stderr, &mut text).unwrap_or(0);
    String::from_utf8_lossy(&text[..count])
        .trim_end()
        .to_owned()
}
