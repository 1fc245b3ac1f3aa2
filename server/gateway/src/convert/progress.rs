//! Progress of pull, push and load as docker's clients show it: one JSON
//! object per step.

use davit_client::v1::{self, pull_progress, push_progress};
use serde_json::{Value, json};

use super::reference::{familiar, path, split_tag, with_tag};

/// Twelve digits of a digest, as docker names layers.
fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// An error in a stream that has begun.
pub(crate) fn error(message: &str) -> Value {
    json!({"errorDetail": {"message": message}, "error": message})
}

fn layer(status: &str, digest: &str) -> Value {
    json!({"status": status, "progressDetail": {}, "id": short(digest)})
}

fn counted(status: &str, digest: &str, current: i64, total: i64) -> Value {
    let mut detail = json!({"current": current});
    if total > 0 {
        detail["total"] = json!(total);
    }
    json!({"status": status, "progressDetail": detail, "id": short(digest)})
}

/// The lines of one pull message; `asked` is what the client wants to pull.
pub(crate) fn pull(message: &v1::PullProgress, asked: &str) -> Vec<Value> {
    use pull_progress::Stage;
    let reference = if message.reference.is_empty() {
        asked
    } else {
        familiar(&message.reference)
    };
    match message.stage() {
        Stage::Resolved => vec![pulling_from(reference)],
        Stage::Queued => vec![layer("Pulling fs layer", &message.layer)],
        Stage::Downloading => {
            vec![counted(
                "Downloading",
                &message.layer,
                message.current,
                message.total,
            )]
        }
        Stage::Downloaded => vec![layer("Download complete", &message.layer)],
        Stage::Extracting => {
            vec![counted(
                "Extracting",
                &message.layer,
                message.current,
                message.total,
            )]
        }
        Stage::Complete => vec![layer("Pull complete", &message.layer)],
        Stage::Exists => vec![layer("Already exists", &message.layer)],
        Stage::Done => done(message, reference),
        Stage::Unspecified if message.message.is_empty() => Vec::new(),
        Stage::Unspecified => vec![json!({"status": message.message})],
    }
}

/// "Pulling from library/busybox" with the tag (or digest) as its id.
fn pulling_from(reference: &str) -> Value {
    let tag = match reference.split_once('@') {
        Some((_, digest)) => digest.to_owned(),
        None => match split_tag(reference).1 {
            "" => "latest".to_owned(),
            tag => tag.to_owned(),
        },
    };
    let repository = path(reference);
    // Docker's own registry: the path is said in full.
    let official = !repository.contains('/');
    let shown = if official {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    let shown = match shown.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest.to_owned(),
        _ => shown,
    };
    json!({"status": format!("Pulling from {shown}"), "id": tag})
}

fn done(message: &v1::PullProgress, reference: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    let target = message
        .image
        .as_ref()
        .and_then(|image| image.target.as_ref());
    if let Some(target) = target {
        lines.push(json!({"status": format!("Digest: {}", target.digest)}));
    }
    let what = if message.up_to_date {
        "Image is up to date"
    } else {
        "Downloaded newer image"
    };
    let reference = with_tag(reference);
    lines.push(json!({"status": format!("Status: {what} for {reference}")}));
    lines
}

/// The lines of one push message.
pub(crate) fn push(message: &v1::PushProgress) -> Vec<Value> {
    use push_progress::Stage;
    match message.stage() {
        Stage::Queued => vec![layer("Preparing", &message.digest)],
        Stage::Uploading => {
            vec![counted(
                "Pushing",
                &message.digest,
                message.current,
                message.total,
            )]
        }
        Stage::Pushed => vec![layer("Pushed", &message.digest)],
        Stage::Exists => vec![layer("Layer already exists", &message.digest)],
        Stage::Mounted => {
            vec![layer(
                &format!("Mounted from {}", path(familiar(&message.message))),
                &message.digest,
            )]
        }
        Stage::Done => {
            let tag = match split_tag(&message.reference).1 {
                "" => "latest",
                tag => tag,
            };
            let (digest, size) = (&message.digest, message.total);
            vec![
                json!({"status": format!("{tag}: digest: {digest} size: {size}")}),
                json!({
                    "progressDetail": {},
                    "aux": {"Tag": tag, "Digest": digest, "Size": size},
                }),
            ]
        }
        Stage::Unspecified if message.message.is_empty() => Vec::new(),
        Stage::Unspecified => vec![json!({"status": message.message})],
    }
}

/// The line for an image that was loaded.
pub(crate) fn loaded(message: &v1::ImportProgress) -> Option<Value> {
    let image = message.image.as_ref()?;
    let line = if message.name.is_empty() {
        format!("Loaded image ID: {}\n", image.id)
    } else {
        format!("Loaded image: {}\n", familiar(&message.name))
    };
    Some(json!({"stream": line}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull_line(stage: pull_progress::Stage) -> Vec<Value> {
        let message = v1::PullProgress {
            stage: stage.into(),
            layer: "sha256:0123456789abcdef".into(),
            current: 1,
            total: 2,
            image: Some(v1::Image {
                target: Some(v1::Descriptor {
                    digest: "sha256:d".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        pull(&message, "busybox")
    }

    #[test]
    fn pull_says_what_docker_says() {
        use pull_progress::Stage;
        assert_eq!(
            pull_line(Stage::Resolved),
            [json!({"status": "Pulling from library/busybox", "id": "latest"})]
        );
        assert_eq!(
            pull_line(Stage::Downloading),
            [
                json!({"status": "Downloading", "progressDetail": {"current": 1, "total": 2},
                    "id": "0123456789ab"})
            ]
        );
        assert_eq!(
            pull_line(Stage::Complete),
            [json!({"status": "Pull complete", "progressDetail": {}, "id": "0123456789ab"})]
        );
        assert_eq!(
            pull_line(Stage::Done),
            [
                json!({"status": "Digest: sha256:d"}),
                json!({"status": "Status: Downloaded newer image for busybox:latest"}),
            ]
        );
    }

    #[test]
    fn the_repository_is_shown_without_its_registry() {
        let shown = |reference: &str| pulling_from(reference)["status"].clone();
        assert_eq!(shown("localhost:5000/a/b:1"), "Pulling from a/b");
        assert_eq!(shown("ghcr.io/a/b"), "Pulling from a/b");
        assert_eq!(shown("a/b"), "Pulling from a/b");
        assert_eq!(pulling_from("a@sha256:0")["id"], "sha256:0");
    }

    #[test]
    fn push_ends_with_digest_and_aux() {
        let message = v1::PushProgress {
            stage: push_progress::Stage::Done.into(),
            digest: "sha256:d".into(),
            total: 9,
            reference: "localhost:5000/a:1".into(),
            ..Default::default()
        };
        let lines = push(&message);
        assert_eq!(lines[0]["status"], "1: digest: sha256:d size: 9");
        assert_eq!(
            lines[1]["aux"],
            json!({"Tag": "1", "Digest": "sha256:d", "Size": 9})
        );
    }
}
