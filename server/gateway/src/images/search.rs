//! GET /images/search

use crate::{
    failure::{Failure, Result},
    reply::Reply,
    request::Call,
};

/// There is no index to search: registries that davit speaks to have none.
pub(crate) async fn search(_: Call) -> Result<Reply> {
    Err(Failure::not_implemented(
        "searching is not supported: registries have no common search; pull an image by its name",
    ))
}
