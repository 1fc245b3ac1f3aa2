//! GET /images/json

use std::collections::HashMap;

use davit_client::v1;

use crate::{
    convert::image::{self, Sizes},
    failure::Result,
    reply::{self, Reply},
    request::Call,
};

const FILTERS: &[&str] = &[
    "dangling",
    "label",
    "label!",
    "before",
    "since",
    "reference",
    "until",
];

pub(crate) async fn list(call: Call) -> Result<Reply> {
    let mut filters = call.filters(FILTERS)?;
    filters.flag("dangling", false)?;
    // Up to API 1.40 the reference could stand apart.
    let name = call.query.get("filter");
    if !name.is_empty() {
        filters = filters.with("reference", name.to_owned());
    }
    let request = v1::ListImagesRequest {
        filters: filters.to_v1(),
    };
    let mut images = call.gateway.calls().images();
    let found = images.list(request).await?.into_inner().images;
    let mut shared = HashMap::new();
    if call.query.flag("shared-size") {
        let usage = images
            .disk_usage(v1::ImageDiskUsageRequest {})
            .await?
            .into_inner();
        for item in usage.images {
            shared.insert(item.image.unwrap_or_default().id, item.shared);
        }
    }
    let element = |image: &v1::Image| {
        let shared = shared.get(&image.id).copied().unwrap_or(-1);
        let sizes = Sizes {
            shared,
            containers: -1,
        };
        image::summary(image, sizes, call.version)
    };
    Ok(reply::ok(&found.iter().map(element).collect()))
}
