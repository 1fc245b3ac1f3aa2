//! `davit volume create`, `ls`, `inspect`, `rm` and `prune`.

use std::collections::HashMap;

use davit_client::{docker, v1};
use serde_json::{Value, json};

use crate::{
    command::{
        each::each,
        inspect::print_objects,
        ps::{filter, print_formatted},
    },
    context::{Context, line, warn, write_all},
    error::{Failure, Outcome},
    human,
    options::pair,
    table::Table,
};

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Specify volume driver name
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Set metadata for a volume
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Name of the volume; made up when it is not given
    name: Option<String>,
}

pub(crate) async fn create(context: &Context, args: CreateArgs) -> Outcome {
    let pairs = |list: &[String]| -> HashMap<String, String> {
        list.iter().map(|text| pair(text)).collect()
    };
    let request = v1::CreateVolumeRequest {
        name: args.name.unwrap_or_default(),
        driver: args.driver,
        labels: pairs(&args.label),
        options: pairs(&args.opt),
    };
    let made = context.client.volumes().create(request).await?.into_inner();
    made.warnings.iter().for_each(|text| warn(text));
    line(made.volume.unwrap_or_default().name)?;
    Ok(0)
}

#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<v1::Filter>,
    /// Format output using a template, "table TEMPLATE" or "json"
    #[arg(long)]
    format: Option<String>,
    /// Only display volume names
    #[arg(short, long)]
    quiet: bool,
    /// Display the sizes, which takes a walk over all files
    #[arg(short, long)]
    size: bool,
}

pub(crate) async fn ls(context: &Context, args: LsArgs) -> Outcome {
    let request = v1::ListVolumesRequest {
        filters: args.filter,
        size: args.size,
    };
    let found = context.client.volumes().list(request).await?.into_inner();
    found.warnings.iter().for_each(|text| warn(text));
    if args.quiet {
        for volume in &found.volumes {
            line(&volume.name)?;
        }
        return Ok(0);
    }
    let rows = found.volumes.iter().map(row);
    if let Some(format) = &args.format {
        print_formatted(format, rows)?;
        return Ok(0);
    }
    let mut keys = vec!["Driver", "Name"];
    let mut header = vec!["DRIVER", "VOLUME NAME"];
    if args.size {
        keys.push("Size");
        header.push("SIZE");
    }
    let mut table = Table::new(&header);
    for row in rows {
        table.row(
            keys.iter()
                .map(|key| row[key].as_str().unwrap_or_default().to_owned())
                .collect(),
        );
    }
    write_all(table.to_string().as_bytes())?;
    Ok(0)
}

fn row(volume: &v1::Volume) -> Value {
    let mut labels: Vec<String> = volume
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.sort();
    json!({
        "Availability": "N/A",
        "Driver": volume.driver,
        "Group": "N/A",
        "Labels": labels.join(","),
        "Links": volume.containers.len().to_string(),
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Scope": volume.scope,
        "Size": if volume.size < 0 { "N/A".to_owned() } else { human::size(volume.size) },
        "Status": "N/A",
    })
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Format output using a template or "json"
    #[arg(short, long)]
    format: Option<String>,
    /// Display the sizes
    #[arg(short, long)]
    size: bool,
    #[arg(required = true)]
    volumes: Vec<String>,
}

pub(crate) async fn inspect(context: &Context, args: InspectArgs) -> Outcome {
    let mut results: Vec<Outcome<Value>> = Vec::new();
    for name in &args.volumes {
        let request = v1::GetVolumeRequest {
            name: name.clone(),
            size: args.size,
        };
        let found = context.client.volumes().get(request).await;
        results.push(
            found
                .map(|reply| docker::volume(&reply.into_inner()))
                .map_err(Failure::from),
        );
    }
    print_objects(results, args.format.as_deref())
}

#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Force the removal of one or more volumes
    #[arg(short, long)]
    force: bool,
    #[arg(required = true)]
    volumes: Vec<String>,
}

pub(crate) async fn rm(context: &Context, args: RmArgs) -> Outcome {
    each(&args.volumes, async |name| {
        let request = v1::RemoveVolumeRequest {
            name: name.clone(),
            force: args.force,
        };
        context.client.volumes().remove(request).await?;
        line(name)
    })
    .await
}
