//! Place of `rebuild` and `check` until `repair.rs` brings them: what lies on
//! disk is content's business.

use davit_store::Result;

use super::Rebuilt;
use crate::{Images, lease::pending};

impl Images {
    /// Records again what lies on disk, after the store was lost.
    pub async fn rebuild(&self) -> Result<Rebuilt> {
        Err(pending())
    }

    /// Compares records with what is on disk: one sentence for each thing that
    /// is wrong. With `repair` it is mended too.
    pub async fn check(&self, _repair: bool) -> Result<Vec<String>> {
        Err(pending())
    }
}
