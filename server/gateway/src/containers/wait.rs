//! POST /containers/{name}/wait: the head goes out at once, the result when
//! there is one. Clients wait for the head before they start the container.

use davit_client::v1::{self, wait_request::Condition, wait_response::Message};
use serde_json::{Value, json};
use tonic::{Status, Streaming};

use crate::{
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn wait(call: Call) -> Result<Reply> {
    let name = call.name();
    let condition = match call.query.get("condition") {
        "" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => {
            return Err(Failure::bad_request(format!(
                "invalid condition: {other:?}"
            )));
        }
    };
    let request = v1::WaitRequest {
        container: name.clone(),
        condition: condition.into(),
    };
    let begin = async {
        let mut answers = call
            .gateway
            .stream()
            .tasks()
            .wait(request)
            .await?
            .into_inner();
        let first = answers.message().await?;
        Ok((answers, first))
    };
    let (answers, first) = begin
        .await
        .map_err(|status| super::failure(status, &name))?;
    let body = async_stream::stream! {
        let result = match result(answers, first).await {
            Ok(exit) => of(&exit, condition),
            Err(status) => {
                json!({"StatusCode": 125, "Error": {"Message": Failure::from(status).message()}})
            }
        };
        yield Ok::<_, std::io::Error>(reply::json_line(&result, "\n"));
    };
    Ok(reply::stream(reply::JSON, body))
}

async fn result(
    mut answers: Streaming<v1::WaitResponse>,
    first: Option<v1::WaitResponse>,
) -> Result<v1::ExitStatus, Status> {
    let mut next = first;
    while let Some(answer) = next {
        if let Some(Message::Exit(exit)) = answer.message {
            return Ok(exit);
        }
        next = answers.message().await?;
    }
    Err(Status::internal("the wait ended without a result"))
}

/// Of a container that is gone nobody asks why it did not start.
fn of(exit: &v1::ExitStatus, condition: Condition) -> Value {
    let mut value = json!({"StatusCode": exit.exit_code});
    if !exit.error.is_empty() && condition != Condition::Removed {
        value["Error"] = json!({"Message": exit.error});
    }
    value
}
