//! HEAD, GET and PUT /containers/{name}/archive: `docker cp`.

use base64::{Engine, engine::general_purpose::STANDARD};
use davit_client::v1::{self, CopyInRequest};
use futures::{StreamExt, TryStreamExt};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tonic::Status;

use crate::{
    body,
    convert::time,
    failure::{Failure, Result},
    reply::{self, Reply, StreamCut},
    request::Call,
};

const STAT_HEADER: &str = "x-docker-container-path-stat";

pub(crate) async fn stat(call: Call) -> Result<Reply> {
    let (name, path) = place(&call)?;
    let request = v1::StatPathRequest {
        container: name.clone(),
        path: path.clone(),
    };
    let found = call.gateway.calls().containers().stat_path(request).await;
    match found {
        Ok(stat) => with_stat(reply::empty(StatusCode::OK), &stat.into_inner()),
        Err(status) => Err(failure(&call, status, &name, &path).await),
    }
}

pub(crate) async fn get(call: Call) -> Result<Reply> {
    let (name, path) = place(&call)?;
    let request = v1::CopyOutRequest {
        container: name.clone(),
        path: path.clone(),
    };
    let begin = async {
        let mut chunks = call
            .gateway
            .stream()
            .containers()
            .copy_out(request)
            .await?
            .into_inner();
        let first = chunks.message().await?.unwrap_or_default();
        Ok::<_, Status>((chunks, first))
    };
    let (chunks, first) = match begin.await {
        Ok(begun) => begun,
        Err(status) => return Err(failure(&call, status, &name, &path).await),
    };
    let stat = first.stat.clone().unwrap_or_default();
    let data = futures::stream::iter([Ok(first)])
        .chain(chunks)
        .map_ok(|chunk| chunk.data)
        .map_err(StreamCut::from);
    with_stat(reply::stream(reply::TAR, data), &stat)
}

pub(crate) async fn put(call: Call) -> Result<Reply> {
    let (name, path) = place(&call)?;
    let options = v1::CopyInOptions {
        container: name.clone(),
        path: path.clone(),
        no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: call.query.flag("copyUIDGID"),
    };
    let Call { gateway, body, .. } = call;
    let first = CopyInRequest {
        options: Some(options),
        ..Default::default()
    };
    let (requests, breaks) = body::upload(body, first, |data| CopyInRequest {
        options: None,
        data,
    });
    let mut containers = gateway.stream().containers();
    match body::whole(containers.copy_in(requests), breaks).await? {
        Ok(_) => Ok(reply::empty(StatusCode::OK)),
        Err(status) => Err(missing(Failure::from(status), &gateway, &name, &path).await),
    }
}

fn place(call: &Call) -> Result<(String, String)> {
    match call.query.get("path") {
        "" => Err(Failure::bad_request("bad parameter: path cannot be empty")),
        path => Ok((call.name(), path.to_owned())),
    }
}

async fn failure(call: &Call, status: Status, name: &str, path: &str) -> Failure {
    missing(status.into(), &call.gateway, name, path).await
}

/// A 404 can mean the container or the path in it.
async fn missing(
    failure: Failure,
    gateway: &crate::gateway::Gateway,
    name: &str,
    path: &str,
) -> Failure {
    if !failure.is_not_found() {
        return failure;
    }
    match super::get(gateway, name).await {
        Ok(_) => Failure::not_found(format!(
            "Could not find the file {path} in container {name}"
        )),
        Err(no_container) => no_container,
    }
}

fn with_stat(mut reply: Reply, stat: &v1::PathStat) -> Result<Reply> {
    let value = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": time::rfc3339(stat.mtime.as_ref()),
        "linkTarget": stat.link_target,
    });
    let header = HeaderValue::from_str(&STANDARD.encode(value.to_string()))
        .map_err(|error| Failure::internal(format!("cannot send the path's state: {error}")))?;
    reply.headers_mut().insert(STAT_HEADER, header);
    Ok(reply)
}

/// The mode of stat(2) as Go's os.FileMode has it.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let bit = |from: u32, to: u32| if mode & from == 0 { 0 } else { 1 << to };
    kind | bit(0o4000, 23) | bit(0o2000, 22) | bit(0o1000, 20) | mode & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o040_755), 1 << 31 | 0o755);
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o120_777), 1 << 27 | 0o777);
        assert_eq!(go_mode(0o041_777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o020_600), 1 << 26 | 1 << 21 | 0o600);
    }
}
