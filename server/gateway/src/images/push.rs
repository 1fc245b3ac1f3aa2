//! POST /images/{name}/push

use davit_client::v1;
use serde_json::json;

use crate::{
    convert::{progress, reference},
    failure::{Failure, Result},
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn push(call: Call) -> Result<Reply> {
    let name = call.name();
    let tag = call.query.get("tag");
    let given = reference::split_tag(&name).1;
    let request = v1::PushRequest {
        reference: reference::join(&name, tag),
        auth: call.registry_auth(),
        all_tags: tag.is_empty() && given.is_empty(),
        ..Default::default()
    };
    let asked = request.reference.clone();
    let gateway = call.gateway.clone();
    // Dockerd names the repository before it looks for the image.
    let lines = async_stream::stream! {
        let repository = normalized(reference::split_tag(&asked).0);
        let hello = format!("The push refers to repository [{repository}]");
        yield super::line(&json!({"status": hello}));
        let mut steps = match gateway.stream().images().push(request).await {
            Ok(steps) => steps.into_inner(),
            Err(status) => {
                yield super::line(&refusal(status, &asked));
                return;
            }
        };
        loop {
            match steps.message().await {
                Ok(Some(step)) => {
                    for value in progress::push(&step) {
                        yield super::line(&value);
                    }
                }
                Ok(None) => return,
                Err(status) => {
                    yield super::line(&refusal(status, &asked));
                    return;
                }
            }
        }
    };
    Ok(reply::stream(reply::JSON, lines))
}

fn refusal(status: tonic::Status, asked: &str) -> serde_json::Value {
    let repository = reference::split_tag(reference::familiar(asked))
        .0
        .to_owned();
    let failure = Failure::from(status)
        .when_not_found(|| format!("An image does not exist locally with the tag: {repository}"));
    progress::error(failure.message())
}

/// The full name of a repository, registry included.
fn normalized(repository: &str) -> String {
    match repository.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => {
            repository.to_owned()
        }
        Some(_) => format!("docker.io/{repository}"),
        None => format!("docker.io/library/{repository}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_named_in_full() {
        assert_eq!(normalized("a"), "docker.io/library/a");
        assert_eq!(normalized("a/b"), "docker.io/a/b");
        assert_eq!(normalized("localhost:5000/a"), "localhost:5000/a");
        assert_eq!(normalized("localhost/a"), "localhost/a");
    }
}
