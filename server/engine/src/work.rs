//! What looks into a container: files, processes, usage.

use std::sync::Arc;

use futures::stream::BoxStream;

use crate::{Error, Kind, Result, index::Handle, model::*, shared::Shared};

fn pending() -> Error {
    Error::new(Kind::Unimplemented, "not written yet")
}

impl Shared {
    pub(crate) async fn diff(&self, _handle: &Handle) -> Result<Vec<Change>> {
        Err(pending())
    }
    pub(crate) async fn copy_out(&self, _handle: &Handle, _path: &str) -> Result<(PathStat, TarStream)> {
        Err(pending())
    }
    pub(crate) async fn copy_in(&self, _handle: &Handle, _options: CopyInOptions, _tar: TarStream) -> Result<()> {
        Err(pending())
    }
    pub(crate) async fn stat_path(&self, _handle: &Handle, _path: &str) -> Result<PathStat> {
        Err(pending())
    }
    pub(crate) async fn commit(self: &Arc<Self>, _handle: &Handle, _request: CommitRequest) -> Result<String> {
        Err(pending())
    }
    pub(crate) async fn export(&self, _handle: &Handle) -> Result<TarStream> {
        Err(pending())
    }
    pub(crate) async fn processes(&self, _handle: &Handle, _ps_args: &str) -> Result<Processes> {
        Err(pending())
    }
    pub(crate) async fn stats(self: &Arc<Self>, _handle: Handle, _stream: bool) -> Result<BoxStream<'static, Result<Stats>>> {
        Err(pending())
    }
}
