//! GET /containers/{name}/stats

use std::time::Duration;

use bytes::Bytes;
use davit_client::v1::{self, ContainerStatus, StatsRequest, StatsResponse};
use futures::Stream;
use tonic::Code;

use crate::{
    convert::stats,
    failure::Result,
    gateway::Gateway,
    reply::{self, Reply, StreamCut},
    request::Call,
};

/// Time between two samples.
const PERIOD: Duration = Duration::from_secs(1);

pub(crate) async fn stats(call: Call) -> Result<Reply> {
    let container = super::get(&call.gateway, &call.name()).await?;
    if call.query.flag_or("stream", true) {
        return Ok(reply::stream(
            reply::JSON,
            follow(call.gateway.clone(), container),
        ));
    }
    let one = call.query.flag("one-shot");
    let body = match samples(&call.gateway, &container.id, one).await? {
        Some((sample, before)) => stats::of(&sample, before.as_ref()),
        None => stats::of_stopped(&container.id, &format!("/{}", container.name)),
    };
    Ok(reply::ok(&body))
}

/// One sample and, unless only `one` is wanted, the one before it. `None`
/// when the container does not run.
async fn samples(
    gateway: &Gateway,
    id: &str,
    one: bool,
) -> Result<Option<(StatsResponse, Option<StatsResponse>)>> {
    let request = StatsRequest {
        container: id.to_owned(),
        stream: !one,
    };
    let mut samples = match gateway.calls().tasks().stats(request).await {
        Ok(samples) => samples.into_inner(),
        Err(status) if status.code() == Code::FailedPrecondition => return Ok(None),
        Err(status) => return Err(super::failure(status, id)),
    };
    let first = match samples.message().await {
        Ok(Some(first)) => first,
        Ok(None) => return Ok(None),
        Err(status) if status.code() == Code::FailedPrecondition => return Ok(None),
        Err(status) => return Err(super::failure(status, id)),
    };
    if one {
        return Ok(Some((first, None)));
    }
    match samples.message().await {
        Ok(Some(second)) => Ok(Some((second, Some(first)))),
        Ok(None) | Err(_) => Ok(Some((first, None))),
    }
}

/// A sample each second, through stops and starts, until the container or the
/// client is gone.
fn follow(
    gateway: Gateway,
    container: v1::Container,
) -> impl Stream<Item = Result<Bytes, StreamCut>> {
    async_stream::stream! {
        let mut before = None;
        let name = format!("/{}", container.name);
        loop {
            let request = StatsRequest { container: container.id.clone(), stream: true };
            if let Ok(samples) = gateway.stream().tasks().stats(request).await {
                let mut samples = samples.into_inner();
                while let Ok(Some(sample)) = samples.message().await {
                    let value = stats::of(&sample, before.as_ref());
                    before = Some(sample);
                    yield Ok(reply::json_line(&value, "\n"));
                }
            }
            match super::get(&gateway, &container.id).await {
                Ok(now) if runs(&now) => {}
                Ok(_) => {
                    before = None;
                    let value = stats::of_stopped(&container.id, &name);
                    yield Ok(reply::json_line(&value, "\n"));
                }
                Err(_) => return,
            }
            tokio::time::sleep(PERIOD).await;
        }
    }
}

fn runs(container: &v1::Container) -> bool {
    container.state.as_ref().is_some_and(|state| {
        matches!(
            state.status(),
            ContainerStatus::Running | ContainerStatus::Paused
        )
    })
}
