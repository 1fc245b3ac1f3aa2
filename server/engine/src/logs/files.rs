//! The files of a log, oldest to newest, and reading on through rotation:
//! `<path>` is renamed to `<path>.1`, that to `<path>.2`, and the last goes.
//! Everything here blocks; a file is known by its inode, whatever its name.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::entry;
use crate::model::LogEntry;

/// Bytes read at once.
const BLOCK: usize = 64 << 10;
/// The longest line that can be one: 16 KiB of text, each byte escaped.
const LONGEST_LINE: usize = 256 << 10;

/// Existing files of a log, newest first.
pub(super) fn all(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if path.exists() {
        found.push(path.to_owned());
    }
    for number in 1.. {
        let rotated = rotated(path, number);
        if rotated.exists() {
            found.push(rotated);
        } else if !is_hole(path, number) {
            break;
        }
    }
    found
}

/// Whether the name `number` that is not there is only free for a moment: a rotation renames from the oldest file
/// on, so that the one that had the name has the next by now, and the one before is about to get it.
fn is_hole(path: &Path, number: u32) -> bool {
    rotated(path, number + 1).exists()
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Beginning,
    /// The first entry at this position or later.
    Position(u64),
    /// So many entries before the end.
    Tail(u64),
}

/// A place in a log.
#[derive(Debug)]
pub(super) struct Cursor {
    path: PathBuf,
    /// Files to read, oldest first; the first one is being read. The last one
    /// was the newest when we looked.
    queue: VecDeque<File>,
    /// Read, and not yet a whole line.
    rest: Vec<u8>,
}

impl Cursor {
    /// Opens a log. One that does not exist yet is empty.
    pub(super) fn open(path: &Path, from: From) -> io::Result<Self> {
        let mut queue = open_all(path)?;
        match from {
            From::Beginning => {}
            From::Position(position) => seek_position(&mut queue, position)?,
            From::Tail(count) => seek_tail(&mut queue, count)?,
        }
        Ok(Self {
            path: path.to_owned(),
            queue,
            rest: Vec::new(),
        })
    }

    /// Reads on: some entries, or none when there is nothing more for now.
    pub(super) fn next(&mut self) -> io::Result<Vec<LogEntry>> {
        loop {
            let Some(file) = self.queue.front_mut() else {
                self.queue = open_all(&self.path)?;
                if self.queue.is_empty() {
                    return Ok(Vec::new());
                }
                continue;
            };
            let before = self.rest.len();
            file.by_ref()
                .take(BLOCK as u64)
                .read_to_end(&mut self.rest)?;
            if self.rest.len() > before {
                let entries = self.take_lines();
                if !entries.is_empty() {
                    return Ok(entries);
                }
                if self.rest.len() > LONGEST_LINE {
                    self.rest.clear();
                }
                continue;
            }
            if !self.advance()? {
                return Ok(Vec::new());
            }
        }
    }

    /// At the end of a file: goes to the next one, if there is one.
    fn advance(&mut self) -> io::Result<bool> {
        if self.queue.len() > 1 {
            self.queue.pop_front();
            self.rest.clear();
            return Ok(true);
        }
        let Some(file) = self.queue.front_mut() else {
            return Ok(false);
        };
        if file.metadata()?.len() < file.stream_position()? {
            // A log of one file is emptied in place.
            file.rewind()?;
            self.rest.clear();
            return Ok(true);
        }
        let mine = identity(file)?;
        let newer = newer_than(&self.path, mine)?;
        if newer.is_empty() {
            return Ok(false);
        }
        // The writer was done with this file before it renamed it: what it
        // wrote since our last look is there now, and nothing comes after.
        let position = file.stream_position()?;
        if file.metadata()?.len() > position {
            return Ok(true);
        }
        self.queue = newer;
        self.rest.clear();
        Ok(true)
    }

    fn take_lines(&mut self) -> Vec<LogEntry> {
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let entries = self.rest[..end]
            .split(|byte| *byte == b'\n')
            .filter_map(entry::parse)
            .collect();
        self.rest.drain(..=end);
        entries
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino()))
}

