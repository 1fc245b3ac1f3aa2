//! Archives of images: OCI layouts and docker-archives, as tar streams.

use bytes::Bytes;
use davit_store::Error;
use tokio::io::AsyncRead;

use crate::{
    Images, Progress,
    image::{ExportRequest, ImportOptions, ImportProgress},
};

fn pending<T: Send + 'static>() -> Progress<T> {
    let error = Error::new(davit_store::Kind::Unimplemented, "not written yet");
    Box::pin(futures::stream::iter([Err(error)]))
}

impl Images {
    /// Reads images from a tar.
    pub fn import(
        &self,
        _namespace: &str,
        _options: ImportOptions,
        data: impl AsyncRead + Send + 'static,
    ) -> Progress<ImportProgress> {
        drop(data);
        pending()
    }

    /// Writes images as a tar.
    pub fn export(&self, _namespace: &str, _request: ExportRequest) -> Progress<Bytes> {
        pending()
    }
}
