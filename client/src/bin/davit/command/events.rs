//! `davit events`.

use davit_client::v1::{self, subscribe_response::Message};
use serde_json::{Value, json};

use crate::{
    context::{Context, line, warn},
    error::{Failure, Outcome},
    human,
    template::Template,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format output using a template or "json"
    #[arg(long)]
    format: Option<String>,
    /// Show all events created since timestamp or span (10m)
    #[arg(long, value_parser = human::moment)]
    since: Option<prost_types::Timestamp>,
    /// Stream events until this timestamp
    #[arg(long, value_parser = human::moment)]
    until: Option<prost_types::Timestamp>,
    /// Show the events after this number
    #[arg(long)]
    after: Option<u64>,
    /// Show events of every namespace
    #[arg(long)]
    all_namespaces: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text).map_err(Failure::new)?),
    };
    let filters = args
        .filter
        .iter()
        .map(|text| {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Failure::new(format!("invalid filter '{text}': give key=value")))?;
            Ok(v1::EventFilter {
                key: key.into(),
                value: value.into(),
            })
        })
        .collect::<Outcome<_>>()?;
    let request = v1::SubscribeRequest {
        after: args.after.unwrap_or_default(),
        since: args.since,
        until: args.until,
        all_namespaces: args.all_namespaces,
        from_start: false,
        filters,
    };
    let mut replies = context
        .client
        .events()
        .subscribe(request)
        .await?
        .into_inner();
    while let Some(reply) = replies.message().await? {
        match reply.message {
            Some(Message::Event(event)) => match (&template, &args.format) {
                (Some(template), _) => {
                    line(template.render(&value(&event)).map_err(Failure::new)?)?
                }
                (None, Some(_)) => line(value(&event).to_string())?,
                (None, None) => line(sentence(&event))?,
            },
            Some(Message::Lagged(lagged)) => warn(&format!(
                "events {} to {} are no longer in the log",
                lagged.first, lagged.last
            )),
            None => {}
        }
    }
    Ok(0)
}

fn sentence(event: &v1::Event) -> String {
    let mut attributes: Vec<String> = event
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    attributes.sort();
    format!(
        "{} {} {} {} ({})",
        human::rfc3339(event.time.as_ref()),
        event.r#type,
        event.action,
        event.id,
        attributes.join(", ")
    )
}

fn value(event: &v1::Event) -> Value {
    let time = event.time.unwrap_or_default();
    json!({
        "Number": event.number,
        "Type": event.r#type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "ID": event.id,
        "Namespace": event.namespace,
        "scope": "local",
        "time": time.seconds,
        "timeNano": time.seconds * 1_000_000_000 + i64::from(time.nanos),
        "Time": time.seconds,
        "TimeNano": time.seconds * 1_000_000_000 + i64::from(time.nanos),
    })
}
