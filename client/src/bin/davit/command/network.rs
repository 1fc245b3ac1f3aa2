//! `davit network …`.

use clap::Subcommand;
use davit_client::{docker, v1};
use serde_json::{Value, json};

use crate::{
    command::{
        each::each,
        inspect::print,
        prune::Common,
        ps::{filter, print_formatted},
    },
    context::{Context, line, write_all},
    error::{Failure, Outcome},
    human,
    options::pair,
    table::Table,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect a container to a network
    Connect(ConnectArgs),
    /// Create a network
    Create(CreateArgs),
    /// Disconnect a container from a network
    Disconnect(DisconnectArgs),
    /// Display detailed information on one or more networks
    Inspect(InspectArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Remove all unused networks
    Prune(PruneArgs),
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// Driver to manage the network
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long)]
    subnet: Vec<String>,
    /// IPv4 or IPv6 gateway for the subnet
    #[arg(long)]
    gateway: Vec<String>,
    /// Allocate container ip from a sub-range
    #[arg(long)]
    ip_range: Vec<String>,
    /// Auxiliary addresses that no container gets
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// Enable IPv6 networking
    #[arg(long)]
    ipv6: bool,
    /// Enable manual container attachment
    #[arg(long)]
    attachable: bool,
    /// Set metadata on a network
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    network: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// Add network-scoped alias for the container
    #[arg(long)]
    alias: Vec<String>,
    /// IPv4 address
    #[arg(long)]
    ip: Option<String>,
    /// IPv6 address
    #[arg(long)]
    ip6: Option<String>,
    /// Add link to another container
    #[arg(long)]
    link: Vec<String>,
    /// driver options for the network
    #[arg(long, value_name = "NAME=VALUE")]
    driver_opt: Vec<String>,
    /// Highest gw-priority provides the default gateway
    #[arg(long, allow_hyphen_values = true, default_value_t)]
    gw_priority: i32,
    network: String,
    container: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DisconnectArgs {
    /// Force the container to disconnect from a network
    #[arg(short, long)]
    force: bool,
    network: String,
    container: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Format output using a template or "json"
    #[arg(short, long)]
    format: Option<String>,
    /// Verbose output for diagnostics
    #[arg(short, long)]
    verbose: bool,
    #[arg(required = true)]
    networks: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<v1::Filter>,
    /// Format output using a template, "table TEMPLATE" or "json"
    #[arg(long)]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Only display network IDs
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Do not error if the network does not exist
    #[arg(short, long)]
    force: bool,
    #[arg(required = true)]
    networks: Vec<String>,
}

pub(crate) async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Connect(args) => connect(context, args).await,
        Command::Create(args) => create(context, args).await,
        Command::Disconnect(args) => disconnect(context, args).await,
        Command::Inspect(args) => inspect(context, args).await,
        Command::Ls(args) => list(context, args).await,
        Command::Prune(args) => prune(context, args).await,
        Command::Rm(args) => remove(context, args).await,
    }
}

async fn create(context: &Context, args: CreateArgs) -> Outcome {
    let subnets = subnets(&args).map_err(Failure::new)?;
    let request = v1::CreateNetworkRequest {
        name: args.network,
        driver: args.driver,
        internal: args.internal,
        enable_ipv6: args.ipv6,
        attachable: args.attachable,
        labels: args.label.iter().map(|text| pair(text)).collect(),
        options: args.opt.iter().map(|text| pair(text)).collect(),
        subnets,
    };
    let made = context
        .client
        .networks()
        .create(request)
        .await?
        .into_inner();
    line(made.id)?;
    Ok(0)
}

/// Gateways, ranges and addresses belong to the subnet that contains them.
fn subnets(args: &CreateArgs) -> Result<Vec<v1::NetworkSubnet>, String> {
    let mut subnets: Vec<v1::NetworkSubnet> = args
        .subnet
        .iter()
        .map(|subnet| v1::NetworkSubnet {
            subnet: subnet.clone(),
            ..Default::default()
        })
        .collect();
    let place = |what: &str, text: &str| -> Result<usize, String> {
        let found = subnets
            .iter()
            .position(|one| contains(&one.subnet, text.split('/').next().unwrap_or(text)));
        match found {
            Some(at) => Ok(at),
            None => Err(format!("no matching subnet for {what} {text}")),
        }
    };
    let mut placed = Vec::new();
    for gateway in &args.gateway {
        placed.push((place("gateway", gateway)?, "gateway", gateway.clone()));
    }
    for range in &args.ip_range {
        placed.push((place("ip-range", range)?, "range", range.clone()));
    }
    for auxiliary in &args.aux_address {
        let (_, address) = pair(auxiliary);
        placed.push((place("aux-address", &address)?, "aux", auxiliary.clone()));
    }
    for (at, what, text) in placed {
        let Some(subnet) = subnets.get_mut(at) else {
            continue;
        };
        match what {
            "gateway" => subnet.gateway = text,
            "range" => subnet.ip_range = text,
            _ => subnet.auxiliary_addresses.extend([pair(&text)]),
        }
    }
    Ok(subnets)
}

