//! The command line's grammar, and the way from a subcommand to its file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{
    command::{
        attach, commit, completion, control, cp, create, debug, diff, events, exec, export,
        history, images, import, info, inspect, load, logs, network, prune, ps, pull, push, rename,
        restart, rm, rmi, run, save, start, stats, stop, system, tag, top, update, version, volume,
        wait,
    },
    context::Context,
    error::Outcome,
};

/// Run containers and keep them running.
#[derive(Debug, Parser)]
#[command(name = "davit", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Unix socket of the daemon
    #[arg(
        long,
        global = true,
        env = "DAVIT_ADDRESS",
        default_value = davit_client::DEFAULT_ADDRESS,
        value_name = "SOCKET"
    )]
    address: PathBuf,
    /// Namespace; namespaces see nothing of each other
    #[arg(
        long,
        global = true,
        env = "DAVIT_NAMESPACE",
        default_value = "default",
        value_name = "NS"
    )]
    namespace: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create and run a new container from an image
    Run(run::Args),
    /// Create a new container
    Create(create::Args),
    /// Start one or more stopped containers
    Start(start::Args),
    /// Stop one or more running containers
    Stop(stop::Args),
    /// Restart one or more containers
    Restart(restart::Args),
    /// Kill one or more running containers
    Kill(control::KillArgs),
    /// Pause all processes within one or more containers
    Pause(control::Args),
    /// Unpause all processes within one or more containers
    Unpause(control::Args),
    /// Remove one or more containers
    Rm(rm::Args),
    /// List containers
    #[command(visible_alias = "list")]
    Ps(ps::Args),
    /// Fetch the logs of a container
    Logs(logs::Args),
    /// Execute a command in a running container
    Exec(exec::Args),
    /// Attach local standard input, output, and error streams to a running container
    Attach(attach::Args),
    /// Return low-level information on containers and images
    Inspect(inspect::Args),
    /// Display the running processes of a container
    Top(top::Args),
    /// Display a live stream of container(s) resource usage statistics
    Stats(stats::Args),
    /// Copy files/folders between a container and the local filesystem
    Cp(cp::Args),
    /// Inspect changes to files or directories on a container's filesystem
    Diff(diff::Args),
    /// Create a new image from a container's changes
    Commit(commit::Args),
    /// Get real time events from the daemon
    Events(events::Args),
    /// Block until one or more containers stop, then print their exit codes
    Wait(wait::Args),
    /// Rename a container
    Rename(rename::Args),
    /// Update configuration of one or more containers
    Update(update::Args),
    /// List images
    Images(images::Args),
    /// Download an image from a registry
    Pull(pull::Args),
    /// Upload an image to a registry
    Push(push::Args),
    /// Create a tag that refers to an image
    Tag(tag::Args),
    /// Remove one or more images
    Rmi(rmi::Args),
    /// Show the history of an image
    History(history::Args),
    /// Make an image from a tarball of a root file system
    Import(import::Args),
    /// Export a container's filesystem as a tar archive
    Export(export::Args),
    /// Load images from a tar archive or STDIN
    Load(load::Args),
    /// Save one or more images to a tar archive
    Save(save::Args),
    /// Manage images
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Manage containers
    Container {
        #[command(subcommand)]
        command: ContainerCommand,
    },
    /// Manage networks
    Network {
        #[command(subcommand)]
        command: network::Command,
    },
    /// Manage volumes
    Volume {
        #[command(subcommand)]
        command: VolumeCommand,
    },
    /// Manage the daemon
    System {
        #[command(subcommand)]
        command: SystemCommand,
    },
    /// Display system-wide information
    Info(info::Args),
    /// Show the version of client and daemon
    Version(version::Args),
    /// Show what a bug report needs
    Debug,
    /// Print a completion script for a shell
    Completion(completion::Args),
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// List images
    Ls(images::Args),
    /// Show the history of an image
    History(history::Args),
    /// Display detailed information on one or more images
    Inspect(inspect::ImageArgs),
    /// Remove unused images
    Prune(prune::ImageArgs),
    /// Download an image from a registry
    Pull(pull::Args),
    /// Upload an image to a registry
    Push(push::Args),
    /// Remove one or more images
    Rm(rmi::Args),
    /// Create a tag that refers to an image
    Tag(tag::Args),
    /// Load images from a tar archive or STDIN
    Load(load::Args),
    /// Save one or more images to a tar archive
    Save(save::Args),
}

#[derive(Debug, Subcommand)]
enum ContainerCommand {
    /// List containers
    Ls(ps::Args),
    /// Display detailed information on one or more containers
    Inspect(inspect::ContainerArgs),
    /// Remove all stopped containers
    Prune(prune::ContainerArgs),
    /// Remove one or more containers
    Rm(rm::Args),
}

