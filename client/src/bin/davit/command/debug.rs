//! `davit debug`.

use davit_client::v1;

use crate::{
    context::{Context, line},
    error::Outcome,
};

pub(crate) async fn run(context: &Context) -> Outcome {
    let facts = context
        .client
        .system()
        .debug(v1::DebugRequest {})
        .await?
        .into_inner()
        .facts;
    let mut facts: Vec<_> = facts.into_iter().collect();
    facts.sort();
    for (name, value) in facts {
        line(format!("{name}: {value}"))?;
    }
    Ok(0)
}
