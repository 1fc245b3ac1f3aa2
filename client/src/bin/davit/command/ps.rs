//! `davit ps`.

use davit_client::{
    docker::command_line,
    v1::{self, ContainerStatus},
};
use serde_json::{Value, json};

use crate::{
    context::{Context, line, write_all},
    error::{Failure, Outcome},
    human,
    reference::familiar,
    table::Table,
    template::Template,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<v1::Filter>,
    /// Format output using a template, "table TEMPLATE" or "json"
    #[arg(long)]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long)]
    last: Option<i32>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

/// "key=value" of `--filter`.
pub(crate) fn filter(text: &str) -> Result<v1::Filter, String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("invalid filter '{text}': give key=value"))?;
    Ok(v1::Filter {
        key: key.trim().to_lowercase(),
        value: value.trim().into(),
    })
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let request = v1::ListContainersRequest {
        all: args.all,
        limit: if args.latest {
            1
        } else {
            args.last.unwrap_or_default()
        },
        size: args.size,
        filters: args.filter.clone(),
    };
    let containers = context
        .client
        .containers()
        .list(request)
        .await?
        .into_inner()
        .containers;
    if args.quiet {
        for container in &containers {
            line(if args.no_trunc {
                &container.id
            } else {
                human::short_id(&container.id)
            })?;
        }
        return Ok(0);
    }
    let rows = containers.iter().map(|container| row(container, &args));
    if let Some(format) = &args.format {
        print_formatted(format, rows)?;
        return Ok(0);
    }
    let mut header = vec![
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ];
    let mut keys = vec![
        "ID",
        "Image",
        "Command",
        "RunningFor",
        "Status",
        "Ports",
        "Names",
    ];
    if args.size {
        header.push("SIZE");
        keys.push("Size");
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

/// Prints each row by the template (or as a JSON line), with a header for
/// "table" templates.
pub(crate) fn print_formatted(format: &str, rows: impl Iterator<Item = Value>) -> Outcome<()> {
    if format == "json" {
        for row in rows {
            line(row.to_string())?;
        }
        return Ok(());
    }
    let template = Template::parse(format).map_err(Failure::new)?;
    if template.table {
        let mut table = Table::bare();
        table.row(template.header().split('\t').map(str::to_owned).collect());
        for row in rows {
            let text = template.render(&row).map_err(Failure::new)?;
            table.row(text.split('\t').map(str::to_owned).collect());
        }
        return write_all(table.to_string().as_bytes());
    }
    for row in rows {
        line(template.render(&row).map_err(Failure::new)?)?;
    }
    Ok(())
}

fn row(container: &v1::Container, args: &Args) -> Value {
    let command = command_line(&container.command);
    let id = if args.no_trunc {
        &container.id
    } else {
        human::short_id(&container.id)
    };
    let labels: Vec<String> = container
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    json!({
        "ID": id,
        "Image": familiar(&container.image),
        "Command": format!("\"{}\"", if args.no_trunc { command } else { shorten(&command) }),
        "CreatedAt": human::created_at(container.created_at.as_ref()),
        "RunningFor": human::ago(container.created_at.as_ref()),
        "Status": container.state.as_ref().map(status).unwrap_or_default(),
        "State": container.state.as_ref().map(state).unwrap_or_default(),
        "Ports": ports(container),
        "Names": container.name,
        "Labels": labels.join(","),
        "Mounts": container.mounts.iter().map(|mount| mount.source.as_str()).collect::<Vec<_>>().join(","),
        "Networks": container.endpoints.iter().map(|one| one.network.as_str()).collect::<Vec<_>>().join(","),
        "LocalVolumes": "0",
        "Size": format!("{} (virtual {})", human::size(container.size_rw), human::size(container.size_root_fs)),
    })
}

/// "0.0.0.0:8080->80/tcp, 53/udp".
fn ports(container: &v1::Container) -> String {
    let list = davit_client::docker::port_list(container);
    let texts = list.as_array().into_iter().flatten().map(|port| {
        let text = |key: &str| port[key].as_str().unwrap_or_default().to_owned();
        let inner = format!("{}/{}", port["PrivatePort"], text("Type"));
        match port["PublicPort"].as_u64() {
            Some(outer) if text("IP").contains(':') => format!("[{}]:{outer}->{inner}", text("IP")),
            Some(outer) => format!("{}:{outer}->{inner}", text("IP")),
            None => inner,
        }
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn shorten(command: &str) -> String {
    if command.chars().count() <= 20 {
        return command.to_owned();
    }
    command.chars().take(19).chain(['…']).collect()
}

fn state(state: &v1::ContainerState) -> &'static str {
    match state.status() {
        ContainerStatus::Unspecified => "",
        ContainerStatus::Created => "created",
        ContainerStatus::Running => "running",
        ContainerStatus::Paused => "paused",
        ContainerStatus::Restarting => "restarting",
        ContainerStatus::Removing => "removing",
        ContainerStatus::Exited => "exited",
        ContainerStatus::Dead => "dead",
    }
}

/// "Up 3 minutes (healthy)", "Exited (0) 2 hours ago", as docker says it.
pub(crate) fn status(state: &v1::ContainerState) -> String {
    let up = || {
        state
            .started_at
            .as_ref()
            .map_or_else(String::new, |at| human::span(human::seconds_since(at)))
    };
    let health = match state.health.as_ref().map(|health| health.status.as_str()) {
        Some("starting") => " (health: starting)".to_owned(),
        Some(status @ ("healthy" | "unhealthy")) => format!(" ({status})"),
        _ => String::new(),
    };
    let ended = human::ago(state.finished_at.as_ref());
    match state.status() {
        ContainerStatus::Unspecified => String::new(),
        ContainerStatus::Created => "Created".into(),
        ContainerStatus::Running => format!("Up {}{health}", up()),
        ContainerStatus::Paused => format!("Up {} (Paused)", up()),
        ContainerStatus::Restarting => format!("Restarting ({}) {ended}", state.exit_code),
        ContainerStatus::Removing => "Removal In Progress".into(),
        ContainerStatus::Exited => format!("Exited ({}) {ended}", state.exit_code),
        ContainerStatus::Dead => "Dead".into(),
    }
}
