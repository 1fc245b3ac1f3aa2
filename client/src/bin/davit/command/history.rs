//! `davit history`.

use davit_client::v1;
use serde_json::{Value, json};

use crate::{
    command::ps::print_formatted,
    context::{Context, line, write_all},
    error::Outcome,
    human,
    table::Table,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Format output using a template, "table TEMPLATE" or "json"
    #[arg(long)]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    image: String,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let request = v1::GetImageRequest {
        image: args.image.clone(),
        platform: None,
    };
    let entries = context
        .client
        .images()
        .history(request)
        .await?
        .into_inner()
        .entries;
    let rows: Vec<Value> = entries.iter().map(|entry| row(entry, &args)).collect();
    if args.quiet {
        for row in &rows {
            line(row["ID"].as_str().unwrap_or_default())?;
        }
        return Ok(0);
    }
    if let Some(format) = &args.format {
        print_formatted(format, rows.into_iter())?;
        return Ok(0);
    }
    let mut table = Table::new(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for row in rows {
        let created = if args.human {
            "CreatedSince"
        } else {
            "CreatedAt"
        };
        let keys = ["ID", created, "CreatedBy", "Size", "Comment"];
        table.row(
            keys.iter()
                .map(|key| row[key].as_str().unwrap_or_default().to_owned())
                .collect(),
        );
    }
    write_all(table.to_string().as_bytes())?;
    Ok(0)
}

fn row(entry: &v1::HistoryEntry, args: &Args) -> Value {
    let id = if args.no_trunc || !entry.id.contains(':') {
        &entry.id
    } else {
        human::short_id(&entry.id)
    };
    let created_by = entry.created_by.replace('\t', " ");
    json!({
        "ID": id,
        "CreatedSince": human::ago(entry.created_at.as_ref()),
        "CreatedAt": human::rfc3339(entry.created_at.as_ref()),
        "CreatedBy": if args.no_trunc { created_by } else { shorten(&created_by) },
        "Size": if args.human { human::size(entry.size) } else { entry.size.to_string() },
        "Comment": entry.comment,
    })
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 45 {
        return text.to_owned();
    }
    text.chars().take(44).chain(['…']).collect()
}
