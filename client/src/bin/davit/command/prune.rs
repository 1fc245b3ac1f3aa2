//! `davit image prune`, `container prune`, `volume prune` and `system prune`.

use std::io::{BufRead, Write};

use davit_client::v1;

use crate::{
    command::ps::filter,
    context::{Context, line},
    error::Outcome,
    human,
};

#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ContainerArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VolumeArgs {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SystemArgs {
    /// Remove all unused images not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Only tell what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Provide filter values (e.g. "until=24h")
    #[arg(long, value_name = "KEY=VALUE", value_parser = filter)]
    pub(crate) filter: Vec<v1::Filter>,
}

impl Common {
    /// Asks, unless nothing would be removed or the user said --force.
    pub(crate) fn agreed(&self, warning: &str) -> Outcome<bool> {
        if self.force || self.dry_run {
            return Ok(true);
        }
        let mut out = std::io::stdout();
        write!(
            out,
            "WARNING! {warning}\nAre you sure you want to continue? [y/N] "
        )?;
        out.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y"))
    }
}

pub(crate) async fn image(context: &Context, args: ImageArgs) -> Outcome {
    let what = if args.all {
        "This will remove all images without at least one container associated to them."
    } else {
        "This will remove all dangling images."
    };
    if args.common.agreed(what)? {
        let bytes = images(context, args.all, &args.common).await?;
        total(&args.common, bytes)?;
    }
    Ok(0)
}

pub(crate) async fn container(context: &Context, args: ContainerArgs) -> Outcome {
    if args
        .common
        .agreed("This will remove all stopped containers.")?
    {
        let bytes = containers(context, &args.common).await?;
        total(&args.common, bytes)?;
    }
    Ok(0)
}

pub(crate) async fn volume(context: &Context, args: VolumeArgs) -> Outcome {
    let what = if args.all {
        "This will remove all local volumes not used by at least one container."
    } else {
        "This will remove anonymous local volumes not used by at least one container."
    };
    if args.common.agreed(what)? {
        let filters = args.common.filter.clone();
        let bytes = volumes(context, args.all, filters, &args.common).await?;
        total(&args.common, bytes)?;
    }
    Ok(0)
}

pub(crate) async fn system(context: &Context, args: SystemArgs) -> Outcome {
    let images_too = if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let volumes_too = if args.volumes {
        "  - all anonymous volumes not used by at least one container\n"
    } else {
        ""
    };
    let what = format!(
        "This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n{volumes_too}  - {images_too}\n"
    );
    if args.common.agreed(&what)? {
        let mut bytes = containers(context, &args.common).await?;
        crate::command::network::networks(context, &args.common).await?;
        if args.volumes {
            // Volumes have no "until".
            let filters = args
                .common
                .filter
                .iter()
                .filter(|filter| filter.key != "until");
            bytes += volumes(context, false, filters.cloned().collect(), &args.common).await?;
        }
        bytes += images(context, args.all, &args.common).await?;
        total(&args.common, bytes)?;
    }
    Ok(0)
}

async fn images(context: &Context, all: bool, common: &Common) -> Outcome<u64> {
    let request = v1::PruneImagesRequest {
        all,
        dry_run: common.dry_run,
        filters: common.filter.clone(),
    };
    let reply = context.client.images().prune(request).await?.into_inner();
    list("Images", common, &reply)?;
    Ok(reply.space_reclaimed)
}

async fn volumes(
    context: &Context,
    all: bool,
    filters: Vec<v1::Filter>,
    common: &Common,
) -> Outcome<u64> {
    let request = v1::PruneVolumesRequest {
        all,
        dry_run: common.dry_run,
        filters,
    };
    let reply = context.client.volumes().prune(request).await?.into_inner();
    list("Volumes", common, &reply)?;
    Ok(reply.space_reclaimed)
}

async fn containers(context: &Context, common: &Common) -> Outcome<u64> {
    let request = v1::PruneContainersRequest {
        dry_run: common.dry_run,
        filters: common.filter.clone(),
    };
    let reply = context
        .client
        .containers()
        .prune(request)
        .await?
        .into_inner();
    list("Containers", common, &reply)?;
    Ok(reply.space_reclaimed)
}

pub(crate) fn list(what: &str, common: &Common, reply: &v1::PruneResponse) -> Outcome<()> {
    if reply.removed.is_empty() {
        return Ok(());
    }
    line(if common.dry_run {
        format!("Would delete {what}:")
    } else {
        format!("Deleted {what}:")
    })?;
    for name in &reply.removed {
        line(name)?;
    }
    line("")
}

fn total(common: &Common, bytes: u64) -> Outcome<()> {
    let bytes = human::size(i64::try_from(bytes).unwrap_or(i64::MAX));
    line(if common.dry_run {
        format!("Total reclaimable space: {bytes}")
    } else {
        format!("Total reclaimed space: {bytes}")
    })
}
