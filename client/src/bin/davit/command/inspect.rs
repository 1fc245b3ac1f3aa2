//! `davit inspect`, `container inspect` and `image inspect`: docker's JSON.

use davit_client::{docker, v1};
use serde_json::Value;

use crate::{
    context::{Context, line},
    error::{Failure, Outcome},
    template::Template,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Only objects of this type: container or image
    #[arg(long, value_parser = ["container", "image"])]
    r#type: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Print a container again on each change
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ContainerArgs {
    #[command(flatten)]
    common: Common,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Format output using a template or "json"
    #[arg(short, long)]
    format: Option<String>,
    #[arg(required = true)]
    names: Vec<String>,
}

/// What kinds of objects are looked for, in order.
#[derive(Clone, Copy)]
struct Kinds {
    container: bool,
    image: bool,
    size: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let wanted = args.r#type.as_deref();
    if args.watch {
        return watch(context, &args.common, args.size).await;
    }
    let kinds = Kinds {
        container: wanted.is_none_or(|kind| kind == "container"),
        image: wanted.is_none_or(|kind| kind == "image"),
        size: args.size,
    };
    objects(context, &args.common, kinds).await
}

pub(crate) async fn container(context: &Context, args: ContainerArgs) -> Outcome {
    let kinds = Kinds {
        container: true,
        image: false,
        size: args.size,
    };
    objects(context, &args.common, kinds).await
}

pub(crate) async fn image(context: &Context, args: ImageArgs) -> Outcome {
    objects(
        context,
        &args.common,
        Kinds {
            container: false,
            image: true,
            size: false,
        },
    )
    .await
}

/// Prints what is found as one array (or each by the template); what is not
/// found is told on stderr and makes the exit code 1, as docker does.
async fn objects(context: &Context, args: &Common, kinds: Kinds) -> Outcome {
    let mut results = Vec::new();
    for name in &args.names {
        results.push(object(context, name, kinds).await);
    }
    print_objects(results, args.format.as_deref())
}

/// As [`objects`], of what was looked up already.
pub(crate) fn print_objects(results: Vec<Outcome<Value>>, format: Option<&str>) -> Outcome {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for result in results {
        match result {
            Ok(value) => found.push(value),
            Err(failure) => failures.push(failure),
        }
    }
    print(&found, format)?;
    let code = u8::from(!failures.is_empty());
    for failure in failures {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "davit: {}", failure.message);
    }
    Ok(code)
}

/// Prints objects as one array, or each by the template.
pub(crate) fn print(found: &[Value], format: Option<&str>) -> Outcome<()> {
    match format {
        None => {
            let text = serde_json::to_string_pretty(found)
                .map_err(|error| Failure::new(error.to_string()))?;
            // docker indents by four.
            line(indent(&text))?;
        }
        Some(format) => {
            for value in found {
                line(render(format, value)?)?;
            }
        }
    }
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| {
            let depth = line.len() - line.trim_start().len();
            format!("{}{}", " ".repeat(depth * 2), line.trim_start())
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn render(format: &str, value: &Value) -> Outcome<String> {
    if format == "json" {
        return Ok(value.to_string());
    }
    Template::parse(format)
        .and_then(|template| template.render(value))
        .map_err(Failure::new)
}

async fn object(context: &Context, name: &str, kinds: Kinds) -> Outcome<Value> {
    if kinds.container {
        match container_json(context, name, kinds.size).await {
            Err(failure) if failure.status == Some(tonic::Code::NotFound) && kinds.image => {}
            other => return other,
        }
    }
    let request = v1::GetImageRequest {
        image: name.to_owned(),
        platform: None,
    };
    match context.client.images().inspect(request).await {
        Ok(reply) => Ok(docker::image(&reply.into_inner())),
        Err(status) if status.code() == tonic::Code::NotFound && kinds.container => {
            Err(Failure::new(format!("No such object: {name}")))
        }
        Err(status) => Err(status.into()),
    }
}

async fn container_json(context: &Context, name: &str, size: bool) -> Outcome<Value> {
    let request = v1::InspectContainerRequest {
        container: name.to_owned(),
        watch: false,
        size,
    };
    let mut stream = context
        .client
        .containers()
        .inspect(request)
        .await?
        .into_inner();
    let details = stream
        .message()
        .await?
        .ok_or_else(|| Failure::new(format!("the daemon said nothing about {name}")))?;
    Ok(docker::container(&details, size))
}

/// One container, again on each change, until it is removed.
async fn watch(context: &Context, args: &Common, size: bool) -> Outcome {
    let [name] = args.names.as_slice() else {
        return Err(Failure::new("--watch takes one container"));
    };
    let request = v1::InspectContainerRequest {
        container: name.clone(),
        watch: true,
        size,
    };
    let mut stream = context
        .client
        .containers()
        .inspect(request)
        .await?
        .into_inner();
    while let Some(details) = stream.message().await? {
        let value = docker::container(&details, size);
        line(render(args.format.as_deref().unwrap_or("json"), &value)?)?;
    }
    Ok(0)
}
