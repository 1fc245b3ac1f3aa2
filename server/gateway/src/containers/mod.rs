//! /containers: one file for each thing that clients do with them.

pub(crate) mod archive;
pub(crate) mod attach;
pub(crate) mod commit;
pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod remove;
pub(crate) mod stats;
pub(crate) mod top;
pub(crate) mod update;
pub(crate) mod wait;

use davit_client::v1;
use tonic::Status;

use crate::{
    failure::{Failure, Result},
    gateway::Gateway,
};

/// Turns an error of a call on the container `name`; a missing container in
/// dockerd's words. An error that says so itself may mean another container.
pub(crate) fn failure(status: Status, name: &str) -> Failure {
    if status.message().contains("No such container") {
        return status.into();
    }
    Failure::from(status).when_not_found(|| no_such(name))
}

fn no_such(name: &str) -> String {
    format!("No such container: {}", name.trim_start_matches('/'))
}

/// Everything about one container.
pub(crate) async fn details(
    gateway: &Gateway,
    name: &str,
    size: bool,
) -> Result<v1::ContainerDetails> {
    let request = v1::InspectContainerRequest {
        container: name.to_owned(),
        watch: false,
        size,
    };
    let found = async {
        let mut answers = gateway
            .calls()
            .containers()
            .inspect(request)
            .await?
            .into_inner();
        answers.message().await
    };
    match found.await {
        Ok(Some(details)) => Ok(details),
        Ok(None) => Err(Failure::not_found(no_such(name))),
        Err(status) => Err(failure(status, name)),
    }
}

/// A container in short form.
pub(crate) async fn get(gateway: &Gateway, name: &str) -> Result<v1::Container> {
    let request = v1::GetContainerRequest {
        container: name.to_owned(),
    };
    let found = gateway.calls().containers().get(request).await;
    found
        .map(tonic::Response::into_inner)
        .map_err(|status| failure(status, name))
}
