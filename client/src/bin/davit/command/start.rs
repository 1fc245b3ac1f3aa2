//! `davit start`.

use davit_client::v1;

use crate::{
    command::{attach, each::each, run::start_failure_code},
    context::{Context, line},
    error::{Failure, Outcome},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short = 'A', long)]
    attach: bool,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, default_value = attach::DETACH_KEYS)]
    detach_keys: String,
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    if !args.attach && !args.interactive {
        return each(&args.containers, async |container| {
            let request = v1::StartRequest {
                container: container.clone(),
            };
            context.client.tasks().start(request).await?;
            line(container)
        })
        .await;
    }
    let [container] = args.containers.as_slice() else {
        return Err(Failure::new(
            "you cannot start and attach multiple containers at once",
        ));
    };
    let request = v1::InspectContainerRequest {
        container: container.clone(),
        ..Default::default()
    };
    let mut stream = context
        .client
        .containers()
        .inspect(request)
        .await?
        .into_inner();
    let details = stream.message().await?.unwrap_or_default();
    let options = details.options.unwrap_or_default();
    let id = details.container.unwrap_or_default().id;
    let attachment = attach::Attachment {
        container: id.clone(),
        stdin: args.interactive && options.open_stdin,
        stdout: true,
        stderr: true,
        tty: options.tty,
        logs: false,
        detach_keys: args.detach_keys,
        signals: !options.tty,
    };
    let joined = attach::join(context, attachment).await?;
    if let Err(status) = context
        .client
        .tasks()
        .start(v1::StartRequest { container: id })
        .await
    {
        joined.leave();
        let code = match start_failure_code(status.message()) {
            125 => 1,
            code => code,
        };
        return Err(Failure::from(status).with_code(code));
    }
    Ok(joined.run().await?.code())
}
