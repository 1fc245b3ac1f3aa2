//! An image out of a container.

use std::path::PathBuf;

use davit_images::{
    Images,
    diff::{self, LayerOptions},
    image::NewImage,
};
use davit_store::{Error, Result, image_config::ImageConfig, table::container::ContainerRecord};

use super::diff::MADE_BY_RUNTIME;
use crate::model::CommitRequest;

/// Makes an image of the container's image, its changes to the files as one
/// more layer, and its configuration; gives the image's id. Whoever wants the
/// container still meanwhile (`request.pause`) pauses it around this call.
///
/// # Errors
/// `InvalidArgument` for changes that are no instructions; those of the image
/// store.
pub async fn commit(
    images: &Images,
    namespace: &str,
    record: &ContainerRecord,
    request: CommitRequest,
) -> Result<String> {
    let details = record.details.as_deref();
    let details = details.ok_or_else(|| {
        Error::precondition(format!("container {} has no image of its own", record.id))
    })?;
    let snapshots = images.snapshots(&record.snapshotter)?;
    // Holds the new blobs until the image refers to them.
    let operation = images.leases().operation(namespace);
    let options = LayerOptions {
        skip: MADE_BY_RUNTIME.iter().map(PathBuf::from).collect(),
        ..Default::default()
    };
    let layer = diff::layer(
        images.content(),
        snapshots,
        &operation,
        &record.snapshot_key,
        options,
    )
    .await?;
    let mut command = vec![details.path.clone()];
    command.extend(details.args.iter().cloned());
    let new = NewImage {
        name: request.name,
        parent: details.image_id.clone(),
        layer: Some(layer),
        config: Some(committed_config(&details.config, request.config.as_ref())),
        changes: request.changes,
        created_by: command.join(" "),
        comment: request.comment,
        author: request.author,
        container: record.id.clone(),
        platform: None,
    };
    Ok(images.create_image(&operation, new).await?.id)
}

/// The config of the new image: the container's, with what the caller gives in
/// its place; lists of ports, volumes and variables are joined (docker's
/// merge).
pub fn committed_config(container: &ImageConfig, given: Option<&ImageConfig>) -> ImageConfig {
    let Some(given) = given else {
        return container.clone();
    };
    let text = |new: &String, old: &String| {
        if new.is_empty() {
            old.clone()
        } else {
            new.clone()
        }
    };
    let list = |new: &Vec<String>, old: &Vec<String>| {
        if new.is_empty() {
            old.clone()
        } else {
            new.clone()
        }
    };
    let union = |new: &[String], old: &[String]| {
        let more = new.iter().filter(|item| !old.contains(item)).cloned();
        old.iter().cloned().chain(more).collect::<Vec<_>>()
    };
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let inherited = container
        .env
        .iter()
        .filter(|old| !given.env.iter().any(|new| name(new) == name(old)));
    let mut labels = container.labels.clone();
    labels.extend(given.labels.clone());
    // A new entry point makes the old arguments meaningless.
    let cmd = if given.entrypoint.is_empty() {
        list(&given.cmd, &container.cmd)
    } else {
        given.cmd.clone()
    };
    ImageConfig {
        user: text(&given.user, &container.user),
        exposed_ports: union(&given.exposed_ports, &container.exposed_ports),
        env: given.env.iter().chain(inherited).cloned().collect(),
        entrypoint: list(&given.entrypoint, &container.entrypoint),
        cmd,
        volumes: union(&given.volumes, &container.volumes),
        working_dir: text(&given.working_dir, &container.working_dir),
        labels,
        stop_signal: text(&given.stop_signal, &container.stop_signal),
        healthcheck: given
            .healthcheck
            .clone()
            .or_else(|| container.healthcheck.clone()),
        on_build: list(&given.on_build, &container.on_build),
        shell: list(&given.shell, &container.shell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_config_goes_before_the_containers() {
        let list = |items: &[&str]| {
            items
                .iter()
                .map(|&item| item.to_owned())
                .collect::<Vec<_>>()
        };
        let container = ImageConfig {
            env: list(&["A=1", "B=2"]),
            entrypoint: list(&["e"]),
            cmd: list(&["c"]),
            exposed_ports: list(&["80/tcp"]),
            user: "bob".to_owned(),
            ..Default::default()
        };
        assert_eq!(committed_config(&container, None), container);
        let given = ImageConfig {
            env: list(&["B=3"]),
            entrypoint: list(&["x"]),
            exposed_ports: list(&["81/tcp"]),
            ..Default::default()
        };
        let config = committed_config(&container, Some(&given));
        assert_eq!(config.env, list(&["B=3", "A=1"]));
        assert_eq!((config.entrypoint, config.cmd), (list(&["x"]), vec![]));
        assert_eq!(config.exposed_ports, list(&["80/tcp", "81/tcp"]));
        assert_eq!(config.user, "bob");
    }
}
