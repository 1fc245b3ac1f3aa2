//! Volumes as callers ask for and see them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Filter;

/// See `davit.v1.Volume`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volume {
    pub name: String,
    /// "local", or the name of a volume plugin.
    pub driver: String,
    /// Directory on the host; empty when the driver does not tell.
    pub mountpoint: String,
    /// None for one that only its plugin knows.
    pub created_at: Option<Timestamp>,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// "local" or "global".
    pub scope: String,
    /// What the driver tells; values that are no text are JSON.
    pub status: BTreeMap<String, String>,
    /// It was made without a name.
    pub anonymous: bool,
    /// Ids of the containers that have it, running or not.
    pub containers: Vec<String>,
    /// Bytes; None when it was not asked for or can't be told.
    pub size: Option<u64>,
}

/// See `davit.v1.CreateVolumeRequest`.
#[derive(Debug, Clone, Default)]
pub struct CreateVolumeRequest {
    /// Made up when empty.
    pub name: String,
    /// "local" when empty.
    pub driver: String,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
}

/// See `davit.v1.CreateVolumeResponse`.
#[derive(Debug, Clone)]
pub struct CreateVolumeResponse {
    pub volume: Volume,
    /// False when it was there already.
    pub created: bool,
    pub warnings: Vec<String>,
}

/// See `davit.v1.ListVolumesRequest`.
#[derive(Debug, Clone, Default)]
pub struct ListVolumesRequest {
    pub filters: Vec<Filter>,
    /// Fill the sizes.
    pub size: bool,
}

/// The volumes that pass, and plugins that did not answer.
#[derive(Debug, Clone, Default)]
pub struct ListVolumesResponse {
    pub volumes: Vec<Volume>,
    pub warnings: Vec<String>,
}

/// See `davit.v1.PruneVolumesRequest`.
#[derive(Debug, Clone, Default)]
pub struct PruneVolumesRequest {
    /// Named ones, too.
    pub all: bool,
    pub dry_run: bool,
    pub filters: Vec<Filter>,
}
