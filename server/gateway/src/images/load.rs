//! POST /images/load

use davit_client::v1::{self, ImportRequest};
use futures::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    body,
    convert::{create, progress},
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

/// Progress messages that a slow reader may be behind.
const DEPTH: usize = 16;

pub(crate) async fn load(call: Call) -> Result<Reply> {
    let quiet = call.query.flag("quiet");
    let platform = create::platform(call.query.get("platform"))?;
    let options = v1::ImportOptions {
        platform,
        ..Default::default()
    };
    let first = ImportRequest {
        options: Some(options),
        ..Default::default()
    };
    let (requests, breaks) = body::upload(call.body, first, |data| ImportRequest {
        options: None,
        data,
    });
    let (steps, mut received) = mpsc::channel::<Result<v1::ImportProgress, Status>>(DEPTH);
    let mut images = call.gateway.stream().images();
    let working = async move {
        let mut answers = match images.import(requests).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => {
                let _ = steps.send(Err(status)).await;
                return;
            }
        };
        while let Some(step) = answers.next().await {
            let failed = step.is_err();
            if steps.send(step).await.is_err() || failed {
                return;
            }
        }
    };
    // Every error of a load comes in its stream.
    let lines = async_stream::stream! {
        let mut working = std::pin::pin!(body::whole(working, breaks));
        let mut ended = false;
        loop {
            let step = tokio::select! {
                biased;
                step = received.recv() => step,
                result = &mut working, if !ended => {
                    ended = true;
                    if let Err(failure) = result {
                        yield super::line(&progress::error(failure.message()));
                        return;
                    }
                    continue;
                }
            };
            match step {
                Some(Ok(step)) => {
                    if let Some(value) = progress::loaded(&step) {
                        yield super::line(&value);
                    } else if !quiet && step.current > 0 {
                        yield super::line(&json!({
                            "status": "Loading image", "id": "archive",
                            "progressDetail": {"current": step.current},
                        }));
                    }
                }
                Some(Err(status)) => {
                    let failure = Failure::from(status);
                    yield super::line(&progress::error(failure.message()));
                    return;
                }
                None => return,
            }
        }
    };
    Ok(reply::stream(reply::JSON, lines))
}
