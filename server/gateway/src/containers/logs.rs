//! GET /containers/{name}/logs

use bytes::{BufMut, Bytes, BytesMut};
use davit_client::v1::{self, log_entry::Stream as From};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tonic::Streaming;

use crate::{
    convert::time,
    failure::{Failure, Result},
    hijack::{self, Output},
    reply::{self, Reply},
    request::Call,
};

/// Lines that are sent in one piece when they come fast.
const READY_LINES: usize = 256;

pub(crate) async fn logs(call: Call) -> Result<Reply> {
    let name = call.name();
    let (stdout, stderr) = (call.query.flag("stdout"), call.query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Failure::bad_request(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let container = super::details(&call.gateway, &name, false).await?;
    let tty = container.options.is_some_and(|options| options.tty);
    let now = Timestamp::now();
    // Anything but a number means all, "all" as well as nothing.
    let tail = call
        .query
        .get("tail")
        .parse::<i64>()
        .ok()
        .filter(|lines| *lines >= 0);
    let request = v1::LogsRequest {
        container: name.clone(),
        stdout,
        stderr,
        follow: call.query.flag("follow"),
        since: time::parse(call.query.get("since"), now)?,
        until: time::parse(call.query.get("until"), now)?,
        tail: tail.unwrap_or(-1),
        tail_set: tail.is_some(),
        after: 0,
    };
    let entries = call.gateway.stream().tasks().logs(request).await;
    let entries = entries
        .map_err(|status| super::failure(status, &name))?
        .into_inner();
    let style = Style {
        tty,
        timestamps: call.query.flag("timestamps"),
        details: call.query.flag("details"),
    };
    // Lines that are there already go out together: one write, not a thousand.
    let chunks = lines(entries, style)
        .ready_chunks(READY_LINES)
        .map(|lines| {
            Ok::<_, std::io::Error>(match <[Bytes; 1]>::try_from(lines) {
                Ok([line]) => line,
                Err(lines) => lines.concat().into(),
            })
        });
    Ok(reply::stream(
        hijack::content_type(tty, call.version),
        chunks,
    ))
}

#[derive(Debug, Clone, Copy)]
struct Style {
    tty: bool,
    timestamps: bool,
    details: bool,
}

fn lines(mut entries: Streaming<v1::LogEntry>, style: Style) -> impl Stream<Item = Bytes> {
    // Whether the last entry of stdout and stderr left its line open.
    let mut open = [false, false];
    async_stream::stream! {
        loop {
            let output = match entries.message().await {
                Ok(Some(entry)) => line(entry, style, &mut open),
                Ok(None) => return,
                Err(status) => {
                    let text = format!("Error grabbing logs: {}", status.message());
                    yield hijack::frame_bytes(Output::System(text), style.tty);
                    return;
                }
            };
            yield hijack::frame_bytes(output, style.tty);
        }
    }
}

/// One entry; the time stands before a line only, not before its later parts.
fn line(entry: v1::LogEntry, style: Style, open: &mut [bool; 2]) -> Output {
    let from = entry.stream();
    let open = &mut open[usize::from(from == From::Stderr)];
    let inside = std::mem::replace(open, entry.partial);
    let mut text = BytesMut::new();
    if !inside && style.timestamps {
        text.put(time::rfc3339_fixed(entry.time.as_ref()).as_bytes());
        text.put_u8(b' ');
    }
    if !inside && style.details {
        text.put_u8(b' ');
    }
    let text = if text.is_empty() {
        entry.line
    } else {
        text.put(entry.line);
        text.freeze()
    };
    if from == From::Stderr {
        Output::Stderr(text)
    } else {
        Output::Stdout(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_has_one_time() {
        let style = Style {
            tty: false,
            timestamps: true,
            details: false,
        };
        let entry = |line: &'static str, partial, stream: From| v1::LogEntry {
            stream: stream.into(),
            time: Some(prost_types::Timestamp {
                seconds: 0,
                nanos: 5,
            }),
            line: line.into(),
            partial,
            position: 0,
        };
        let mut open = [false, false];
        let mut text = |line, partial, stream| match super::line(
            entry(line, partial, stream),
            style,
            &mut open,
        ) {
            Output::Stdout(data) | Output::Stderr(data) => {
                String::from_utf8(data.to_vec()).unwrap()
            }
            Output::System(text) => text,
        };
        assert_eq!(
            text("a", true, From::Stdout),
            "1970-01-01T00:00:00.000000005Z a"
        );
        assert_eq!(
            text("x\n", false, From::Stderr),
            "1970-01-01T00:00:00.000000005Z x\n"
        );
        assert_eq!(text("b\n", false, From::Stdout), "b\n");
        assert_eq!(
            text("c\n", false, From::Stdout),
            "1970-01-01T00:00:00.000000005Z c\n"
        );
    }
}
