//! GET /images/get and /images/{name}/get: `docker save`.

use davit_client::v1;
use futures::{StreamExt, TryStreamExt};

use crate::{
    convert::create,
    failure::{Failure, Result},
    reply::{self, Reply, StreamCut},
    request::Call,
};

pub(crate) async fn many(call: Call) -> Result<Reply> {
    let names = call.query.all("names");
    save(call, names).await
}

pub(crate) async fn one(call: Call) -> Result<Reply> {
    let names = vec![call.name()];
    save(call, names).await
}

async fn save(call: Call, images: Vec<String>) -> Result<Reply> {
    let Some(first_name) = images.first().cloned() else {
        return Err(Failure::bad_request("no image was named"));
    };
    let several = images.len() > 1;
    let platform = create::platform(call.query.get("platform"))?;
    let request = v1::ExportRequest { images, platform };
    let begin = async {
        let mut chunks = call
            .gateway
            .stream()
            .images()
            .export(request)
            .await?
            .into_inner();
        let first = chunks.message().await?;
        Ok((chunks, first))
    };
    let (chunks, first) = begin.await.map_err(|status: tonic::Status| {
        if several {
            status.into()
        } else {
            super::failure(status, &first_name)
        }
    })?;
    let first = futures::stream::iter(first.map(Ok));
    let data = first
        .chain(chunks)
        .map_ok(|chunk| chunk.data)
        .map_err(StreamCut::from);
    Ok(reply::stream(reply::TAR, data))
}
