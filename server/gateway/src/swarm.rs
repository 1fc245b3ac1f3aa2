//! Swarm and what belongs to it: answered as a dockerd that is in no swarm.

use http::StatusCode;

use crate::{
    failure::{Failure, Result},
    reply::Reply,
    request::Call,
};

pub(crate) async fn no_manager(_: Call) -> Result<Reply> {
    Err(Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
         connect this node to swarm and try again.",
    ))
}

pub(crate) async fn no_member(_: Call) -> Result<Reply> {
    Err(Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not part of a swarm",
    ))
}

pub(crate) async fn unsupported(_: Call) -> Result<Reply> {
    Err(Failure::not_implemented("swarms are not supported"))
}
