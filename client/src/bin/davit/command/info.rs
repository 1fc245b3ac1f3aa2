//! `davit info`.

use davit_client::v1;
use serde_json::json;

use crate::{
    command::ps::print_formatted,
    context::{Context, line, warn},
    error::Outcome,
    human,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Format output using a template or "json"
    #[arg(short, long)]
    format: Option<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let info = context
        .client
        .system()
        .info(v1::InfoRequest {})
        .await?
        .into_inner();
    if let Some(format) = &args.format {
        let value = json!({
            "ID": info.id, "Name": info.name,
            "Containers": info.containers, "ContainersRunning": info.containers_running,
            "ContainersPaused": info.containers_paused, "ContainersStopped": info.containers_stopped,
            "Images": info.images, "Driver": info.snapshotter, "RootDir": info.root_dir,
            "StateDir": info.state_dir, "Address": info.address, "CgroupVersion": info.cgroup_version,
            "CgroupDriver": info.cgroup_driver, "KernelVersion": info.kernel_version,
            "OperatingSystem": info.operating_system, "Architecture": info.architecture,
            "NCPU": info.cpus, "MemTotal": info.memory, "DefaultRuntime": info.default_runtime,
            "Runtimes": info.runtimes, "SecurityOptions": info.security_options,
            "ServerVersion": info.version, "Limits": info.limits, "Warnings": info.warnings,
            "LastEvent": info.last_event,
        });
        print_formatted(format, std::iter::once(value))?;
        return Ok(0);
    }
    let mut runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    runtimes.sort_unstable();
    let memory = u64::try_from(info.memory).unwrap_or_default();
    line(format!("Server:\n Containers: {}", info.containers))?;
    line(format!(
        "  Running: {}\n  Paused: {}\n  Stopped: {}",
        info.containers_running, info.containers_paused, info.containers_stopped
    ))?;
    line(format!(
        " Images: {}\n Server Version: {}",
        info.images, info.version
    ))?;
    line(format!(" Storage Driver: {}", info.snapshotter))?;
    line(format!(
        " Cgroup Driver: {}\n Cgroup Version: {}",
        info.cgroup_driver, info.cgroup_version
    ))?;
    line(format!(" Limits: {}", info.limits.join(" ")))?;
    line(format!(
        " Runtimes: {}\n Default Runtime: {}",
        runtimes.join(" "),
        info.default_runtime
    ))?;
    line(format!(
        " Security Options: {}",
        info.security_options.join(" ")
    ))?;
    line(format!(
        " Kernel Version: {}\n Operating System: {}",
        info.kernel_version, info.operating_system
    ))?;
    line(format!(
        " Architecture: {}\n CPUs: {}",
        info.architecture, info.cpus
    ))?;
    line(format!(
        " Total Memory: {}\n Name: {}\n ID: {}",
        human::binary_size(memory),
        info.name,
        info.id
    ))?;
    line(format!(
        " Root Dir: {}\n State Dir: {}\n Address: {}",
        info.root_dir, info.state_dir, info.address
    ))?;
    info.warnings
        .iter()
        .for_each(|text| warn(text.trim_start_matches("WARNING: ")));
    Ok(0)
}
