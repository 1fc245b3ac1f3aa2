//! Times: docker reads Unix seconds with a fraction, RFC 3339 or a Go duration
//! before now, and writes RFC 3339 or Unix seconds.

use std::time::Duration;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use prost_types::Timestamp as Wire;

use crate::failure::{Failure, Result};

/// How Go writes a time that was never set.
pub(crate) const ZERO: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with as many digits of the second as there are.
pub(crate) fn rfc3339(time: Option<&Wire>) -> String {
    time.and_then(instant)
        .map_or_else(|| ZERO.to_owned(), |time| time.to_string())
}

/// RFC 3339 with nine digits: the columns of `docker logs -t`.
pub(crate) fn rfc3339_fixed(time: Option<&Wire>) -> String {
    let time = time.and_then(instant).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}

/// Whole Unix seconds; Go's zero time when unset.
pub(crate) fn unix(time: Option<&Wire>) -> i64 {
    time.map_or(-62_135_596_800, |time| time.seconds)
}

/// Unix nanoseconds.
pub(crate) fn unix_nanos(time: Option<&Wire>) -> i64 {
    time.map_or(0, |time| {
        time.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(time.nanos.into())
    })
}

pub(crate) fn instant(time: &Wire) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

pub(crate) fn wire(time: Timestamp) -> Wire {
    Wire {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

/// How long ago a time was; zero when it lies ahead.
pub(crate) fn since(time: Option<&Wire>, now: Timestamp) -> Duration {
    let Some(time) = time.and_then(instant) else {
        return Duration::ZERO;
    };
    Duration::try_from(now.duration_since(time)).unwrap_or_default()
}

/// Reads what a client gives as `since` or `until`; `None` for nothing or 0.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Option<Wire>> {
    let invalid = || {
        Failure::bad_request(format!(
            "failed to parse value as time or duration: {text:?}"
        ))
    };
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    if text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-')
        && !text[1..].contains('-')
    {
        return seconds(text).map(Some).ok_or_else(invalid);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Some(wire(time)));
    }
    if let Ok(local) = text.parse::<DateTime>() {
        let time = TimeZone::system()
            .to_timestamp(local)
            .map_err(|_| invalid())?;
        return Ok(Some(wire(time)));
    }
    let ago = go_duration(text).ok_or_else(invalid)?;
    Ok(Some(wire(now.checked_sub(ago).map_err(|_| invalid())?)))
}

/// "1136073600.000000001": the fraction is nanoseconds, filled up with zeros.
fn seconds(text: &str) -> Option<Wire> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = whole.parse().ok()?;
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    let time = Wire { seconds, nanos };
    instant(&time).map(|_| time)
}

/// Go's durations: "1h30m", "10s", "1.5h", "300ms".
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = &rest[end..];
    }
    Some(total)
}

/// The age in words, as `docker ps` shows it.
pub(crate) fn human(age: Duration) -> String {
    let seconds = age.as_secs();
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".into(),
        (_, _, 2..48) => format!("{hours} hours"),
        (_, _, 48..336) => format!("{} days", hours / 24),
        (_, _, 336..1440) => format!("{} weeks", hours / 24 / 7),
        (_, _, 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Wire {
        wire(text.parse().unwrap())
    }

    #[test]
    fn times_are_written_as_go_does() {
        assert_eq!(rfc3339(None), ZERO);
        let time = at("2024-05-06T07:08:09.120Z");
        assert_eq!(rfc3339(Some(&time)), "2024-05-06T07:08:09.12Z");
        assert_eq!(rfc3339_fixed(Some(&time)), "2024-05-06T07:08:09.120000000Z");
        assert_eq!(
            rfc3339(Some(&at("2024-05-06T07:08:09Z"))),
            "2024-05-06T07:08:09Z"
        );
        assert_eq!(
            unix_nanos(Some(&Wire {
                seconds: 2,
                nanos: 3
            })),
            2_000_000_003
        );
        assert_eq!(
            rfc3339(Some(&Wire {
                seconds: i64::MAX,
                nanos: 0
            })),
            ZERO
        );
    }

    #[test]
    fn clients_give_times_in_many_forms() {
        let now: Timestamp = "2024-05-06T07:08:09Z".parse().unwrap();
        let read = |text: &str| parse(text, now).unwrap();
        assert_eq!(read(""), None);
        assert_eq!(read("0"), None);
        assert_eq!(
            read("12.5"),
            Some(Wire {
                seconds: 12,
                nanos: 500_000_000
            })
        );
        assert_eq!(
            read("1136073600.000000001"),
            Some(Wire {
                seconds: 1_136_073_600,
                nanos: 1
            })
        );
        assert_eq!(read("1h30m"), Some(at("2024-05-06T05:38:09Z")));
        assert_eq!(
            read("2024-05-06T07:08:09+02:00"),
            Some(at("2024-05-06T05:08:09Z"))
        );
        assert_eq!(
            read("-5"),
            Some(Wire {
                seconds: -5,
                nanos: 0
            })
        );
        for text in [
            "x",
            "1.2.3",
            "5 apples",
            "1.0000000001",
            "99999999999999999999",
            "-",
            ".",
        ] {
            assert!(parse(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_are_said_in_words() {
        let words = |seconds| human(Duration::from_secs(seconds));
        assert_eq!(words(0), "Less than a second");
        assert_eq!(words(1), "1 second");
        assert_eq!(words(59), "59 seconds");
        assert_eq!(words(61), "About a minute");
        assert_eq!(words(179), "2 minutes");
        assert_eq!(words(3600), "About an hour");
        assert_eq!(words(5400), "2 hours");
        assert_eq!(words(48 * 3600), "2 days");
        assert_eq!(words(15 * 86400), "2 weeks");
        assert_eq!(words(70 * 86400), "2 months");
        assert_eq!(words(800 * 86400), "2 years");
    }
}
