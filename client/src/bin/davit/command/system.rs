//! `davit system df`.

use davit_client::v1;
use serde_json::json;

use crate::{
    command::ps::print_formatted,
    context::{Context, line, write_all},
    error::Outcome,
    human,
    table::Table,
};

#[derive(Debug, clap::Args)]
pub(crate) struct DfArgs {
    /// Format output using a template, "table TEMPLATE" or "json"
    #[arg(long)]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) async fn df(context: &Context, args: DfArgs) -> Outcome {
    let usage = context
        .client
        .system()
        .disk_usage(v1::DiskUsageRequest {})
        .await?
        .into_inner();
    let images = usage.images.unwrap_or_default();
    let list = v1::ListVolumesRequest {
        filters: Vec::new(),
        size: true,
    };
    let volumes = context
        .client
        .volumes()
        .list(list)
        .await?
        .into_inner()
        .volumes;
    let bytes = |volumes: &mut dyn Iterator<Item = &v1::Volume>| -> i64 {
        volumes.map(|volume| volume.size.max(0)).sum()
    };
    let unused = |volume: &&v1::Volume| volume.containers.is_empty();
    let volume_bytes = bytes(&mut volumes.iter());
    let volume_reclaimable = bytes(&mut volumes.iter().filter(unused));
    let volumes_active = volumes.len() - volumes.iter().filter(unused).count();
    let (writable, logs, reclaimable) =
        usage.containers.iter().fold((0, 0, 0), |sum, container| {
            let back = if container.reclaimable {
                container.writable + container.logs
            } else {
                0
            };
            (
                sum.0 + container.writable,
                sum.1 + container.logs,
                sum.2 + back,
            )
        });
    let active_images = images
        .images
        .iter()
        .filter(|usage| {
            usage
                .image
                .as_ref()
                .is_some_and(|image| image.containers > 0)
        })
        .count();
    let active = usage
        .containers
        .iter()
        .filter(|container| !container.reclaimable)
        .count();
    let rows = [
        ("Images", images.images.len(), active_images, images.blobs + images.snapshots, images.reclaimable),
        ("Containers", usage.containers.len(), active, writable + logs, reclaimable),
        ("Local Volumes", volumes.len(), volumes_active, volume_bytes, volume_reclaimable),
        ("Build Cache", 0, 0, 0, 0),
    ]
    .map(|(kind, total, active, size, reclaimable)| {
        let percent = if size > 0 { reclaimable * 100 / size } else { 0 };
        json!({
            "Type": kind,
            "TotalCount": total.to_string(),
            "Active": active.to_string(),
            "Size": human::size(size),
            "Reclaimable": if size > 0 { format!("{} ({percent}%)", human::size(reclaimable)) } else { human::size(0) },
        })
    });
    if let Some(format) = &args.format {
        print_formatted(format, rows.into_iter())?;
        return Ok(0);
    }
    let keys = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
    let mut table = Table::new(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    for row in rows {
        table.row(
            keys.iter()
                .map(|key| row[key].as_str().unwrap_or_default().to_owned())
                .collect(),
        );
    }
    write_all(table.to_string().as_bytes())?;
    if args.verbose {
        line(format!(
            "\nCompressed blobs:   {}",
            human::size(images.blobs)
        ))?;
        line(format!(
            "Unpacked layers:    {}",
            human::size(images.snapshots)
        ))?;
        line(format!(
            "Partial downloads:  {}",
            human::size(images.ingests)
        ))?;
        line(format!("Container logs:     {}", human::size(logs)))?;
        line(format!("Metadata store:     {}", human::size(usage.store)))?;
        line(format!(
            "Belongs to nothing: {}",
            human::size(usage.orphaned)
        ))?;
    }
    Ok(0)
}
