//! `davit top`.

use davit_client::v1;

use crate::{
    context::{Context, write_all},
    error::Outcome,
    table::Table,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    container: String,
    /// Options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    ps_options: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let request = v1::ProcessesRequest {
        container: args.container,
        ps_args: args.ps_options.join(" "),
    };
    let reply = context
        .client
        .tasks()
        .processes(request)
        .await?
        .into_inner();
    let titles: Vec<&str> = reply.titles.iter().map(String::as_str).collect();
    let mut table = Table::new(&titles);
    for row in reply.rows {
        table.row(row.columns);
    }
    write_all(table.to_string().as_bytes())?;
    Ok(0)
}