/// All files, oldest first. Opened newest first, so that a rotation meanwhile
/// shows a file twice and never hides one.
fn open_all(path: &Path) -> io::Result<VecDeque<File>> {
    let mut found: VecDeque<File> = VecDeque::new();
    let mut number = 0;
    loop {
        let name = if number == 0 {
            path.to_owned()
        } else {
            rotated(path, number)
        };
        match File::open(&name) {
            Ok(file) => {
                let new = identity(&file)?;
                if found.front().map(identity).transpose()? != Some(new) {
                    found.push_front(file);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Between two renames a name is free for a moment, the newest one too.
                if number > 0 && !is_hole(path, number) {
                    return Ok(found);
                }
            }
            Err(error) => return Err(error),
        }
        number += 1;
    }
}

/// The files newer than the one known as `mine`, oldest first. When that one
/// is gone all are.
fn newer_than(path: &Path, mine: (u64, u64)) -> io::Result<VecDeque<File>> {
    let mut all = open_all(path)?;
    let mut place = None;
    for (index, file) in all.iter().enumerate() {
        if identity(file)? == mine {
            place = Some(index);
        }
    }
    Ok(match place {
        Some(index) => all.split_off(index + 1),
        None => all,
    })
}

/// Drops what lies before `position`.
fn seek_position(queue: &mut VecDeque<File>, position: u64) -> io::Result<()> {
    while queue.len() > 1 {
        let next_begins = first_position(&mut queue[1])?;
        if next_begins.is_none_or(|begin| begin > position) {
            break;
        }
        queue.pop_front();
    }
    if let Some(file) = queue.front_mut() {
        let offset = bisect(file, position)?;
        file.seek(SeekFrom::Start(offset))?;
    }
    Ok(())
}

fn first_position(file: &mut File) -> io::Result<Option<u64>> {
    let found = line_from(file, 0)?
        .and_then(|(_, entry)| entry)
        .map(|entry| entry.position);
    file.seek(SeekFrom::Start(0))?;
    Ok(found)
}

/// An offset at the beginning of a line, before which every entry is before
/// `position`, and little before it.
fn bisect(file: &mut File, position: u64) -> io::Result<u64> {
    let (mut low, mut high) = (0, file.metadata()?.len());
    while high - low > BLOCK as u64 {
        let middle = low + (high - low) / 2;
        match line_from(file, middle)? {
            Some((start, Some(entry))) if entry.position < position && start > low => low = start,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

/// The first whole line that begins at `offset` or after it.
fn line_from(file: &mut File, offset: u64) -> io::Result<Option<(u64, Option<LogEntry>)>> {
    file.seek(SeekFrom::Start(offset.saturating_sub(1)))?;
    let mut bytes = Vec::new();
    file.by_ref()
        .take(2 * LONGEST_LINE as u64)
        .read_to_end(&mut bytes)?;
    let skip = if offset == 0 {
        0
    } else {
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None => return Ok(None),
        }
    };
    let Some(length) = bytes[skip..].iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let start = offset.saturating_sub(1) + skip as u64;
    Ok(Some((start, entry::parse(&bytes[skip..skip + length]))))
}

/// Drops all but the last `count` lines, reading backwards.
fn seek_tail(queue: &mut VecDeque<File>, count: u64) -> io::Result<()> {
    let mut wanted = count;
    for index in (0..queue.len()).rev() {
        let file = &mut queue[index];
        let (offset, found) = tail_offset(file, wanted)?;
        file.seek(SeekFrom::Start(offset))?;
        wanted -= found;
        if wanted == 0 {
            queue.drain(..index);
            return Ok(());
        }
    }
    Ok(())
}

/// Where the last `count` whole lines of a file begin, and how many there are.
fn tail_offset(file: &mut File, count: u64) -> io::Result<(u64, u64)> {
    let length = file.metadata()?.len();
    let mut block = vec![0; BLOCK];
    let (mut end, mut seen) = (length, 0);
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let size = usize::try_from(end - start).unwrap_or(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block[..size])?;
        for (index, _) in block[..size]
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            // The newline that ends the line before the wanted ones.
            if seen == count {
                return Ok((start + index as u64 + 1, count));
            }
            seen += 1;
        }
        end = start;
    }
    Ok((0, seen.min(count)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(number: u64) -> String {
        let time = jiff::Timestamp::from_nanosecond(1_700_000_000_000_000_000 + i128::from(number))
            .unwrap();
        format!("{{\"log\":\"line {number}\\n\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n")
    }

    struct Log {
        _dir: tempfile::TempDir,
        path: PathBuf,
        written: u64,
    }

    impl Log {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x-json.log");
            Self {
                _dir: dir,
                path,
                written: 0,
            }
        }

        fn write(&mut self, count: u64) {
            let mut file = File::options()
                .create(true)
                .append(true)
                .open(&self.path)
                .unwrap();
            for _ in 0..count {
                file.write_all(line(self.written).as_bytes()).unwrap();
                self.written += 1;
            }
        }

        fn rotate(&self, keep: u32) {
            for number in (1..keep).rev() {
                let from = if number == 1 {
                    self.path.clone()
                } else {
                    rotated(&self.path, number - 1)
                };
                if from.exists() {
                    std::fs::rename(from, rotated(&self.path, number)).unwrap();
                }
            }
        }
    }

    fn drain(cursor: &mut Cursor) -> Vec<u64> {
        let mut numbers = Vec::new();
        loop {
            let entries = cursor.next().unwrap();
            if entries.is_empty() {
                return numbers;
            }
            for entry in entries {
                let text = String::from_utf8(entry.line.to_vec()).unwrap();
                numbers.push(text.trim().strip_prefix("line ").unwrap().parse().unwrap());
            }
        }
    }

    #[test]
    fn reads_on_through_rotations() {
        let mut log = Log::new();
        let mut cursor = Cursor::open(&log.path, From::Beginning).unwrap();
        assert!(drain(&mut cursor).is_empty());
        log.write(3);
        assert_eq!(drain(&mut cursor), [0, 1, 2]);
        log.write(2);
        log.rotate(4);
        log.write(2);
        log.rotate(4);
        log.write(1);
        assert_eq!(drain(&mut cursor), [3, 4, 5, 6, 7]);
        log.rotate(4);
        assert!(drain(&mut cursor).is_empty());
        log.write(1);
        assert_eq!(drain(&mut cursor), [8]);
        let mut all = Cursor::open(&log.path, From::Beginning).unwrap();
        assert_eq!(drain(&mut all), (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn a_slow_reader_keeps_the_file_it_reads() {
        let mut log = Log::new();
        log.write(2);
        let mut cursor = Cursor::open(&log.path, From::Beginning).unwrap();
        for _ in 0..5 {
            log.rotate(2);
            log.write(1);
        }
        let read = drain(&mut cursor);
        assert_eq!(read[..2], [0, 1]);
        assert_eq!(read.last(), Some(&6));
    }

    #[test]
    fn a_log_that_is_emptied_in_place_is_read_from_its_new_beginning() {
        let mut log = Log::new();
        log.write(5);
        let mut cursor = Cursor::open(&log.path, From::Beginning).unwrap();
        assert_eq!(drain(&mut cursor).len(), 5);
        File::options()
            .write(true)
            .truncate(true)
            .open(&log.path)
            .unwrap();
        log.write(2);
        assert_eq!(drain(&mut cursor), [5, 6]);
    }

    #[test]
    fn tail_reads_from_the_end_over_files() {
        let mut log = Log::new();
        log.write(5);
        log.rotate(4);
        log.write(3);
        for (count, first) in [(0, 8), (1, 7), (3, 5), (4, 4), (8, 0), (100, 0)] {
            let mut cursor = Cursor::open(&log.path, From::Tail(count)).unwrap();
            assert_eq!(
                drain(&mut cursor),
                (first..8).collect::<Vec<_>>(),
                "tail {count}"
            );
        }
    }

    #[test]
    fn a_large_log_is_bisected() {
        let mut log = Log::new();
        log.write(6000);
        log.rotate(3);
        log.write(6000);
        for wanted in [0, 1, 3000, 5999, 6000, 6001, 11_000, 11_999, 12_000] {
            let position = 1_700_000_000_000_000_000 + wanted;
            let mut cursor = Cursor::open(&log.path, From::Position(position)).unwrap();
            let read = drain(&mut cursor);
            assert_eq!(
                read.iter().filter(|number| **number >= wanted).count() as u64,
                12_000 - wanted,
                "{wanted}"
            );
            assert!(
                read.len() as u64 <= 12_000 - wanted + 1500,
                "{wanted}: {}",
                read.len()
            );
        }
    }

    #[test]
    fn a_cut_line_is_left_out() {
        let mut log = Log::new();
        log.write(1);
        let mut file = File::options().append(true).open(&log.path).unwrap();
        file.write_all(b"{\"log\":\"cut").unwrap();
        let mut cursor = Cursor::open(&log.path, From::Beginning).unwrap();
        assert_eq!(drain(&mut cursor), [0]);
        file.write_all(b"\n").unwrap();
        log.write(1);
        assert_eq!(drain(&mut cursor), [1]);
    }

    #[test]
    fn a_rotation_that_is_under_way_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        for (name, number) in [("x-json.log", 4), ("x-json.log.2", 2), ("x-json.log.3", 1)] {
            std::fs::write(dir.path().join(name), line(number)).unwrap();
        }
        // What was .1 is .2 already, and the newest is not .1 yet.
        assert_eq!(open_all(&path).unwrap().len(), 3);
        assert_eq!(all(&path).len(), 3);
        std::fs::rename(&path, dir.path().join("x-json.log.1")).unwrap();
        assert_eq!(open_all(&path).unwrap().len(), 3);
    }
}
