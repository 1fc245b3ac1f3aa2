//! runc-compatible binaries: runc, crun, youki.

use std::path::Path;

use super::{CheckpointRequest, CreateRequest, Created, ExecRequest, RuntimeOptions, RuntimeState};
use crate::error::{Error, Kind, Result};
use crate::reaper::Reaper;

/// A runc-compatible binary.
#[derive(Debug, Clone)]
pub struct External {
    options: RuntimeOptions,
    reaper: Reaper,
}

impl External {
    pub fn new(options: RuntimeOptions, reaper: Reaper) -> Result<External> {
        Ok(External { options, reaper })
    }

    pub async fn create(&self, request: CreateRequest<'_>) -> Result<Created> {
        let _ = request;
        Err(unimplemented("create"))
    }

    pub async fn start(&self, id: &str) -> Result<()> {
        let _ = id;
        Err(unimplemented("start"))
    }

    pub async fn exec(&self, request: ExecRequest<'_>) -> Result<Created> {
        let _ = request;
        Err(unimplemented("exec"))
    }

    pub async fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let _ = (id, signal, all);
        Err(unimplemented("kill"))
    }

    pub async fn delete(&self, id: &str, force: bool) -> Result<()> {
        let _ = (id, force);
        Err(unimplemented("delete"))
    }

    pub async fn pause(&self, id: &str) -> Result<()> {
        let _ = id;
        Err(unimplemented("pause"))
    }

    pub async fn resume(&self, id: &str) -> Result<()> {
        let _ = id;
        Err(unimplemented("resume"))
    }

    pub async fn ps(&self, id: &str) -> Result<Vec<i32>> {
        let _ = id;
        Err(unimplemented("ps"))
    }

    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let _ = (id, resources);
        Err(unimplemented("update"))
    }

    pub async fn state(&self, id: &str) -> Result<RuntimeState> {
        let _ = id;
        Err(unimplemented("state"))
    }

    pub async fn checkpoint(&self, id: &str, bundle: &Path, request: &CheckpointRequest) -> Result<()> {
        let _ = (id, bundle, request);
        Err(unimplemented("checkpoint"))
    }

    pub async fn features(&self) -> Result<Vec<u8>> {
        Err(unimplemented("features"))
    }
}

fn unimplemented(call: &str) -> Error {
    Error::new(Kind::Unimplemented, format!("{call} is not there yet"))
}
