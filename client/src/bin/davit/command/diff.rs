//! `davit diff`.

use davit_client::v1::{self, change::Kind};

use crate::{
    context::{Context, line},
    error::Outcome,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    container: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let request = v1::DiffRequest {
        container: args.container,
    };
    for change in context
        .client
        .containers()
        .diff(request)
        .await?
        .into_inner()
        .changes
    {
        let letter = match change.kind() {
            Kind::Modified => 'C',
            Kind::Added => 'A',
            Kind::Deleted => 'D',
        };
        line(format!("{letter} {}", change.path))?;
    }
    Ok(0)
}
