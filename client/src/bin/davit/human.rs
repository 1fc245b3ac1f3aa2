//! Sizes and times as people read them, in docker's words.

use jiff::Timestamp;

/// Bytes in decimal units with four significant digits: "4.27MB".
pub(crate) fn size(bytes: i64) -> String {
    scaled(
        bytes.max(0) as f64,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB"],
        4,
    )
}

/// Bytes in binary units with four significant digits: "3.5MiB".
pub(crate) fn binary_size(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB"],
        4,
    )
}

/// Bytes in decimal units with three significant digits: "12.3kB".
pub(crate) fn short_size(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB"],
        3,
    )
}

/// Like printf's "%.<digits>g" with the unit behind it.
fn scaled(mut value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let whole = if value < 1.0 {
        1
    } else {
        value.log10().floor() as usize + 1
    };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text.as_str()
    };
    format!("{text}{}", units[unit])
}

/// A span in docker's words: "About a minute", "3 hours".
pub(crate) fn span(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago a time was; empty for none.
pub(crate) fn ago(time: Option<&prost_types::Timestamp>) -> String {
    time.map_or_else(String::new, |time| {
        format!("{} ago", span(seconds_since(time)))
    })
}

/// Seconds from `time` until now.
pub(crate) fn seconds_since(time: &prost_types::Timestamp) -> i64 {
    Timestamp::now().as_second() - time.seconds
}

/// RFC 3339 in UTC with nanoseconds; empty for none.
pub(crate) fn rfc3339(time: Option<&prost_types::Timestamp>) -> String {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
        .map_or_else(String::new, |time| format!("{time:.9}"))
}

/// The time in the form of docker's "CreatedAt".
pub(crate) fn created_at(time: Option<&prost_types::Timestamp>) -> String {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
        .map_or_else(String::new, |time| {
            time.to_zoned_datetime(jiff::tz::TimeZone::system())
                .strftime("%Y-%m-%d %H:%M:%S %z %Z")
                .to_string()
        })
}

/// A moment as users give it: RFC 3339, a date, seconds since 1970, or a span
/// back from now ("10m").
pub(crate) fn moment(text: &str) -> Result<prost_types::Timestamp, String> {
    let invalid = || {
        format!("\"{text}\" is no time; give RFC 3339, seconds since 1970, or a span such as 10m")
    };
    let time = if let Ok(seconds) = text.parse::<f64>() {
        let nanos = (seconds.fract() * 1e9) as i32;
        Timestamp::new(seconds as i64, nanos).map_err(|_| invalid())?
    } else if let Ok(span) = humantime::parse_duration(text) {
        Timestamp::now() - jiff::SignedDuration::try_from(span).map_err(|_| invalid())?
    } else if let Ok(time) = text.parse::<Timestamp>() {
        time
    } else {
        let zone = jiff::tz::TimeZone::system();
        text.parse::<jiff::civil::DateTime>()
            .or_else(|_| {
                text.parse::<jiff::civil::Date>()
                    .map(|date| date.at(0, 0, 0, 0))
            })
            .and_then(|time| time.to_zoned_datetime(zone))
            .map_err(|_| invalid())?
            .timestamp()
    };
    Ok(prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    })
}

/// Bytes as users give them: "64m", "1.5g", "1024" (binary units, as docker).
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = lower[number.len()..]
        .trim_end_matches("ib")
        .trim_end_matches('b');
    let factor: f64 = match unit {
        "" => 1.0,
        "k" => 1024.0,
        "m" => 1_048_576.0,
        "g" => 1_073_741_824.0,
        "t" => 1_099_511_627_776.0,
        "p" => 1_125_899_906_842_624.0,
        _ => return Err(format!("invalid size: '{text}'")),
    };
    let value: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("invalid size: '{text}'"))?;
    if !value.is_finite() || value < 0.0 || value * factor > i64::MAX as f64 {
        return Err(format!("invalid size: '{text}'"));
    }
    Ok((value * factor) as i64)
}

/// An id's first twelve digits, without its algorithm.
pub(crate) fn short_id(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_docker_prints_them() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(999), "999B");
        assert_eq!(size(4_266_100), "4.266MB");
        assert_eq!(size(77_800_000), "77.8MB");
        assert_eq!(binary_size(3_670_016), "3.5MiB");
        assert_eq!(short_size(1_234_567), "1.23MB");
    }

    #[test]
    fn sizes_are_understood_as_users_type_them() {
        assert_eq!(parse_bytes("64m"), Ok(64 << 20));
        assert_eq!(parse_bytes("1.5g"), Ok(3 << 29));
        assert_eq!(parse_bytes("512"), Ok(512));
        assert_eq!(parse_bytes("1KiB"), Ok(1024));
        assert!(parse_bytes("lots").is_err());
        assert!(parse_bytes("-1m").is_err());
    }

    #[test]
    fn spans_are_dockers_words() {
        assert_eq!(span(0), "Less than a second");
        assert_eq!(span(45), "45 seconds");
        assert_eq!(span(61), "About a minute");
        assert_eq!(span(3600), "About an hour");
        assert_eq!(span(60 * 60 * 24 * 3), "3 days");
    }
}
