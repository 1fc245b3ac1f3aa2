//! `davit images`.

use davit_client::v1;
use serde_json::{Value, json};

use crate::{
    command::ps::{filter, print_formatted},
    context::{Context, line, write_all},
    error::Outcome,
    human,
    reference::{familiar, split},
    table::Table,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show all images (default hides dangling ones that others build on)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<v1::Filter>,
    /// Format output using a template, "table TEMPLATE" or "json"
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Only images of this repository (or repository:tag)
    repository: Option<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let mut filters = args.filter.clone();
    if let Some(repository) = &args.repository {
        filters.push(v1::Filter {
            key: "reference".into(),
            value: repository.clone(),
        });
    }
    let request = v1::ListImagesRequest { filters };
    let images = context
        .client
        .images()
        .list(request)
        .await?
        .into_inner()
        .images;
    let rows: Vec<Value> = images.iter().flat_map(|image| rows(image, &args)).collect();
    if args.quiet {
        let mut seen = std::collections::HashSet::new();
        for row in &rows {
            let id = row["ID"].as_str().unwrap_or_default();
            if seen.insert(id) {
                line(id)?;
            }
        }
        return Ok(0);
    }
    if let Some(format) = &args.format {
        print_formatted(format, rows.into_iter())?;
        return Ok(0);
    }
    let mut header = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    let mut keys = vec!["Repository", "Tag", "ID", "CreatedSince", "Size"];
    if args.digests {
        header.insert(2, "DIGEST");
        keys.insert(2, "Digest");
    }
    let mut table = Table::new(&header);
    for row in rows {
        table.row(
            keys.iter()
                .map(|key| row[key].as_str().unwrap_or_default().to_owned())
                .collect(),
        );
    }
    write_all(table.to_string().as_bytes())?;
    Ok(0)
}

/// One row for each name of the image.
fn rows(image: &v1::Image, args: &Args) -> Vec<Value> {
    let mut names: Vec<(String, String)> = image
        .names
        .iter()
        .filter(|name| !name.contains('@'))
        .map(|name| split(familiar(name)))
        .collect();
    if names.is_empty() {
        let repository = image
            .repo_digests
            .first()
            .map_or_else(|| "<none>".to_owned(), |digest| split(familiar(digest)).0);
        names.push((repository, "<none>".into()));
    }
    let id = if args.no_trunc {
        image.id.as_str()
    } else {
        human::short_id(&image.id)
    };
    let digest = image
        .target
        .as_ref()
        .map_or("<none>", |target| target.digest.as_str());
    names
        .into_iter()
        .map(|(repository, tag)| {
            json!({
                "Repository": repository,
                "Tag": tag,
                "Digest": digest,
                "ID": id,
                "CreatedAt": human::created_at(image.created_at.as_ref()),
                "CreatedSince": human::ago(image.created_at.as_ref()),
                "Size": human::size(image.size),
                "Containers": image.containers.to_string(),
                "SharedSize": "N/A",
                "UniqueSize": "N/A",
                "VirtualSize": human::size(image.size),
            })
        })
        .collect()
}