fn contains(subnet: &str, address: &str) -> bool {
    let (Some((net, length)), Ok(address)) = (subnet.split_once('/'), address.parse()) else {
        return false;
    };
    let (Ok(net), Ok(length)) = (net.parse(), length.parse::<u32>()) else {
        return false;
    };
    let top = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        std::net::IpAddr::V6(address) => u128::from(address),
    };
    let (net, address): (std::net::IpAddr, std::net::IpAddr) = (net, address);
    let keep = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0);
    net.is_ipv4() == address.is_ipv4() && top(net) & keep == top(address) & keep
}

async fn connect(context: &Context, args: ConnectArgs) -> Outcome {
    let request = v1::ConnectNetworkRequest {
        network: args.network,
        container: args.container,
        attachment: Some(v1::NetworkAttachment {
            aliases: args.alias,
            ipv4_address: args.ip.unwrap_or_default(),
            ipv6_address: args.ip6.unwrap_or_default(),
            links: args.link,
            driver_opts: args.driver_opt.iter().map(|text| pair(text)).collect(),
            gw_priority: args.gw_priority,
            ..Default::default()
        }),
    };
    context.client.networks().connect(request).await?;
    Ok(0)
}

async fn disconnect(context: &Context, args: DisconnectArgs) -> Outcome {
    let request = v1::DisconnectNetworkRequest {
        network: args.network,
        container: args.container,
        force: args.force,
    };
    context.client.networks().disconnect(request).await?;
    Ok(0)
}

async fn inspect(context: &Context, args: InspectArgs) -> Outcome {
    let mut found = Vec::new();
    let code = {
        let found = std::sync::Mutex::new(&mut found);
        each(&args.networks, |name| {
            let found = &found;
            async move {
                let request = v1::GetNetworkRequest { network: name };
                let network = context.client.networks().get(request).await?.into_inner();
                if let Ok(mut found) = found.lock() {
                    found.push(docker::network(&network));
                }
                Ok(())
            }
        })
        .await?
    };
    print(&found, args.format.as_deref())?;
    Ok(code)
}

async fn list(context: &Context, args: ListArgs) -> Outcome {
    let request = v1::ListNetworksRequest {
        filters: args.filter,
    };
    let networks = context
        .client
        .networks()
        .list(request)
        .await?
        .into_inner()
        .networks;
    let id = |network: &v1::Network| {
        if args.no_trunc {
            network.id.clone()
        } else {
            human::short_id(&network.id).to_owned()
        }
    };
    if args.quiet {
        for network in &networks {
            line(id(network))?;
        }
        return Ok(0);
    }
    let rows: Vec<Value> = networks
        .iter()
        .map(|network| {
            let mut labels: Vec<String> = network
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            labels.sort();
            json!({
                "ID": id(network),
                "Name": network.name,
                "Driver": network.driver,
                "Scope": "local",
                "IPv6": network.enable_ipv6.to_string(),
                "Internal": network.internal.to_string(),
                "Labels": labels.join(","),
                "CreatedAt": human::created_at(network.created_at.as_ref()),
            })
        })
        .collect();
    if let Some(format) = &args.format {
        print_formatted(format, rows.into_iter())?;
        return Ok(0);
    }
    let mut table = Table::new(&["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
    for row in rows {
        table.row(
            ["ID", "Name", "Driver", "Scope"]
                .iter()
                .map(|key| row[key].as_str().unwrap_or_default().to_owned())
                .collect(),
        );
    }
    write_all(table.to_string().as_bytes())?;
    Ok(0)
}

async fn prune(context: &Context, args: PruneArgs) -> Outcome {
    let warning = "This will remove all custom networks not used by at least one container.";
    if args.common.agreed(warning)? {
        networks(context, &args.common).await?;
    }
    Ok(0)
}

/// Prunes, and lists what went.
pub(crate) async fn networks(context: &Context, common: &Common) -> Outcome<()> {
    let request = v1::PruneNetworksRequest {
        dry_run: common.dry_run,
        filters: common.filter.clone(),
    };
    let reply = context.client.networks().prune(request).await?.into_inner();
    crate::command::prune::list("Networks", common, &reply)
}

async fn remove(context: &Context, args: RemoveArgs) -> Outcome {
    let force = args.force;
    each(&args.networks, |name| async move {
        let request = v1::RemoveNetworkRequest {
            network: name.clone(),
        };
        match context.client.networks().remove(request).await {
            Ok(_) => line(name),
            Err(status) if force && status.code() == tonic::Code::NotFound => Ok(()),
            Err(status) => Err(status.into()),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn addresses_belong_to_their_subnet() {
        assert!(contains("10.1.0.0/16", "10.1.200.3"));
        assert!(!contains("10.1.0.0/16", "10.2.0.3"));
        assert!(contains("fd00::/64", "fd00::5"));
        assert!(!contains("fd00::/64", "10.2.0.3"));
        assert!(!contains("x", "10.2.0.3"));
    }
}
