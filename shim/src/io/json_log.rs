//! The container's log file in docker's json-file format, with rotation.
//!
//! One JSON object a line: `{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}`. A line of more
//! than 16 KiB becomes several entries, of which only the last ends in `\n`. What has no newline yet is held back
//! until it has one, reaches 16 KiB, or the stream ends. Many entries are written with one write; nothing is ever
//! fsynced, since a log must not hold a container up. The file rotates before it would pass its size: `<path>.1` is
//! the newest of the old ones.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Stream, scratch};
use crate::diag;

/// The longest text of one entry, in bytes before escaping (docker's number).
pub(crate) const MAX_ENTRY: usize = 16 * 1024;
/// Entries are collected up to this size before they are written.
const BATCH: usize = 256 * 1024;

/// Where the log goes and how it rotates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// An absolute path.
    pub(crate) path: PathBuf,
    /// Bytes in one file; 0 = no rotation.
    pub(crate) max_size: u64,
    /// Files in all, the current one among them; at least 1.
    pub(crate) max_file: u32,
}

/// An open log.
#[derive(Debug)]
pub(crate) struct JsonLog {
    options: LogOptions,
    file: Option<File>,
    size: u64,
    /// The unfinished line of each stream.
    held: [Vec<u8>; 2],
    /// Entries to be written; borrowed from [`scratch`] while there is something to do.
    batch: Vec<u8>,
    /// Entries lost to write errors since the last that worked.
    lost: u64,
    clock: Clock,
}

impl JsonLog {
    /// Opens or creates the file and appends to it.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn open(options: LogOptions) -> io::Result<JsonLog> {
        let (file, size) = open(&options.path)?;
        Ok(JsonLog {
            options,
            file: Some(file),
            size,
            held: Default::default(),
            batch: Vec::new(),
            lost: 0,
            clock: Clock::default(),
        })
    }

    /// Logs what a stream wrote.
    pub(crate) fn write(&mut self, stream: Stream, mut data: &[u8]) {
        let now = nanoseconds();
        self.batch = scratch::take_batch();
        let mut held = std::mem::take(&mut self.held[stream as usize]);
        if !held.is_empty() {
            // Finish the line that was held back.
            let end = memchr::memchr(b'\n', data).map_or(data.len(), |at| at + 1);
            held.extend_from_slice(&data[..end]);
            data = &data[end..];
            let rest = self.lines(stream, &held, now);
            let rest = held.len() - rest;
            held.drain(..rest);
        }
        if !data.is_empty() {
            let rest = self.lines(stream, data, now);
            held.extend_from_slice(&data[data.len() - rest..]);
        }
        self.held[stream as usize] = held;
        self.flush();
        scratch::give_batch(std::mem::take(&mut self.batch));
    }

    /// Logs what a stream left without a newline at its end.
    pub(crate) fn end(&mut self, stream: Stream) {
        let held = std::mem::take(&mut self.held[stream as usize]);
        if !held.is_empty() {
            self.entry(stream, &held, nanoseconds());
            self.flush();
            self.batch = Vec::new();
        }
    }

    /// What is held back of a stream: it is in no file yet.
    pub(crate) fn held(&self, stream: Stream) -> &[u8] {
        &self.held[stream as usize]
    }

    /// The files, the oldest first, each opened, with the length that is valid now.
    pub(crate) fn files(&self) -> Vec<(File, u64)> {
        let old = (1..self.options.max_file)
            .rev()
            .map(|number| numbered(&self.options.path, number));
        old.chain([self.options.path.clone()])
            .filter_map(|path| {
                let file = File::open(path).ok()?;
                let length = file.metadata().ok()?.len();
                Some((file, length))
            })
            .collect()
    }

    /// Writes entries for all complete lines and 16 KiB pieces; returns how many bytes at the end are neither.
    fn lines(&mut self, stream: Stream, data: &[u8], now: i128) -> usize {
        let mut rest = data;
        loop {
            let line = memchr::memchr(b'\n', rest).map(|at| at + 1);
            let text = line.map_or(rest.len(), |end| end - 1);
            if text > MAX_ENTRY {
                let piece = whole_characters(rest, MAX_ENTRY);
                self.entry(stream, &rest[..piece], now);
                rest = &rest[piece..];
            } else if let Some(end) = line {
                self.entry(stream, &rest[..end], now);
                rest = &rest[end..];
            } else {
                return rest.len();
            }
        }
    }

    fn entry(&mut self, stream: Stream, text: &[u8], now: i128) {
        let before = self.batch.len();
        self.batch.extend_from_slice(b"{\"log\":\"");
        escape(&mut self.batch, text);
        self.batch.extend_from_slice(match stream {
            Stream::Stdout => b"\",\"stream\":\"stdout\",\"time\":\"",
            Stream::Stderr => b"\",\"stream\":\"stderr\",\"time\":\"",
        });
        self.clock.write(now, &mut self.batch);
        self.batch.extend_from_slice(b"\"}\n");
        let max = self.options.max_size;
        if max > 0 && self.size + self.batch.len() as u64 > max && self.size + before as u64 > 0 {
            let entry = self.batch.split_off(before);
            self.flush();
            self.rotate();
            self.batch.extend_from_slice(&entry);
        } else if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.file.is_none() {
            self.reopen();
        }
        let result = match &mut self.file {
            Some(file) => file.write_all(&self.batch),
            None => Err(io::Error::other("it could not be opened again")),
        };
        match result {
            Ok(()) => {
                self.size += self.batch.len() as u64;
                if self.lost > 0 {
                    diag::warn(format_args!(
                        "log {}: works again; {} writes were lost",
                        self.options.path.display(),
                        self.lost
                    ));
                    self.lost = 0;
                }
            }
            // A full disk must not stop the container. Told once a spell.
            Err(error) => {
                if self.lost == 0 {
                    diag::warn(format_args!(
                        "log {}: output is lost: {error}",
                        self.options.path.display()
                    ));
                }
                self.lost += 1;
                // A torn entry would spoil the next one's line, too.
                if let Some(file) = &self.file
                    && file.set_len(self.size).is_err()
                {
                    self.size = file.metadata().map_or(self.size, |metadata| metadata.len());
                }
            }
        }
        self.batch.clear();
    }

    fn rotate(&mut self) {
        let path = &self.options.path;
        if self.options.max_file <= 1 {
            match OpenOptions::new().write(true).truncate(true).open(path) {
                Ok(_) => self.size = 0,
                Err(error) => diag::warn(format_args!(
                    "log {}: cannot be emptied: {error}",
                    path.display()
                )),
            }
            return;
        }
        for number in (1..self.options.max_file).rev() {
            let from = if number == 1 {
                path.clone()
            } else {
                numbered(path, number - 1)
            };
            match fs::rename(&from, numbered(path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    diag::warn(format_args!(
                        "log {}: cannot be rotated: {error}",
                        from.display()
                    ));
                }
                _ => {}
            }
        }
        self.file = None;
        self.reopen();
    }

    fn reopen(&mut self) {
        match open(&self.options.path) {
            Ok((file, size)) => (self.file, self.size) = (Some(file), size),
            Err(error) => diag::warn(format_args!("log {}: {error}", self.options.path.display())),
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The length of the longest prefix of at most `limit` bytes that does not end inside a UTF-8 sequence.
fn whole_characters(data: &[u8], limit: usize) -> usize {
    let continues = |at: usize| data.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (limit.saturating_sub(3)..=limit)
        .rev()
        .find(|at| !continues(*at))
        .unwrap_or(limit)
}

/// Appends `text` as the inside of a JSON string; what is not UTF-8 becomes U+FFFD.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        escape_valid(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn escape_valid(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut plain = 0;
    for (at, &byte) in text.iter().enumerate() {
        if !NEEDS_ESCAPE[byte as usize] {
            continue;
        }
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&text[plain..]);
}

const NEEDS_ESCAPE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[0x7f] = true;
    table
};

