//! Seccomp notifications: the filter's descriptor goes to whoever listens where the spec says.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use oci_spec::runtime::Spec;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::hooks::State;
use super::init::failed;
use super::state::Saved;
use crate::error::{Error, Result};

/// Sends `listener` with the container's state (OCI runtime spec, "The Container Process State").
pub(super) fn pass_on(spec: &Spec, saved: &Saved, listener: &OwnedFd, status: &str) -> Result<()> {
    let seccomp = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let Some((seccomp, path)) = seccomp.and_then(|s| Some((s, s.listener_path().as_ref()?))) else {
        return Ok(());
    };
    let pid = saved.init.map_or(0, |init| init.pid);
    let state: serde_json::Value = serde_json::from_str(
        &State {
            id: &saved.id,
            bundle: &saved.bundle,
            spec,
        }
        .json(status, pid),
    )
    .map_err(|e| Error::because("container state", e))?;
    let message = serde_json::json!({
        "ociVersion": spec.version(),
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": seccomp.listener_metadata().as_deref().unwrap_or_default(),
        "state": state,
    })
    .to_string();
    let socket = UnixStream::connect(path).map_err(failed("connect to the seccomp listener"))?;
    let fds = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        &socket,
        &[IoSlice::new(message.as_bytes())],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .map_err(|e| failed("tell the seccomp listener")(e.into()))?;
    Ok(())
}
