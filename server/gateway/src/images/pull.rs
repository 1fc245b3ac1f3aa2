//! POST /images/create: pull, and import from a tar in the body.

use davit_client::v1::{self, CreateFromTarRequest, pull_progress::Stage};
use http::StatusCode;
use serde_json::json;
use tonic::{Code, Status};

use crate::{
    body,
    containers::commit,
    convert::{create, progress, reference},
    failure::{Failure, KIND_KEY, Result},
    reply::{self, Reply},
    request::Call,
};

pub(crate) async fn create(call: Call) -> Result<Reply> {
    if call.query.get("fromSrc").is_empty() {
        pull(call).await
    } else {
        import(call).await
    }
}

async fn pull(call: Call) -> Result<Reply> {
    let name = call.query.get("fromImage");
    if name.is_empty() {
        return Err(Failure::bad_request("invalid reference format"));
    }
    let asked = reference::join(name, call.query.get("tag"));
    let request = v1::PullRequest {
        reference: asked.clone(),
        platform: create::platform(call.query.get("platform"))?,
        auth: call.registry_auth(),
        all_tags: all_tags(&asked),
    };
    // What goes wrong before the first line is an HTTP error.
    let begin = async {
        let mut steps = call
            .gateway
            .stream()
            .images()
            .pull(request)
            .await?
            .into_inner();
        let first = steps.message().await?;
        // That a name was understood is no answer of its registry yet.
        let only_named = first
            .as_ref()
            .is_some_and(|step| step.stage() == Stage::Resolved);
        let second = if only_named {
            steps.message().await?
        } else {
            None
        };
        Ok((steps, [first, second]))
    };
    let (mut steps, first) = begin.await.map_err(|status| refusal(status, &asked))?;
    let shown = reference::familiar(&asked).to_owned();
    let lines = async_stream::stream! {
        for step in first.iter().flatten() {
            for value in progress::pull(step, &shown) {
                yield super::line(&value);
            }
        }
        loop {
            match steps.message().await {
                Ok(Some(step)) => {
                    for value in progress::pull(&step, &shown) {
                        yield super::line(&value);
                    }
                }
                Ok(None) => return,
                Err(status) => {
                    let failure = refusal(status, &shown);
                    yield super::line(&progress::error(failure.message()));
                    return;
                }
            }
        }
    };
    Ok(reply::stream(reply::JSON, lines))
}

/// Without tag and digest the API means every tag; the CLI always says which.
fn all_tags(reference: &str) -> bool {
    !reference::is_digested(reference) && reference::split_tag(reference).1.is_empty()
}

fn refusal(status: Status, asked: &str) -> Failure {
    let denied = matches!(
        status.code(),
        Code::Unauthenticated | Code::PermissionDenied
    );
    // A registry out of reach is no reason to think that the daemon is.
    let unreachable =
        status.code() == Code::Unavailable && status.metadata().contains_key(KIND_KEY);
    let failure = Failure::from(status);
    if unreachable {
        return Failure::internal(failure.message());
    }
    // The daemon says most of this in docker's words itself.
    let said = [
        "manifest for ",
        "no matching manifest ",
        "image with reference ",
        "pull access denied ",
    ]
    .iter()
    .any(|words| failure.message().starts_with(words));
    if said {
        return if denied {
            Failure::not_found(failure.message().to_owned())
        } else {
            failure
        };
    }
    if denied {
        let repository = reference::split_tag(reference::familiar(asked)).0;
        return Failure::not_found(format!(
            "pull access denied for {repository}, repository does not exist or may require \
             'docker login': denied: {}",
            failure.message()
        ));
    }
    let reason = failure.message().to_owned();
    failure.when_not_found(|| {
        let asked = reference::familiar(asked);
        format!("manifest for {asked} not found: manifest unknown: {reason}")
    })
}

async fn import(call: Call) -> Result<Reply> {
    let source = call.query.get("fromSrc");
    if source != "-" {
        return Err(Failure::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("importing from {source} is not supported; give the archive itself (\"-\")"),
        ));
    }
    let repository = call.query.get("repo");
    let options = v1::CreateFromTarOptions {
        name: match repository {
            "" => String::new(),
            repository => reference::join(repository, call.query.get("tag")),
        },
        changes: commit::changes(&call),
        message: call.query.get("message").to_owned(),
        platform: create::platform(call.query.get("platform"))?,
    };
    let first = CreateFromTarRequest {
        options: Some(options),
        ..Default::default()
    };
    let (requests, breaks) = body::upload(call.body, first, |data| CreateFromTarRequest {
        options: None,
        data,
    });
    let mut images = call.gateway.stream().images();
    let image = body::whole(images.create_from_tar(requests), breaks)
        .await??
        .into_inner();
    let line = reply::json_line(&json!({"status": image.id}), "\r\n");
    Ok(reply::full(StatusCode::OK, reply::JSON, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_words_that_clients_look_for() {
        let denied = refusal(Status::unauthenticated("no"), "localhost:5000/a:1");
        assert_eq!(denied.status(), StatusCode::NOT_FOUND);
        assert!(denied.message().starts_with(
            "pull access denied for localhost:5000/a, repository does not exist or may require"
        ));
        let missing = refusal(Status::not_found("gone"), "docker.io/library/a:1");
        assert!(
            missing
                .message()
                .starts_with("manifest for a:1 not found: manifest unknown")
        );
        let said = refusal(
            Status::not_found("manifest for a:1 not found: x"),
            "docker.io/library/a:1",
        );
        assert_eq!(said.message(), "manifest for a:1 not found: x");
        assert!(all_tags("localhost:5000/a"));
        assert!(!all_tags("a@sha256:0"));
    }
}