fn nanoseconds() -> i128 {
    Timestamp::now().as_nanosecond()
}

/// Gives each entry a time of its own, later than that of the one before: the
/// daemon reads on from a time, and must neither skip nor repeat an entry.
#[derive(Debug, Default)]
struct Clock {
    last: i128,
    /// The second that `text` has, "2026-01-02T03:04:05".
    second: i64,
    text: String,
}

impl Clock {
    /// Appends the time of the next entry, with nine digits of fraction.
    fn write(&mut self, now: i128, batch: &mut Vec<u8>) {
        self.last = now.max(self.last + 1);
        let second = i64::try_from(self.last.div_euclid(1_000_000_000)).unwrap_or(0);
        if self.text.is_empty() || second != self.second {
            let whole = Timestamp::from_second(second)
                .unwrap_or_default()
                .to_string();
            self.second = second;
            self.text.clear();
            self.text.push_str(whole.trim_end_matches('Z'));
        }
        batch.extend_from_slice(self.text.as_bytes());
        let mut digits = *b".000000000Z";
        let mut fraction = self.last.rem_euclid(1_000_000_000);
        for digit in digits[1..10].iter_mut().rev() {
            *digit = b'0' + u8::try_from(fraction % 10).unwrap_or(0);
            fraction /= 10;
        }
        batch.extend_from_slice(&digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_a_later_time() {
        let mut clock = Clock::default();
        let mut text = |now| {
            let mut batch = Vec::new();
            clock.write(now, &mut batch);
            String::from_utf8(batch).unwrap()
        };
        assert_eq!(text(1_500_000_007), "1970-01-01T00:00:01.500000007Z");
        assert_eq!(text(1_500_000_007), "1970-01-01T00:00:01.500000008Z");
        assert_eq!(text(1), "1970-01-01T00:00:01.500000009Z");
        assert_eq!(text(1_999_999_999), "1970-01-01T00:00:01.999999999Z");
        assert_eq!(text(0), "1970-01-01T00:00:02.000000000Z");
    }

    #[derive(serde::Deserialize)]
    struct Entry {
        log: String,
        stream: String,
        time: Timestamp,
    }

    fn log(directory: &tempfile::TempDir, max_size: u64, max_file: u32) -> JsonLog {
        JsonLog::open(LogOptions {
            path: directory.path().join("x.log"),
            max_size,
            max_file,
        })
        .unwrap()
    }

    fn entries(directory: &tempfile::TempDir, name: &str) -> Vec<Entry> {
        let text = fs::read_to_string(directory.path().join(name)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn lines_are_entries_and_what_is_unfinished_waits() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(&directory, 0, 1);
        log.write(Stream::Stdout, b"one\ntwo \"q\" \\ \x01\xff\nthr");
        log.write(Stream::Stderr, b"err\n");
        log.write(Stream::Stdout, b"ee\nfour");
        assert_eq!(log.held(Stream::Stdout), b"four");
        log.end(Stream::Stdout);
        let all = entries(&directory, "x.log");
        let texts: Vec<_> = all
            .iter()
            .map(|e| (e.stream.as_str(), e.log.as_str()))
            .collect();
        assert_eq!(
            texts,
            [
                ("stdout", "one\n"),
                ("stdout", "two \"q\" \\ \u{1}\u{fffd}\n"),
                ("stderr", "err\n"),
                ("stdout", "three\n"),
                ("stdout", "four")
            ]
        );
        assert!(all[0].time.duration_until(Timestamp::now()).as_secs() < 10);
    }

    #[test]
    fn long_lines_become_partial_entries_between_characters() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(&directory, 0, 1);
        let line = format!("a{}\n", "\u{e4}".repeat(MAX_ENTRY));
        for piece in line.as_bytes().chunks(1000) {
            log.write(Stream::Stdout, piece);
        }
        let all = entries(&directory, "x.log");
        assert_eq!(all.len(), 3);
        assert!(
            all.iter()
                .all(|e| !e.log.contains('\u{fffd}') && e.log.len() <= MAX_ENTRY)
        );
        assert_eq!(all.iter().map(|e| e.log.as_str()).collect::<String>(), line);
        assert_eq!(all.iter().filter(|e| e.log.ends_with('\n')).count(), 1);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_one_entry() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(&directory, 0, 1);
        log.write(Stream::Stdout, "x".repeat(MAX_ENTRY).as_bytes());
        log.write(Stream::Stdout, b"\n");
        assert_eq!(entries(&directory, "x.log").len(), 1);
    }

    #[test]
    fn files_rotate_below_their_size_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(&directory, 10_000, 3);
        for number in 0..1000 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        let mut numbers = Vec::new();
        for name in ["x.log.2", "x.log.1", "x.log"] {
            assert!(fs::metadata(directory.path().join(name)).unwrap().len() <= 10_000);
            numbers.extend(entries(&directory, name).into_iter().map(|e| e.log));
        }
        assert!(!directory.path().join("x.log.3").exists());
        let expected: Vec<_> = (1000 - numbers.len()..1000)
            .map(|n| format!("line {n}\n"))
            .collect();
        assert_eq!(numbers, expected);
        assert!(numbers.len() > 200);
    }

    #[test]
    fn a_full_disk_tears_no_entry() {
        let directory = tempfile::tempdir().unwrap();
        let options = davit_sys::mount::Mount {
            kind: "tmpfs".into(),
            source: "tmpfs".into(),
            options: vec!["size=64k".into()],
            ..Default::default()
        };
        davit_sys::mount::attach(&[options], directory.path()).unwrap();
        let mut log = log(&directory, 0, 1);
        for number in 0..3000 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        assert!(log.lost > 0);
        // Each line parses, and none is missing before the first that was lost.
        let all = entries(&directory, "x.log");
        assert!(all.len() > 500);
        assert!(
            all.iter()
                .enumerate()
                .all(|(at, entry)| entry.log == format!("line {at}\n"))
        );
        drop(log);
        davit_sys::mount::detach(directory.path()).unwrap();
    }

    #[test]
    fn one_file_is_emptied_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(&directory, 5_000, 1);
        for number in 0..1000 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        assert!(fs::metadata(directory.path().join("x.log")).unwrap().len() <= 5_000);
        assert_eq!(
            entries(&directory, "x.log").last().unwrap().log,
            "line 999\n"
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
