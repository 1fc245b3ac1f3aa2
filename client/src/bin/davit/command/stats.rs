//! `davit stats`.

use std::{collections::BTreeMap, time::Duration};

use davit_client::v1;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    command::ps::print_formatted,
    context::{Context, write_all},
    error::Outcome,
    human,
    table::Table,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Format output using a template, "table TEMPLATE" or "json"
    #[arg(long)]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    containers: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let names = if args.containers.is_empty() {
        let request = v1::ListContainersRequest {
            all: args.all,
            ..Default::default()
        };
        let reply = context
            .client
            .containers()
            .list(request)
            .await?
            .into_inner();
        reply
            .containers
            .into_iter()
            .map(|container| container.id)
            .collect()
    } else {
        args.containers.clone()
    };
    let (sender, mut samples) = mpsc::channel(names.len().max(1));
    for name in names {
        let (context, sender) = (context.clone(), sender.clone());
        let request = v1::StatsRequest {
            container: name,
            stream: true,
        };
        let mut stream = context.client.tasks().stats(request).await?.into_inner();
        tokio::spawn(async move {
            let mut previous: Option<v1::StatsResponse> = None;
            while let Ok(Some(sample)) = stream.message().await {
                // CPU use is a difference, so the first sample shows nothing.
                if let Some(previous) = &previous
                    && sender.send(row(previous, &sample)).await.is_err()
                {
                    return;
                }
                previous = Some(sample);
            }
        });
    }
    drop(sender);
    let mut rows: BTreeMap<String, Value> = BTreeMap::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            sample = samples.recv() => match sample {
                Some(row) => {
                    let id = row["ID"].as_str().unwrap_or_default().to_owned();
                    let again = rows.insert(id, row).is_some();
                    if args.no_stream && again {
                        break;
                    }
                }
                None => break,
            },
            _ = tick.tick(), if !args.no_stream => print(context, &args, &rows, true)?,
        }
    }
    print(context, &args, &rows, !args.no_stream)?;
    Ok(0)
}

fn print(
    context: &Context,
    args: &Args,
    rows: &BTreeMap<String, Value>,
    clear: bool,
) -> Outcome<()> {
    if clear && context.terminal {
        write_all(b"\x1b[2J\x1b[H")?;
    }
    if let Some(format) = &args.format {
        return print_formatted(format, rows.values().cloned());
    }
    let keys = [
        "ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs",
    ];
    let mut table = Table::new(&[
        "CONTAINER ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "NET I/O",
        "BLOCK I/O",
        "PIDS",
    ]);
    for row in rows.values() {
        table.row(
            keys.iter()
                .map(|key| {
                    let cell = row[key].as_str().unwrap_or_default();
                    if *key == "ID" && !args.no_trunc {
                        human::short_id(cell).into()
                    } else {
                        cell.into()
                    }
                })
                .collect(),
        );
    }
    write_all(table.to_string().as_bytes())
}

fn row(previous: &v1::StatsResponse, sample: &v1::StatsResponse) -> Value {
    let memory = sample.memory.clone().unwrap_or_default();
    let cache = ["total_inactive_file", "inactive_file"]
        .iter()
        .find_map(|key| memory.stats.get(*key))
        .copied()
        .unwrap_or_default();
    let used = memory.usage.saturating_sub(cache);
    let percent = if memory.limit == 0 {
        0.0
    } else {
        used as f64 / memory.limit as f64 * 100.0
    };
    let (received, sent) = sample.networks.values().fold((0, 0), |(rx, tx), network| {
        (rx + network.rx_bytes, tx + network.tx_bytes)
    });
    let blocks = |op: &str| -> u64 {
        let blkio = sample.blkio.iter().flat_map(|blkio| &blkio.service_bytes);
        blkio
            .filter(|entry| entry.op.eq_ignore_ascii_case(op))
            .map(|entry| entry.value)
            .sum()
    };
    json!({
        "ID": sample.id,
        "Container": sample.id,
        "Name": sample.name,
        "CPUPerc": format!("{:.2}%", cpu_percent(previous, sample)),
        "MemUsage": format!("{} / {}", human::binary_size(used), human::binary_size(memory.limit)),
        "MemPerc": format!("{percent:.2}%"),
        "NetIO": format!("{} / {}", human::short_size(received), human::short_size(sent)),
        "BlockIO": format!("{} / {}", human::short_size(blocks("read")), human::short_size(blocks("write"))),
        "PIDs": sample.pids.as_ref().map_or(0, |pids| pids.current).to_string(),
    })
}

fn cpu_percent(previous: &v1::StatsResponse, sample: &v1::StatsResponse) -> f64 {
    let (Some(before), Some(now)) = (&previous.cpu, &sample.cpu) else {
        return 0.0;
    };
    let used = now.usage_total.saturating_sub(before.usage_total) as f64;
    let system = now.system_usage.saturating_sub(before.system_usage) as f64;
    if system > 0.0 {
        used / system * f64::from(now.online_cpus.max(1)) * 100.0
    } else {
        0.0
    }
}
