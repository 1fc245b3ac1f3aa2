//! The service `Images`.

use std::io;

use bytes::Bytes;
use davit_images::image;
use davit_proto::v1::{self, images_server::Images};
use futures::{Stream, StreamExt, stream::BoxStream};
use tokio_util::io::StreamReader;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Native,
    convert::*,
    namespace,
    status::{missing, status},
};

/// A streaming reply.
pub(super) type Reply<T> = BoxStream<'static, Result<T, Status>>;

/// Wraps a stream of ours: values converted, errors mapped.
pub(super) fn reply<T, U>(
    stream: impl Stream<Item = davit_store::Result<T>> + Send + 'static,
    convert: impl Fn(T) -> U + Send + 'static,
) -> Response<Reply<U>> {
    Response::new(
        stream
            .map(move |item| item.map(&convert).map_err(status))
            .boxed(),
    )
}

/// The bytes of an upload as a reader. A call that breaks off is an error, not
/// the end of the data.
fn reader<M: Send + 'static>(
    first: Bytes,
    stream: Streaming<M>,
    data: impl Fn(M) -> Bytes + Send + 'static,
) -> impl tokio::io::AsyncRead + Send + 'static {
    let head = futures::stream::once(async move { Ok(first) });
    let tail = stream.map(move |message| message.map(&data).map_err(io::Error::other));
    StreamReader::new(head.chain(tail).boxed())
}

fn tar_chunk(data: Bytes) -> v1::TarChunk {
    v1::TarChunk { data }
}

#[tonic::async_trait]
impl Images for Native {
    type PullStream = Reply<v1::PullProgress>;
    type PushStream = Reply<v1::PushProgress>;
    type ImportStream = Reply<v1::ImportProgress>;
    type ExportStream = Reply<v1::TarChunk>;

    async fn pull(
        &self,
        request: Request<v1::PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let ns = namespace::of(&request)?;
        let stream = self.images.pull(&ns, from_pull(request.into_inner()));
        first_or_error(stream, to_pull_progress).await
    }

    async fn push(
        &self,
        request: Request<v1::PushRequest>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let ns = namespace::of(&request)?;
        let stream = self.images.push(&ns, from_push(request.into_inner()));
        first_or_error(stream, to_push_progress).await
    }

    async fn import(
        &self,
        request: Request<Streaming<v1::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let ns = namespace::of(&request)?;
        let mut stream = request.into_inner();
        let first = stream.message().await?.ok_or_else(|| missing("options"))?;
        let options = from_import_options(first.options.unwrap_or_default());
        let data = reader(first.data, stream, |message: v1::ImportRequest| {
            message.data
        });
        Ok(reply(
            self.images.import(&ns, options, data),
            to_import_progress,
        ))
    }

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let export = image::ExportRequest {
            images: request.images,
            platform: request.platform.map(from_platform),
        };
        first_or_error(self.images.export(&ns, export), tar_chunk).await
    }

    async fn get(
        &self,
        request: Request<v1::GetImageRequest>,
    ) -> Result<Response<v1::Image>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let platform = request.platform.map(from_platform);
        let image = self
            .images
            .get(&ns, &request.image, platform.as_ref())
            .await
            .map_err(status)?;
        Ok(Response::new(to_image(image)))
    }

    async fn list(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        let ns = namespace::of(&request)?;
        let filters = from_image_filters(request.into_inner().filters);
        let images = self.images.list(&ns, &filters).await.map_err(status)?;
        Ok(Response::new(v1::ListImagesResponse {
            images: images.into_iter().map(to_image).collect(),
        }))
    }

    async fn tag(
        &self,
        request: Request<v1::TagImageRequest>,
    ) -> Result<Response<v1::Image>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let image = self
            .images
            .tag(&ns, &request.source, &request.target)
            .await
            .map_err(status)?;
        Ok(Response::new(to_image(image)))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let removed = self
            .images
            .remove(&ns, &request.image, request.force)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RemoveImageResponse {
            untagged: removed.untagged,
            deleted: removed.deleted,
        }))
    }

    async fn inspect(
        &self,
        request: Request<v1::GetImageRequest>,
    ) -> Result<Response<v1::ImageDetails>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let platform = request.platform.map(from_platform);
        let details = self
            .images
            .inspect(&ns, &request.image, platform.as_ref())
            .await
            .map_err(status)?;
        Ok(Response::new(to_image_details(details)))
    }

    async fn history(
        &self,
        request: Request<v1::GetImageRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let platform = request.platform.map(from_platform);
        let entries = self
            .images
            .history(&ns, &request.image, platform.as_ref())
            .await
            .map_err(status)?;
        Ok(Response::new(v1::HistoryResponse {
            entries: entries.into_iter().map(to_history_entry).collect(),
        }))
    }

    async fn prune(
        &self,
        request: Request<v1::PruneImagesRequest>,
    ) -> Result<Response<v1::PruneResponse>, Status> {
        let ns = namespace::of(&request)?;
        let request = request.into_inner();
        let prune = image::PruneRequest {
            all: request.all,
            dry_run: request.dry_run,
            filters: from_image_filters(request.filters),
        };
        let pruned = self.images.prune(&ns, prune).await.map_err(status)?;
        Ok(Response::new(v1::PruneResponse {
            removed: pruned.removed,
            space_reclaimed: pruned.space_reclaimed,
        }))
    }

    async fn remote_manifest(
        &self,
        request: Request<v1::RemoteManifestRequest>,
    ) -> Result<Response<v1::RemoteManifestResponse>, Status> {
        let request = request.into_inner();
        let auth = request.auth.map(from_auth);
        let manifest = self
            .images
            .remote_manifest(&request.reference, auth)
            .await
            .map_err(status)?;
        Ok(Response::new(to_remote_manifest(manifest)))
    }

    async fn disk_usage(
        &self,
        request: Request<v1::ImageDiskUsageRequest>,
    ) -> Result<Response<v1::ImageDiskUsageResponse>, Status> {
        let ns = namespace::of(&request)?;
        let usage = self.images.disk_usage(&ns).await.map_err(status)?;
        Ok(Response::new(to_image_usage(usage)))
    }

    async fn create_from_tar(
        &self,
        request: Request<Streaming<v1::CreateFromTarRequest>>,
    ) -> Result<Response<v1::Image>, Status> {
        let ns = namespace::of(&request)?;
        let mut stream = request.into_inner();
        let first = stream.message().await?.ok_or_else(|| missing("options"))?;
        let options = from_create_from_tar(first.options.unwrap_or_default());
        let data = reader(first.data, stream, |message: v1::CreateFromTarRequest| {
            message.data
        });
        let image = self
            .images
            .create_from_tar(&ns, options, data)
            .await
            .map_err(status)?;
        Ok(Response::new(to_image(image)))
    }
}

/// A stream whose failure before the first message is the call's own failure,
/// so that a caller gets a status and no half-open stream.
pub(super) async fn first_or_error<T, U>(
    stream: impl Stream<Item = davit_store::Result<T>> + Send + 'static,
    convert: impl Fn(T) -> U + Send + 'static,
) -> Result<Response<Reply<U>>, Status>
where
    T: Send + 'static,
    U: 'static,
{
    let mut stream = Box::pin(stream);
    let first = stream.next().await.transpose().map_err(status)?;
    let head = futures::stream::iter(first.map(Ok));
    Ok(reply(head.chain(stream), convert))
}
