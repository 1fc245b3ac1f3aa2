//! Traffic of a container's network interfaces.

use std::{collections::BTreeMap, fs};

use crate::model::NetworkStats;

/// The interfaces that the process sees, without loopback; none when it is
/// gone.
pub(super) fn of_process(pid: u32) -> BTreeMap<String, NetworkStats> {
    parse(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

/// Reads proc_pid_net(5)'s `dev`: two lines of titles, then "name: " and 16
/// numbers, eight received and eight sent.
pub(super) fn parse(text: &str) -> BTreeMap<String, NetworkStats> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        let &[
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = numbers.as_slice()
        else {
            return None;
        };
        let stats = NetworkStats {
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        };
        Some((name.trim().to_owned(), stats))
    };
    text.lines()
        .skip(2)
        .filter_map(line)
        .filter(|(name, _)| name != "lo")
        .collect()
}
