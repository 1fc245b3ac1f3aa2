//! What `ps -ef` prints, out of /proc (proc_pid_stat(5)).

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt,
};

use jiff::{Timestamp, tz::TimeZone};

use crate::{model::Processes, usage::nanoseconds_per_tick};

const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

/// Characters of a user's name before ps gives the number instead.
const NAME_WIDTH: usize = 8;

/// The rows of these processes; those that are gone by now are left out.
pub(super) fn full(pids: &BTreeSet<u32>) -> Processes {
    let names = user_names();
    let host = Host::now();
    Processes {
        titles: TITLES.map(str::to_owned).to_vec(),
        rows: pids
            .iter()
            .filter_map(|&pid| row(pid, &names, &host))
            .collect(),
    }
}

/// What times are counted from.
struct Host {
    boot: i64,
    now: i64,
    tick: u64,
    zone: TimeZone,
}

impl Host {
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = stat
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|text| text.trim().parse().ok());
        Self {
            boot: boot.unwrap_or(0),
            now: Timestamp::now().as_second(),
            tick: nanoseconds_per_tick(),
            zone: TimeZone::system(),
        }
    }
}

fn row(pid: u32, names: &HashMap<u32, String>, host: &Host) -> Option<Vec<String>> {
    let dir = format!("/proc/{pid}");
    let uid = fs::metadata(&dir).ok()?.uid();
    let stat = Stat::parse(&fs::read_to_string(format!("{dir}/stat")).ok()?)?;
    let command = command(
        &fs::read(format!("{dir}/cmdline")).unwrap_or_default(),
        &stat.name,
    );
    let seconds =
        |ticks: u64| i64::try_from(ticks.saturating_mul(host.tick) / 1_000_000_000).unwrap_or(0);
    let (used, started) = (seconds(stat.used), host.boot + seconds(stat.started));
    let age = (host.now - started).max(1);
    let user = names
        .get(&uid)
        .filter(|name| name.len() <= NAME_WIDTH)
        .cloned()
        .unwrap_or_else(|| uid.to_string());
    Some(vec![
        user,
        pid.to_string(),
        stat.parent.to_string(),
        (used * 100 / age).clamp(0, 99).to_string(),
        start_text(started, host),
        terminal(stat.terminal),
        format!("{:02}:{:02}:{:02}", used / 3600, used / 60 % 60, used % 60),
        command,
    ])
}

struct Stat {
    name: String,
    parent: u32,
    terminal: u64,
    /// Ticks on a CPU.
    used: u64,
    /// Ticks between boot and start.
    started: u64,
}

impl Stat {
    /// "pid (name) state ppid …"; the name may contain anything.
    fn parse(text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            name,
            parent: u32::try_from(number(1)?).ok()?,
            terminal: number(4)?,
            used: number(11)? + number(12)?,
            started: number(19)?,
        })
    }
}

/// The command line with blanks between the words, or "[name]" without one.
fn command(line: &[u8], name: &str) -> String {
    let end = line
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    if end == 0 {
        return format!("[{name}]");
    }
    let text = String::from_utf8_lossy(&line[..end]);
    text.chars()
        .map(|c| {
            if c == '\0' {
                ' '
            } else if c.is_control() {
                '?'
            } else {
                c
            }
        })
        .collect()
}

/// The terminal's name by its device number; "?" for none.
fn terminal(device: u64) -> String {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        _ => "?".to_owned(),
    }
}

/// "HH:MM" on the day itself, "MonDD" in the year, "YYYY" before.
fn start_text(second: i64, host: &Host) -> String {
    let zoned = |second: i64| {
        Timestamp::from_second(second)
            .unwrap_or_default()
            .to_zoned_datetime(host.zone.clone())
    };
    let (start, now) = (zoned(second), zoned(host.now));
    let form = match (start.date() == now.date(), start.year() == now.year()) {
        (true, _) => "%H:%M",
        (false, true) => "%b%d",
        (false, false) => "%Y",
    };
    start.strftime(form).to_string()
}

fn user_names() -> HashMap<u32, String> {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    let mut names = HashMap::new();
    for (uid, name) in text.lines().filter_map(user) {
        names.entry(uid).or_insert(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_odd_names() {
        let stat = Stat::parse("7 (a) b (c) S 1 7 7 34816 7 0 0 0 0 0 150 50 0 0 20 0 1 0 1000 0")
            .unwrap();
        assert_eq!(
            (stat.name.as_str(), stat.parent, stat.used, stat.started),
            ("a) b (c", 1, 200, 1000)
        );
        assert_eq!(terminal(stat.terminal), "pts/0");
        assert!(Stat::parse("7 (x").is_none());
    }

    #[test]
    fn words_and_times() {
        assert_eq!(command(b"sh\0-c\0sleep 1\0", "sh"), "sh -c sleep 1");
        assert_eq!(command(b"", "kthread"), "[kthread]");
        let host = Host {
            boot: 0,
            now: 86_400 * 400,
            tick: 1,
            zone: TimeZone::UTC,
        };
        assert_eq!(start_text(86_400 * 400 - 3600 + 60 * 60, &host), "00:00");
        assert_eq!(start_text(86_400 * 390, &host), "Jan26");
        assert_eq!(start_text(0, &host), "1970");
    }
}
