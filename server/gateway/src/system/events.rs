//! GET /events, out of the durable log.

use davit_client::v1::{self, subscribe_response::Message};
use jiff::Timestamp;

use crate::{
    convert::{event, time},
    failure::{Failure, Result},
    filters::Filters,
    reply::{self, Reply, StreamCut},
    request::Call,
};

pub(crate) async fn events(call: Call) -> Result<Reply> {
    let now = Timestamp::now();
    let since = time::parse(call.query.get("since"), now)?;
    let until = time::parse(call.query.get("until"), now)?;
    if let (Some(since), Some(until)) = (&since, &until)
        && (since.seconds, since.nanos) > (until.seconds, until.nanos)
    {
        return Err(Failure::bad_request(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            time::rfc3339(Some(since)),
            time::rfc3339(Some(until))
        )));
    }
    let filters = Filters::parse(call.query.get("filters"))?.to_v1();
    let request = v1::SubscribeRequest {
        since,
        until,
        filters: filters
            .into_iter()
            .map(|filter| v1::EventFilter {
                key: filter.key,
                value: filter.value,
            })
            .collect(),
        ..Default::default()
    };
    let mut log = call
        .gateway
        .stream()
        .events()
        .subscribe(request)
        .await?
        .into_inner();
    let lines = async_stream::stream! {
        loop {
            let value = match log.message().await {
                Ok(Some(answer)) => match answer.message {
                    Some(Message::Event(found)) => event::of(&found),
                    Some(Message::Lagged(lagged)) => event::lagged(&lagged, Timestamp::now()),
                    None => continue,
                },
                Ok(None) => return,
                Err(status) => {
                    yield Err(StreamCut::from(status));
                    return;
                }
            };
            yield Ok(reply::json_line(&value, "\n"));
        }
    };
    Ok(reply::stream(reply::JSON, lines))
}
