//! `davit completion`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, context::write_all, error::Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "davit", &mut script);
    write_all(&script)?;
    Ok(0)
}
