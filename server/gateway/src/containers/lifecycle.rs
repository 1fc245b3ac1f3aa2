//! POST /containers/{name}/start, stop, restart, kill, pause, unpause, rename,
//! resize

use davit_client::v1;
use http::StatusCode;

use crate::{
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn start(call: Call) -> Result<Reply> {
    let name = call.name();
    // Up to API 1.23 a start could change the HostConfig; clients that still
    // think so must not believe that it worked. "{}" and "null" are harmless.
    if call.content_length().is_none_or(|length| length > 7) {
        return Err(Failure::bad_request(
            "starting container with non-empty request body was deprecated since API v1.22 and \
             removed in v1.24",
        ));
    }
    let request = v1::StartRequest {
        container: name.clone(),
    };
    let started = call.gateway.calls().tasks().start(request).await;
    let started = started
        .map_err(|status| super::failure(status, &name))?
        .into_inner();
    Ok(done_unless(started.already_running))
}

pub(crate) async fn stop(call: Call) -> Result<Reply> {
    let name = call.name();
    let timeout = call.query.number::<i32>("t")?;
    let request = v1::StopRequest {
        container: name.clone(),
        signal: call.query.get("signal").to_owned(),
        timeout: timeout.unwrap_or_default(),
        timeout_set: timeout.is_some(),
    };
    let stopped = call.gateway.calls().tasks().stop(request).await;
    let stopped = stopped
        .map_err(|status| super::failure(status, &name))?
        .into_inner();
    Ok(done_unless(stopped.already_stopped))
}

/// 204, or 304 when there was nothing to do.
fn done_unless(already: bool) -> Reply {
    reply::empty(if already {
        StatusCode::NOT_MODIFIED
    } else {
        StatusCode::NO_CONTENT
    })
}

pub(crate) async fn restart(call: Call) -> Result<Reply> {
    let name = call.name();
    let timeout = call.query.number::<i32>("t")?;
    let request = v1::RestartRequest {
        container: name.clone(),
        signal: call.query.get("signal").to_owned(),
        timeout: timeout.unwrap_or_default(),
        timeout_set: timeout.is_some(),
    };
    let restarted = call.gateway.calls().tasks().restart(request).await;
    restarted.map_err(|status| super::failure(status, &name))?;
    Ok(reply::no_content())
}

pub(crate) async fn kill(call: Call) -> Result<Reply> {
    let name = call.name();
    let request = v1::KillRequest {
        container: name.clone(),
        signal: call.query.get("signal").to_owned(),
        ..Default::default()
    };
    let killed = call.gateway.calls().tasks().kill(request).await;
    killed.map_err(|status| {
        let failure = super::failure(status, &name);
        let prefix = "cannot kill container: ";
        let said = failure.message().starts_with(prefix);
        if said || failure.status() == StatusCode::BAD_REQUEST {
            failure
        } else {
            failure.context(format!("{prefix}{name}"))
        }
    })?;
    Ok(reply::no_content())
}

pub(crate) async fn pause(call: Call) -> Result<Reply> {
    let name = call.name();
    let request = v1::PauseRequest {
        container: name.clone(),
    };
    let paused = call.gateway.calls().tasks().pause(request).await;
    paused.map_err(|status| super::failure(status, &name))?;
    Ok(reply::no_content())
}

pub(crate) async fn unpause(call: Call) -> Result<Reply> {
    let name = call.name();
    let request = v1::ResumeRequest {
        container: name.clone(),
    };
    let resumed = call.gateway.calls().tasks().resume(request).await;
    resumed.map_err(|status| super::failure(status, &name))?;
    Ok(reply::no_content())
}

pub(crate) async fn rename(call: Call) -> Result<Reply> {
    let name = call.name();
    let new_name = call.query.get("name").trim_start_matches('/').to_owned();
    if new_name.is_empty() {
        return Err(Failure::bad_request(
            "Neither old nor new names may be empty",
        ));
    }
    let request = v1::RenameContainerRequest {
        container: name.clone(),
        new_name: new_name.clone(),
    };
    let renamed = call.gateway.calls().containers().rename(request).await;
    renamed.map_err(|status| super::failure(status, &name))?;
    Ok(reply::no_content())
}

pub(crate) async fn resize(call: Call) -> Result<Reply> {
    let name = call.name();
    let request = v1::ResizeRequest {
        container: name.clone(),
        exec_id: String::new(),
        size: Some(size(&call)?),
    };
    let resized = call.gateway.calls().tasks().resize(request).await;
    resized.map_err(|status| super::failure(status, &name))?;
    Ok(reply::empty(StatusCode::OK))
}

/// The terminal size in the query `h` and `w`.
pub(crate) fn size(call: &Call) -> Result<v1::TerminalSize> {
    let side = |key: &str| -> Result<u32> {
        let given = call.query.number(key)?;
        given.ok_or_else(|| Failure::bad_request("strconv.Atoi: parsing \"\": invalid syntax"))
    };
    Ok(v1::TerminalSize {
        height: side("h")?,
        width: side("w")?,
    })
}