#[derive(Debug, Subcommand)]
enum VolumeCommand {
    /// Create a volume
    Create(volume::CreateArgs),
    /// Display detailed information on one or more volumes
    Inspect(volume::InspectArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(volume::LsArgs),
    /// Remove unused local volumes
    Prune(prune::VolumeArgs),
    /// Remove one or more volumes
    #[command(visible_alias = "remove")]
    Rm(volume::RmArgs),
}

#[derive(Debug, Subcommand)]
enum SystemCommand {
    /// Show disk usage
    Df(system::DfArgs),
    /// Remove unused data
    Prune(prune::SystemArgs),
    /// Display system-wide information
    Info(info::Args),
    /// Get real time events from the daemon
    Events(events::Args),
}

impl Cli {
    /// Runs the subcommand and gives the program's exit code.
    pub(crate) async fn run(self) -> Outcome {
        // These two need no daemon.
        if let Command::Completion(args) = self.command {
            return completion::run(&args);
        }
        if let Command::Version(args) = self.command {
            return version::run(&self.address, &self.namespace, args).await;
        }
        // docker's `run` and `create` exit with 125 when the daemon is at fault.
        let creates = matches!(self.command, Command::Run(_) | Command::Create(_));
        let context = Context::connect(&self.address, &self.namespace)
            .await
            .map_err(|failure| {
                if creates {
                    failure.with_code(125)
                } else {
                    failure
                }
            })?;
        self.command.run(&context).await
    }
}

impl Command {
    async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Run(args) => run::run(context, args).await,
            Self::Create(args) => create::run(context, args).await,
            Self::Start(args) => start::run(context, args).await,
            Self::Stop(args) => stop::run(context, args).await,
            Self::Restart(args) => restart::run(context, args).await,
            Self::Kill(args) => control::kill(context, args).await,
            Self::Pause(args) => control::pause(context, args).await,
            Self::Unpause(args) => control::unpause(context, args).await,
            Self::Rm(args) => rm::run(context, args).await,
            Self::Ps(args) => ps::run(context, args).await,
            Self::Logs(args) => logs::run(context, args).await,
            Self::Exec(args) => exec::run(context, args).await,
            Self::Attach(args) => attach::run(context, args).await,
            Self::Inspect(args) => inspect::run(context, args).await,
            Self::Top(args) => top::run(context, args).await,
            Self::Stats(args) => stats::run(context, args).await,
            Self::Cp(args) => cp::run(context, args).await,
            Self::Diff(args) => diff::run(context, args).await,
            Self::Commit(args) => commit::run(context, args).await,
            Self::Events(args) => events::run(context, args).await,
            Self::Wait(args) => wait::run(context, args).await,
            Self::Rename(args) => rename::run(context, args).await,
            Self::Update(args) => update::run(context, args).await,
            Self::Images(args) => images::run(context, args).await,
            Self::Pull(args) => pull::run(context, args).await,
            Self::Push(args) => push::run(context, args).await,
            Self::Tag(args) => tag::run(context, args).await,
            Self::Rmi(args) => rmi::run(context, args).await,
            Self::History(args) => history::run(context, args).await,
            Self::Import(args) => import::run(context, args).await,
            Self::Export(args) => export::run(context, args).await,
            Self::Load(args) => load::run(context, args).await,
            Self::Save(args) => save::run(context, args).await,
            Self::Image { command } => command.run(context).await,
            Self::Container { command } => command.run(context).await,
            Self::Network { command } => network::run(context, command).await,
            Self::Volume { command } => command.run(context).await,
            Self::System { command } => command.run(context).await,
            Self::Info(args) => info::run(context, args).await,
            Self::Debug => debug::run(context).await,
            Self::Version(_) | Self::Completion(_) => Ok(0),
        }
    }
}

impl ImageCommand {
    async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Ls(args) => images::run(context, args).await,
            Self::History(args) => history::run(context, args).await,
            Self::Inspect(args) => inspect::image(context, args).await,
            Self::Prune(args) => prune::image(context, args).await,
            Self::Pull(args) => pull::run(context, args).await,
            Self::Push(args) => push::run(context, args).await,
            Self::Rm(args) => rmi::run(context, args).await,
            Self::Tag(args) => tag::run(context, args).await,
            Self::Load(args) => load::run(context, args).await,
            Self::Save(args) => save::run(context, args).await,
        }
    }
}

impl ContainerCommand {
    async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Ls(args) => ps::run(context, args).await,
            Self::Inspect(args) => inspect::container(context, args).await,
            Self::Prune(args) => prune::container(context, args).await,
            Self::Rm(args) => rm::run(context, args).await,
        }
    }
}

impl VolumeCommand {
    async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Create(args) => volume::create(context, args).await,
            Self::Inspect(args) => volume::inspect(context, args).await,
            Self::Ls(args) => volume::ls(context, args).await,
            Self::Prune(args) => prune::volume(context, args).await,
            Self::Rm(args) => volume::rm(context, args).await,
        }
    }
}

impl SystemCommand {
    async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Df(args) => system::df(context, args).await,
            Self::Prune(args) => prune::system(context, args).await,
            Self::Info(args) => info::run(context, args).await,
            Self::Events(args) => events::run(context, args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_behind_the_image_are_the_containers() {
        let cli = Cli::try_parse_from([
            "davit", "run", "-it", "--rm", "busybox", "ls", "-l", "--all",
        ]);
        assert!(cli.is_ok(), "{:?}", cli.err());
        let cli = Cli::try_parse_from(["davit", "exec", "-it", "c", "sh", "-c", "echo hi"]);
        assert!(cli.is_ok(), "{:?}", cli.err());
    }
}
