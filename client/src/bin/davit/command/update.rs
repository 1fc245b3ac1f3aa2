//! `davit update`.

use davit_client::v1;

use crate::{
    command::each::each,
    context::{Context, line, warn},
    error::{Failure, Outcome},
    human::parse_bytes,
    options::{pair, restart_policy},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Memory limit
    #[arg(short, long, value_parser = parse_bytes)]
    memory: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory soft limit
    #[arg(long, value_parser = parse_bytes)]
    memory_reservation: Option<i64>,
    /// Number of CPUs
    #[arg(long)]
    cpus: Option<f64>,
    /// CPU shares (relative weight)
    #[arg(short, long)]
    cpu_shares: Option<i64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) period
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, default_value = "")]
    cpuset_cpus: String,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, default_value = "")]
    cpuset_mems: String,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Block IO (relative weight), between 10 and 1000
    #[arg(long)]
    blkio_weight: Option<u32>,
    /// Restart policy to apply when a container exits
    #[arg(long, value_parser = restart_policy)]
    restart: Option<v1::RestartPolicy>,
    /// Set a label; an empty value removes it
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let memory_swap = match args.memory_swap.as_deref() {
        None => 0,
        Some("-1") => -1,
        Some(text) => parse_bytes(text).map_err(Failure::new)?,
    };
    let resources = v1::Resources {
        memory: args.memory.unwrap_or_default(),
        memory_swap,
        memory_reservation: args.memory_reservation.unwrap_or_default(),
        nano_cpus: args.cpus.map_or(0, |cpus| (cpus * 1e9).round() as i64),
        cpu_shares: args.cpu_shares.unwrap_or_default(),
        cpu_period: args.cpu_period.unwrap_or_default(),
        cpu_quota: args.cpu_quota.unwrap_or_default(),
        cpuset_cpus: args.cpuset_cpus.clone(),
        cpuset_mems: args.cpuset_mems.clone(),
        pids_limit: args.pids_limit.unwrap_or_default(),
        blkio_weight: args.blkio_weight.unwrap_or_default(),
        ..Default::default()
    };
    each(&args.containers, async |container| {
        let request = v1::UpdateContainerRequest {
            container: container.clone(),
            resources: (resources != v1::Resources::default()).then(|| resources.clone()),
            restart_policy: args.restart.clone(),
            labels: args.label.iter().map(|text| pair(text)).collect(),
        };
        let reply = context
            .client
            .containers()
            .update(request)
            .await?
            .into_inner();
        reply.warnings.iter().for_each(|text| warn(text));
        line(container)
    })
    .await
}
